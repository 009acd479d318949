"""Memory for batches that workers fill in place, as pipes are too slow for pictures."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from reader.errors import DataError
from reader.loader_pool import Context
from reader.sample import Sample

PIXEL_BYTES = 15  # two pictures, a float32 vector, a mask
ALIGNMENT = 64


class Batch(NamedTuple):
    """N training samples of one size.

    Attributes
    ----------
    img1, img2 : np.ndarray
        (N, H, W, 3) uint8, RGB.
    flow : np.ndarray
        (N, H, W, 2) float32, px, (u, v).
    mask : np.ndarray
        (N, H, W, 1) uint8, 255 = the flow is valid.
    names : tuple of str
        Of the samples.
    """

    img1: np.ndarray
    img2: np.ndarray
    flow: np.ndarray
    mask: np.ndarray
    names: tuple


class Slots:
    """A few batches in memory that processes share.

    Parameters
    ----------
    count : int
        Number of batches.
    samples, height, width : int
        Of each batch.
    shared : bool
        False where there is only the calling process.

    Raises
    ------
    DataError
        The memory for them is not there.
    """

    def __init__(self, count: int, samples: int, height: int, width: int, shared: bool):
        self.shape = (samples, height, width)
        self.pixels = samples * height * width
        self.stride = -(-self.pixels * PIXEL_BYTES // ALIGNMENT) * ALIGNMENT
        size = count * self.stride
        try:
            # Anonymous or already unlinked, so that nothing remains of a process that is killed.
            self.memory = (
                Context().RawArray(ctypes.c_uint8, size) if shared else np.empty(size, np.uint8)
            )
        except (OSError, MemoryError) as error:
            raise DataError(
                f"{size / 2**20:.0f} MiB of shared memory for {count} batches cannot be had "
                f"({error}): load fewer batches ahead"
            ) from error

    def arrays(self, slot: int) -> tuple[np.ndarray, ...]:
        """Return img1, img2, flow and mask of one batch as writable views of the memory."""
        # The vectors come first, as float32 must begin at a multiple of four bytes.
        start, pixels = slot * self.stride, self.pixels
        flow = np.frombuffer(self.memory, np.float32, 2 * pixels, start)
        rest = np.frombuffer(self.memory, np.uint8, 7 * pixels, start + 8 * pixels)
        img1, img2, mask = rest[: 3 * pixels], rest[3 * pixels : 6 * pixels], rest[6 * pixels :]
        parts = ((img1, 3), (img2, 3), (flow, 2), (mask, 1))
        return tuple(array.reshape(*self.shape, channels) for array, channels in parts)

    def put(self, slot: int, row: int, sample: Sample) -> None:
        """Write a sample of the slots' size into row ``row`` of a batch; a mask of None is 255."""
        for array, values in zip(self.arrays(slot), sample[:4]):
            array[row] = 255 if values is None else values

    def take(self, slot: int, names: tuple[str, ...]) -> Batch:
        """Return a copy of a batch."""
        return Batch(*(array.copy() for array in self.arrays(slot)), names)
