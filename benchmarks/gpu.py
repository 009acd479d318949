"""What the benchmarks on GPUs share: captured graphs, their time and memory, the matrix peak, a peer's script.

python benchmarks/gpu.py SCRIPT [ARGUMENTS] runs a peer's timing script, with the peak of GPU memory beside each line
that it prints.
"""

import builtins
import runpy
import subprocess
import sys
from collections.abc import Callable
from statistics import median

import torch

WARM_UP = 3


def capture(function: Callable) -> torch.cuda.CUDAGraph:
    """A CUDA graph of a function that has run a few times before."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph


def milliseconds(function: Callable, repeats: int) -> float:
    """Median time on the device of one call."""
    times = []
    function()
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return median(times)


def matrix_peak(dtype: torch.dtype, size: int = 8192) -> float:
    """TFLOP/s of a large matrix product; float32 as TF32."""
    a, b = (torch.randn(size, size, dtype=dtype, device="cuda") for _ in range(2))
    allowed, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    try:
        return 2e-9 * size**3 / milliseconds(lambda: a @ b, 5)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def forget_memory() -> None:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def peak_memory() -> str:
    return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"


def run_peer(script: str, packages: str) -> None:
    """Run the script that times the peer, in a process of its own, on the same GPU."""
    subprocess.run([sys.executable, __file__, script, packages], check=True)


def print_with_memory(*values, **options) -> None:
    builtins.print(*values, peak_memory(), **options)
    forget_memory()


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], {"print": print_with_memory}, "__main__")
