"""Linear upsampling by a whole factor, aligned to the first sample, edge held: GPU kernels."""

import torch
import triton
import triton.language as tl
from maskflownet.engine.torch.kernels.layout import ceil_div
from torch import Tensor

BLOCK = 256


@triton.jit
def _upsample(
    x, y, count, channels, height, width, n_stride, c_stride, y_stride, x_stride,
    FACTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = at < count
    column = at % (width * FACTOR)
    row = (at // (width * FACTOR)) % (height * FACTOR)
    channel = (at // (width * FACTOR * height * FACTOR)) % channels
    image = at // (width * FACTOR * height * FACTOR * channels)
    top, left = row // FACTOR, column // FACTOR
    down = tl.minimum(top + 1, height - 1)
    right = tl.minimum(left + 1, width - 1)
    fy = (row - top * FACTOR).to(tl.float32) / FACTOR
    fx = (column - left * FACTOR).to(tl.float32) / FACTOR
    base = x + image * n_stride + channel * c_stride
    a = tl.load(base + top * y_stride + left * x_stride, mask=known, other=0.0)
    b = tl.load(base + top * y_stride + right * x_stride, mask=known, other=0.0)
    c = tl.load(base + down * y_stride + left * x_stride, mask=known, other=0.0)
    d = tl.load(base + down * y_stride + right * x_stride, mask=known, other=0.0)
    upper = a * (1 - fx) + b * fx
    lower = c * (1 - fx) + d * fx
    tl.store(y + at, upper * (1 - fy) + lower * fy, mask=known)


@triton.jit
def _collect(g, x, count, length, inner, FACTOR: tl.constexpr, BLOCK: tl.constexpr):
    """Along one axis: (outer, FACTOR length, inner) -> (outer, length, inner), transposed."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = at < count
    rest = at % inner
    i = (at // inner) % length
    outer = at // (inner * length)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for d in range(1 - FACTOR, FACTOR):
        o = i * FACTOR + d
        value = tl.load(g + (outer * length * FACTOR + o) * inner + rest,
                        mask=known & (o >= 0), other=0.0)  # fmt: skip
        share = 1 - tl.abs(d).to(tl.float32) / FACTOR
        held = (i == length - 1) & (d >= 0)
        total += value * tl.where(held, 1.0, share)
    tl.store(x + at, total, mask=known)


class Upsample(torch.autograd.Function):
    """``out[o] = lerp(x[o // f], x[min(o // f + 1, n - 1)], (o mod f) / f)`` along both axes.

    (N, C, H, W) of any strides -> (N, C, f H, f W), float32.
    """

    @staticmethod
    def forward(ctx, x: Tensor, factor: int):
        n, c, h, w = x.shape
        ctx.factor, ctx.shape = factor, x.shape
        y = torch.empty((n, c, h * factor, w * factor), dtype=torch.float32, device=x.device)
        _upsample[(ceil_div(y.numel(), BLOCK),)](x, y, y.numel(), c, h, w, *x.stride(), FACTOR=factor, BLOCK=BLOCK)
        return y

    @staticmethod
    def backward(ctx, gradient):
        n, c, h, w = ctx.shape
        factor = ctx.factor
        gradient = gradient.float().contiguous()
        rows = torch.empty((n, c, h * factor, w), dtype=torch.float32, device=gradient.device)
        x = torch.empty((n, c, h, w), dtype=torch.float32, device=gradient.device)
        for source, target, length, inner in ((gradient, rows, w, 1), (rows, x, h, w)):
            count = target.numel()
            _collect[(ceil_div(count, BLOCK),)](source, target, count, length, inner, FACTOR=factor, BLOCK=BLOCK)
        return x, None


def upsample(x: Tensor, factor: int) -> Tensor:
    return Upsample.apply(x, factor)
