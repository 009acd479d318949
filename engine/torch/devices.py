"""The devices of `-g` for PyTorch: what they compute, copies that overlap it, CUDA graphs, memory."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import numpy as np
import torch
from maskflownet.engine.contract import OutOfMemory, device_ids
from maskflownet.errors import UserError

CPU = torch.device("cpu")
BF16_CAPABILITY = (8, 0)  # of the first GPUs with matrix units for it
TYPES = {np.dtype("uint8"): torch.uint8, np.dtype("float32"): torch.float32}
POLL = 5e-5  # s between two looks at a device, far below a step's time


def devices(gpus: str) -> list[torch.device]:
    """PyTorch devices of comma-separated ids; the CPU without any."""
    cuda = torch.backends.cuda
    ids = device_ids(gpus, "PyTorch", lambda: torch.cuda.device_count() if cuda.is_built() else None)
    return [torch.device("cuda", i) for i in ids] or [CPU]


def check_precision(precision: str | None, devices: Sequence[torch.device]) -> str:
    """The precision of the networks on these devices: tf32 on GPUs, float32 on the CPU by default.

    It is a UserError if they cannot have the one that is asked for.
    """
    if devices[0].type == "cpu":
        if precision not in {None, "float32"}:
            raise UserError(f"--precision {precision} is for GPUs: the CPU computes in float32")
        return "float32"
    if precision == "bf16":
        for device in devices:
            if torch.cuda.get_device_capability(device) < BF16_CAPABILITY:
                name = torch.cuda.get_device_name(device)
                raise UserError(f"--precision bf16 needs a GPU from Ampere on, {name} is older")
    return precision or "tf32"


@contextmanager
def triton_prepared(gpus: str) -> Iterator[None]:
    """With GPUs a thread does meanwhile what otherwise delays Triton's first kernel by 0.45 s: a hash, an import."""
    with ThreadPoolExecutor(1) as pool:
        if gpus:
            with suppress(ImportError):  # there is no Triton, or one that keeps the hash elsewhere
                from triton.runtime.cache import triton_key  # noqa: PLC0415 - not for the CPU

                pool.submit(triton_key)
            pool.submit(import_module, "triton.experimental.gluon")  # which older ones lack
        yield


@contextmanager
def enough_memory(what: str, advice: str) -> Iterator[None]:
    """Turn a lack of memory, of a device or the host, into one sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        raise OutOfMemory(f"PyTorch cannot {what}: the memory does not suffice; {advice}") from error


class Streams:
    """Three streams of a GPU: what computes, and copies in both directions meanwhile."""

    def __init__(self, device: torch.device):
        self.device = device
        self.computing, self._uploads, self._downloads = (torch.cuda.Stream(device) for _ in range(3))
        torch.cuda.synchronize(device)  # what other streams wrote before, such as the parameters, comes first

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Compute on these streams."""
        with torch.cuda.device(self.device), torch.cuda.stream(self.computing):
            yield

    def upload(self, arrays: Sequence) -> list[torch.Tensor]:
        """Bring arrays to the GPU without waiting; they may be overwritten at once.

        They go through page-locked memory, from which the GPU reads by itself. Tensors that are on
        the GPU already, made on the current stream, are copied there.
        """
        current = torch.cuda.current_stream(self.device)
        self._uploads.wait_stream(current)
        sent = []
        with torch.cuda.device(self.device), torch.cuda.stream(self._uploads):
            for array in arrays:
                if isinstance(array, torch.Tensor):
                    sent.append(array.clone())
                else:
                    host = torch.empty(array.shape, dtype=TYPES[array.dtype], pin_memory=True)
                    host.numpy()[...] = array
                    sent.append(host.to(self.device, non_blocking=True))
        if any(isinstance(array, torch.Tensor) for array in arrays):
            current.wait_stream(self._uploads)
        self.computing.wait_stream(self._uploads)
        for tensor in sent:
            tensor.record_stream(self.computing)  # its memory is not given away before it is read
        return sent

    def download(self, tensors: Iterable[torch.Tensor]) -> "Download":
        """Send tensors that `computing` makes to the host, without waiting."""
        self._downloads.wait_stream(self.computing)
        hosts = []
        with torch.cuda.device(self.device), torch.cuda.stream(self._downloads):
            for tensor in tensors:
                host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                hosts.append(host.copy_(tensor, non_blocking=True))
                tensor.record_stream(self._downloads)
            done = torch.cuda.Event()
            done.record(self._downloads)
        return Download(hosts, done)

    def capture(self, function: Callable[[], Any], pool=None) -> tuple[torch.cuda.CUDAGraph, Any]:
        """A function as a CUDA graph, and what it returns, which each replay overwrites."""
        graph = torch.cuda.CUDAGraph()
        # Thread by thread, because NCCL's own thread asks the device for its state meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=self.computing, capture_error_mode="thread_local"):
            outputs = function()
        return graph, outputs


class Download:
    """Tensors on their way to page-locked memory of the host."""

    def __init__(self, hosts: list[torch.Tensor], done: torch.cuda.Event):
        self._hosts, self._done = hosts, done

    def arrays(self) -> list[np.ndarray]:
        """Wait for the arrays."""
        self._done.synchronize()
        return [host.numpy() for host in self._hosts]

    def wait_unless(self, lost: Callable[[], bool], patience: float) -> bool:
        """Wait, but at most `patience` s from when `lost()` became true; whether all is there."""
        since = None
        while not self._done.query():
            if since is None and lost():
                since = time.monotonic()
            if since is not None and time.monotonic() - since > patience:
                return False
            time.sleep(POLL)
        return True
