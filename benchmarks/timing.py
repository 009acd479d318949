"""What the benchmarks share: time on a device, and what a network computes."""

import platform
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.devices import Streams, devices
from maskflownet.engine.torch.module import GraphModule, computing
from maskflownet.engine.torch.operators import OPERATORS
from maskflownet.errors import UserError
from torch.utils.flop_counter import FlopCounterMode

WARM_UP = 3  # calls before a capture
SIDE = 64  # px, the smallest image; the arithmetic is proportional to the number of pixels


def the_device(gpus: str) -> torch.device:
    """The one device of `-g`, made the current one."""
    device, *others = devices(gpus)
    if others:
        raise UserError(f"-g {gpus} is not one GPU")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def describe(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{name}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads"


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Time of one call on the device."""
    if device.type == "cpu":
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def alternate(calls: dict[str, Callable], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of each call but its first; in turn, so that none always runs on the warmer machine."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name in sorted(calls, reverse=bool(turn % 2)):
            times[name].append(seconds(calls[name], device))
    return {name: median(taken[1:]) for name, taken in times.items()}


def matrix_product(device: torch.device, precision: str) -> tuple[Callable, float]:
    """A large matrix product, NumPy's on the CPU, and its floating point operations."""
    if device.type == "cpu":
        a, b = (np.random.rand(2048, 2048).astype(np.float32) for _ in range(2))
    else:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.randn(8192, 8192, dtype=dtype, device=device) for _ in range(2))

    def call():
        with computing(precision):
            return a @ b

    return call, 2 * len(a) ** 3


def rate(operations: float, taken: float, product: float) -> str:
    """Time, and speed beside that of the matrix product (operations/s)."""
    speed = operations / taken
    return f"{1e3 * taken:.2f} ms, {1e-12 * speed:.3g} TFLOP/s = {100 * speed / product:.0f} % of the matrix product's"


def captured(call: Callable, device: torch.device) -> Callable:
    """The call, on a GPU as a CUDA graph."""
    if device.type == "cpu":
        return call
    streams = Streams(device)
    with streams():
        for _ in range(WARM_UP):
            call()
        graph, _ = streams.capture(call)
    torch.cuda.synchronize()
    return graph.replay


def forget_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> str:
    """Of the current GPU since it was last forgotten; empty on the CPU."""
    return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if torch.cuda.is_available() else ""


def multiply_accumulates(network: str, height: int, width: int) -> float:
    """Multiply-accumulates of one pair; a deformable convolution's are its products with the weights."""
    matches = 0

    def correlation(inputs, attrs):  # it computes more products than it has matches
        nonlocal matches
        result = inputs[0].new_zeros((1, (2 * attrs["max_displacement"] + 1) ** 2, *inputs[0].shape[2:]))
        matches += result.numel() * inputs[0].shape[1]
        return result

    module = GraphModule(graph_of("network", network=network), {**OPERATORS, "Correlation": correlation})
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*(torch.rand(1, 3, SIDE, SIDE) for _ in range(2)))
    return (counter.get_total_flops() / 2 + matches) * height * width / SIDE**2
