"""What the benchmarks share: time on a device, and what a network computes."""

import math
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


def multiply_accumulates(network: str, height: int, width: int) -> dict[str, float]:
    """Multiply-accumulates of one pair by operator kind; operators without products are left out.

    A deformable convolution counts its products with the weights, not its sampling.
    """
    counts: dict[str, float] = {}

    def counting(kind: str, products):
        def call(inputs, attrs):
            result = OPERATORS[kind](inputs, attrs)
            counts[kind] = counts.get(kind, 0) + products(inputs, result)
            return result

        return call

    def of_output(inputs, result):  # each output value: one product for each weight that it takes
        weight = next(x for x in inputs[1:] if x.dim() == 4 and x.shape[0] == result.shape[1])
        return result.numel() * math.prod(weight.shape[1:])

    kinds = {
        "Convolution": of_output,
        "Deconvolution": lambda inputs, result: inputs[0].numel() * math.prod(inputs[1].shape[1:]),
        "Correlation": lambda inputs, result: result.numel() * inputs[0].shape[1],
        "_contrib_DeformableConvolution": lambda inputs, result: of_output([inputs[0], inputs[2]], result),
    }
    graph = graph_of("network", network=network, flow_multiplier=1.0, pyramid="paper")
    module = GraphModule(graph, {**OPERATORS, **{k: counting(k, p) for k, p in kinds.items()}})
    counts.clear()  # of what was folded
    with torch.no_grad():
        module(*(torch.rand(1, 3, SIDE, SIDE) for _ in range(2)))
    return {kind: count * height * width / SIDE**2 for kind, count in counts.items()}
