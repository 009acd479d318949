"""The networks' cost volume on GPUs, by Triton.

The correlation of two feature maps is made of small matrix products. A block of BX pixels of a row times the BX + 2r
pixels of another row that it can reach is one product on tensor cores, whose band ``0 <= j - i <= 2r`` is the cost
volume for one dy. Backward, the band of the gradient is gathered into such a matrix and multiplied by the other
feature map.
"""

import torch
import triton
import triton.language as tl
from maskflownet.engine.torch.kernels.layout import ceil_div, channels_last, empty_channels_last, layout_of, power_of_2
from torch import Tensor
from torch.autograd.function import once_differentiable

BX = 16  # pixels of a row whose products with their neighbours are one matrix
ENOUGH_PROGRAMS = 1024  # of the gradient; with fewer each takes fewer channels


@triton.jit(do_not_specialize=["a_row", "a_image", "b_row", "b_image", "o_row", "o_image", "H", "W"])
def _forward(
    a_ptr, b_ptr, out_ptr,
    a_row, a_image, b_row, b_image, o_row, o_image, H, W,
    A: tl.constexpr, B: tl.constexpr, OUT: tl.constexpr,
    C: tl.constexpr, R: tl.constexpr, SLOPE: tl.constexpr, LEAKY: tl.constexpr,
    BX: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr, DYS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BX pixels of a row, DYS of the values of dy."""
    SIDE: tl.constexpr = 2 * R + 1
    x = tl.program_id(0) * BX + tl.arange(0, BX)
    y = tl.program_id(1) % H
    first = tl.program_id(1) // H * DYS
    n = tl.program_id(2).to(tl.int64)
    xb = tl.program_id(0) * BX - R + tl.arange(0, BJ)
    c = tl.arange(0, BK)
    dx = tl.arange(0, BJ)[None, :] - tl.arange(0, BX)[:, None]
    band = (dx >= 0) & (dx < SIDE) & (x < W)[:, None]
    a_rows = a_ptr + (n * a_image + y * a_row + x)[:, None] * A
    out_rows = out_ptr + (n * o_image + y * o_row + x)[:, None] * OUT
    for dy in range(first, min(first + DYS, SIDE)):
        yb = y + dy - R
        width = ((yb >= 0) & (yb < H)).to(tl.int32) * W  # of the row of b
        b_rows = b_ptr + (n * b_image + yb * b_row + xb)[:, None] * B
        b_inside = ((xb >= 0) & (xb < width))[:, None]
        acc = tl.zeros((BX, BJ), tl.float32)
        for k in tl.static_range(0, C, BK):
            known = (k + c < C)[None, :]
            a = tl.load(a_rows + (k + c)[None, :], mask=(x < W)[:, None] & known, other=0.0)
            b = tl.load(b_rows + (k + c)[None, :], mask=b_inside & known, other=0.0)
            acc = tl.dot(a, tl.trans(b), acc, input_precision=PRECISION)
        acc = acc * (1.0 / C)
        if LEAKY:
            acc = tl.where(acc > 0, acc, acc * SLOPE)
        tl.store(out_rows + dy * SIDE + dx, acc.to(out_ptr.dtype.element_ty), mask=band)


@triton.jit(do_not_specialize=["g_row", "g_image", "o_row", "o_image", "b_row", "b_image", "H", "W"])
def _backward(
    grad_ptr, out_ptr, b_ptr, da_ptr,
    g_row, g_image, o_row, o_image, b_row, b_image, H, W,
    G: tl.constexpr, OUT: tl.constexpr, B: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
    SLOPE: tl.constexpr, LEAKY: tl.constexpr, MIRROR: tl.constexpr,
    BX: tl.constexpr, BJ: tl.constexpr, BC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BX pixels of a row of the gradient, BC channels, from the other map `b`.

    The gradient of the first map at x is a sum over neighbours x + d of gradient[x, d]; with
    MIRROR that of the second map, a sum over neighbours x - d of gradient[x - d, d].
    """
    SIDE: tl.constexpr = 2 * R + 1
    x = tl.program_id(0) * BX + tl.arange(0, BX)
    y = tl.program_id(1)
    BLOCKS: tl.constexpr = (C + BC - 1) // BC
    n = (tl.program_id(2) // BLOCKS).to(tl.int64)
    c = tl.program_id(2) % BLOCKS * BC + tl.arange(0, BC)
    xb = tl.program_id(0) * BX - R + tl.arange(0, BJ)
    dx = tl.arange(0, BJ)[None, :] - tl.arange(0, BX)[:, None]  # 0 .. 2r inside the band
    band = (x < W)[:, None] & (dx >= 0) & (dx < SIDE)
    acc = tl.zeros((BX, BC), tl.float32)
    for dy in range(SIDE):
        yb = y + dy - R
        width = ((yb >= 0) & (yb < H)).to(tl.int32) * W  # of the row of b
        b_inside = (xb >= 0) & (xb < width)
        inside = band & b_inside[None, :]
        if MIRROR:
            g_pixel = n * g_image + yb * g_row + xb[None, :]
            o_pixel = n * o_image + yb * o_row + xb[None, :]
            channel = (2 * R - dy) * SIDE + (2 * R - dx)
        else:
            g_pixel = n * g_image + y * g_row + x[:, None]
            o_pixel = n * o_image + y * o_row + x[:, None]
            channel = dy * SIDE + dx
        g = tl.load(grad_ptr + g_pixel * G + channel, mask=inside, other=0.0)
        g = g.to(tl.float32)
        if LEAKY:
            o = tl.load(out_ptr + o_pixel * OUT + channel, mask=inside, other=0.0)
            g = tl.where(o.to(tl.float32) > 0, g, g * SLOPE)
        b_rows = b_ptr + (n * b_image + yb * b_row + xb)[:, None] * B
        b = tl.load(b_rows + c[None, :], mask=b_inside[:, None] & (c < C)[None, :], other=0.0)
        acc = tl.dot(g.to(b.dtype), b, acc, input_precision=PRECISION)
    da_rows = da_ptr + ((n * H + y) * W + x)[:, None] * C
    value = (acc * (1.0 / C)).to(da_ptr.dtype.element_ty)
    tl.store(da_rows + c[None, :], value, mask=(x < W)[:, None] & (c < C)[None, :])


def _correlate(a: Tensor, b: Tensor, radius: int, slope: float | None, precision: str) -> Tensor:
    """`correlation` without gradients; `a` and `b` as `channels_last` gives them."""
    n, channels, h, w = a.shape
    side = 2 * radius + 1
    out = empty_channels_last(n, side * side, h, w, a)
    la, lb, lo = layout_of(a), layout_of(b), layout_of(out)
    blocks = ceil_div(w, BX)
    # Where pixels are few, fewer values of dy are one program's; by timings on an H200 (2026-11-30).
    places, bk = n * h * blocks, min(64, power_of_2(channels))
    dys = side if places >= 800 else 3 if places >= 100 else 1
    _forward[(blocks, h * ceil_div(side, dys), n)](
        a, b, out, la.row, la.image, lb.row, lb.image, lo.row, lo.image, h, w,
        A=la.pixel, B=lb.pixel, OUT=lo.pixel, C=channels, R=radius,
        SLOPE=slope or 0.0, LEAKY=slope is not None,
        BX=BX, BJ=power_of_2(BX + 2 * radius), BK=bk, DYS=dys, PRECISION=precision,
        num_warps=1 if bk <= 32 or places >= 400 else 2,
    )  # fmt: skip
    return out


def _gradient(grad: Tensor, out, other: Tensor, radius: int, slope, mirror: bool, precision: str):
    """Gradient of the first map from the second, or with `mirror` of the second from the first."""
    n, channels, h, w = other.shape
    result = empty_channels_last(n, channels, h, w, other)
    out = grad if out is None else out
    lg, lo, lb = layout_of(grad), layout_of(out), layout_of(other)
    blocks = ceil_div(w, BX)
    bc = power_of_2(channels)
    while bc > 32 and (bc > 64 or n * h * blocks * ceil_div(channels, bc) < ENOUGH_PROGRAMS):
        bc //= 2
    _backward[(blocks, h, n * ceil_div(channels, bc))](
        grad, out, other, result, lg.row, lg.image, lo.row, lo.image, lb.row, lb.image, h, w,
        G=lg.pixel, OUT=lo.pixel, B=lb.pixel, C=channels, R=radius,
        SLOPE=slope or 0.0, LEAKY=slope is not None, MIRROR=mirror,
        BX=BX, BJ=power_of_2(BX + 2 * radius), BC=bc, PRECISION=precision,
        num_warps=1 if bc <= 32 else 2,
    )  # fmt: skip
    return result


class _Correlation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, radius, slope, precision):
        out = _correlate(a, b, radius, slope, precision)
        ctx.save_for_backward(a, b, out if slope is not None else None)
        ctx.settings = radius, slope, precision
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        a, b, out = ctx.saved_tensors
        radius, slope, precision = ctx.settings
        grad = channels_last(grad)
        da = db = None
        if ctx.needs_input_grad[0]:
            da = _gradient(grad, out, b, radius, slope, False, precision)
        if ctx.needs_input_grad[1]:
            db = _gradient(grad, out, a, radius, slope, True, precision)
        return da, db, None, None, None


def correlation(a: Tensor, b: Tensor, radius: int, slope: float | None, precision: str) -> Tensor:
    """Cost volume of two feature maps (N, C, H, W) -> (N, (2r + 1)^2, H, W) of their type, channels-last.

    ``out[(dy + r)(2r + 1) + dx + r, y, x] = mean_c a[c, y, x] b[c, y + dy, x + dx]``, where `b` is
    zero outside, and the LeakyReLU of a `slope` >= 0 at the end. Differentiable in `a` and `b`, once.
    Maps are best in channels-last memory, slices of wider ones too. `precision` ("tf32" or "ieee") is
    that of float32 products.
    """
    a, b = channels_last(a), channels_last(b)
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _Correlation.apply(a, b, radius, slope, precision)
    return _correlate(a, b, radius, slope, precision)
