"""Copies between the host and a GPU that overlap what the GPU computes."""

from __future__ import annotations

import time
from typing import Callable, Sequence

import numpy as np
import torch

TYPES = {np.dtype("uint8"): torch.uint8, np.dtype("float32"): torch.float32}
POLL = 5e-5  # s between two looks at a device, far below a step's time


def upload(
    arrays: Sequence[np.ndarray], copies: torch.cuda.Stream, user: torch.cuda.Stream
) -> list[torch.Tensor]:
    """Bring arrays to the current GPU on the stream `copies`; `user` waits for them, the host not.

    Page-locked host memory is what makes the copy asynchronous. Arrays of `page_locked` must stay
    as they are until `user` has read them; others are copied first, into memory that PyTorch keeps
    until it is sent, and for later use.
    """
    sent = []
    with torch.cuda.stream(copies):
        for array in arrays:
            if _is_page_locked(array):
                host = torch.from_numpy(array)
            else:
                host = torch.empty(array.shape, dtype=TYPES[array.dtype], pin_memory=True)
                host.numpy()[...] = array
            sent.append(host.to(copies.device, non_blocking=True))
    user.wait_stream(copies)
    for tensor in sent:
        tensor.record_stream(user)  # its memory is not given away before `user` has read it
    return sent


def page_locked(size: int) -> np.ndarray:
    """Return (size,) bytes of page-locked host memory, which belongs to the array."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()


def _is_page_locked(array: np.ndarray) -> bool:
    flags = array.flags
    return flags.c_contiguous and flags.writeable and torch.from_numpy(array).is_pinned()


class Download:
    """Tensors on their way to the host.

    Parameters
    ----------
    tensors : list of torch.Tensor
        Made on the stream `maker`.
    maker, copies : torch.cuda.Stream
        The copies run on the second one.
    """

    def __init__(
        self,
        tensors: Sequence[torch.Tensor],
        maker: torch.cuda.Stream,
        copies: torch.cuda.Stream,
    ):
        copies.wait_stream(maker)
        with torch.cuda.stream(copies):
            self._hosts = [_to_pinned(tensor) for tensor in tensors]
            self._done = torch.cuda.Event()
            self._done.record(copies)
        for tensor in tensors:
            tensor.record_stream(copies)

    def arrays(self) -> list[np.ndarray]:
        """Wait for the arrays; they lie in the page-locked memory."""
        self._done.synchronize()
        return [host.numpy() for host in self._hosts]

    def arrays_unless(self, lost: Callable[[], bool], patience: float) -> list[np.ndarray] | None:
        """As `arrays`, but None if they are not there `patience` s after `lost()` became true."""
        since = None
        while not self._done.query():
            if since is None and lost():
                since = time.monotonic()
            if since is not None and time.monotonic() - since > patience:
                return None
            time.sleep(POLL)
        return self.arrays()


def _to_pinned(tensor: torch.Tensor) -> torch.Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
