"""Time the GPU kernels of Correlation and the deformable convolution.

``python -m maskflownet.benchmarks.operators``: the shapes of the networks in inference at 448x1024, one pair,
and in training at 320x448, eight pairs. Every measurement replays a CUDA graph, so that launches
from Python do not count; the second level cache stays warm, as inside a network.
"""

import argparse

import torch
from maskflownet.engine.torch.kernels.correlation import correlation
from maskflownet.engine.torch.kernels.deformable import deformable, pack_weight
from maskflownet.network.architecture import LEVELS, PYRAMID_CHANNELS, SLOPE
from triton.testing import do_bench_cudagraph

SIZES = ((1, 448, 1024), (8, 320, 448))
CHANNELS = {level: PYRAMID_CHANNELS[level] for level in sorted(LEVELS)}
PRECISION = "tf32"


def milliseconds(run) -> float:
    return do_bench_cudagraph(run, rep=50, return_mode="median")


def feature_map(n: int, channels: int, height: int, width: int, dtype) -> torch.Tensor:
    x = torch.randn(n, channels, height, width, device="cuda", dtype=dtype)
    return x.to(memory_format=torch.channels_last)


def operators(n: int, channels: int, height: int, width: int, dtype):
    """(name, forward, inputs with gradients) of each operator at one shape."""
    features = [feature_map(n, channels, height, width, dtype) for _ in range(3)]
    weight = torch.randn(channels, channels, 3, 3, device="cuda") / (3 * channels**0.5)
    bias = torch.randn(channels, device="cuda")
    # A smooth flow of some pixels: neighbouring samples are neighbours in memory, too.
    offset = torch.randn(n, 2, 4, 4, device="cuda") * 4
    offset = torch.nn.functional.interpolate(offset, (height, width), mode="bilinear")
    mask = torch.rand(n, 1, height, width, device="cuda")
    for v in (*features, weight, bias, offset, mask):
        v.requires_grad_()
    a, b, residual = features
    packed = pack_weight(weight.detach(), dtype)

    def deform():
        kernel = weight if torch.is_grad_enabled() else packed
        return deformable(a, offset, kernel, bias, mask, residual, SLOPE, PRECISION)

    def deform_only():  # as in the full network: the features of the frozen head
        kernel = weight if torch.is_grad_enabled() else packed
        return deformable(a.detach(), offset, kernel, bias, None, None, SLOPE, PRECISION)

    yield "correlation, radius 4", lambda: correlation(a, b, 4, SLOPE, PRECISION), (a, b)
    yield "correlation, radius 2", lambda: correlation(a, b, 2, SLOPE, PRECISION), (a, b)
    yield "deformable, mask", deform, (a, offset, weight, bias, mask, residual)
    yield "deformable, frozen features", deform_only, (offset, weight, bias)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--levels", nargs="+", type=int, default=list(CHANNELS))
    args = parser.parse_args(argv)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; microseconds")
    row = "{:>12} {:>9} {:>5}  {:28} {:>9} {:>17}"
    print(row.format("pairs x size", "type", "level", "operator", "forward", "forward+backward"))
    for n, height, width in SIZES:
        for dtype in args.dtypes:
            for level in args.levels:
                shape = n, CHANNELS[level], height >> level, width >> level
                for name, forward, inputs in operators(*shape, getattr(torch, dtype)):
                    with torch.no_grad():
                        grad = torch.randn_like(forward())
                        fast = milliseconds(forward)

                    def both(forward=forward, inputs=inputs, grad=grad):
                        torch.autograd.grad(forward(), inputs, grad)

                    slow = milliseconds(both)
                    print(
                        row.format(
                            f"{n} x {height}x{width}", dtype, level, name, f"{1e3 * fast:.1f}", f"{1e3 * slow:.1f}"
                        ),  # fmt: skip
                        flush=True,
                    )


if __name__ == "__main__":
    main()
