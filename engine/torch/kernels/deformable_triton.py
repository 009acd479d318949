"""Deformable convolution on GPUs: the forward kernel and the autograd function.

For each of the nine taps a program gathers the four corners of the samples of its pixels, whose
channels are contiguous, combines them and multiplies by the tap's matrix on tensor cores. Since a
sample's place is computed per tap, MXNet's border rule holds exactly.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from maskflownet.engine.torch.kernels.bilinear_triton import corners, place, sample
from maskflownet.engine.torch.kernels.deformable import pack_weight
from maskflownet.engine.torch.kernels.layout import (
    ceil_div,
    channels_last,
    empty_channels_last,
    layout_of,
    layout_to_write,
    power_of_2,
)
from torch import Tensor
from torch.autograd.function import once_differentiable

ENOUGH_PROGRAMS = 264  # two for each multiprocessor of a large GPU


@triton.jit(
    do_not_specialize=[
        "x_row", "x_image", "offset_n", "offset_c", "offset_y", "offset_x",
        "mask_n", "mask_y", "mask_x", "r_row", "r_image", "out_row", "out_image", "P", "H", "W",
    ]
)  # fmt: skip
def _forward(
    x_ptr, offset_ptr, weight_ptr, bias_ptr, mask_ptr, residual_ptr, out_ptr,
    x_row, x_image, offset_n, offset_c, offset_y, offset_x, mask_n, mask_y, mask_x,
    r_row, r_image, out_row, out_image, P, H, W,
    X: tl.constexpr, RESIDUAL: tl.constexpr, OUT: tl.constexpr,
    C: tl.constexpr, K: tl.constexpr, SLOPE: tl.constexpr,
    HAS_MASK: tl.constexpr, HAS_RESIDUAL: tl.constexpr, LEAKY: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BM pixels, BN output channels."""
    pixel = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = pixel < P
    n, y, x = place(pixel, H, W)
    at = offset_ptr + n * offset_n + y * offset_y + x * offset_x
    oy = tl.load(at, mask=inside, other=0.0)
    ox = tl.load(at + offset_c, mask=inside, other=0.0)
    out_c = tl.program_id(1) * BN + tl.arange(0, BN)
    BLOCKS: tl.constexpr = (C + BK - 1) // BK
    acc = tl.zeros((BM, BN), tl.float32)
    for step in range(9 * BLOCKS):
        k = step // BLOCKS
        c = step % BLOCKS * BK + tl.arange(0, BK)
        valid, fy, fx, i00, i01, i10, i11 = corners(k, n, y, x, oy, ox, inside, H, W, x_image, x_row)
        known = valid[:, None] & (c < C)[None, :]
        value = sample(x_ptr, i00, i01, i10, i11, fy, fx, c, known, X)
        weight = tl.load(
            weight_ptr + (k * C + c)[:, None] * K + out_c[None, :],
            mask=(c < C)[:, None] & (out_c < K)[None, :],
            other=0.0,
        )
        acc = tl.dot(value, weight, acc, input_precision=PRECISION)
    bias = tl.load(bias_ptr + out_c, mask=out_c < K, other=0.0)
    acc += bias.to(tl.float32)[None, :]
    written = inside[:, None] & (out_c < K)[None, :]
    if HAS_MASK:
        mask = tl.load(mask_ptr + n * mask_n + y * mask_y + x * mask_x, mask=inside, other=0.0)
        acc = acc * mask[:, None]
    if HAS_RESIDUAL:
        rows = residual_ptr + (n * r_image + y * r_row + x)[:, None] * RESIDUAL
        acc += tl.load(rows + out_c[None, :], mask=written, other=0.0).to(tl.float32)
    if LEAKY:
        acc = tl.where(acc > 0, acc, acc * SLOPE)
    rows = out_ptr + (n * out_image + y * out_row + x)[:, None] * OUT
    tl.store(rows + out_c[None, :], acc.to(out_ptr.dtype.element_ty), mask=written)


def mask_strides(mask: Tensor | None):
    return (0, 0, 0) if mask is None else (mask.stride(0), mask.stride(2), mask.stride(3))


def _tile(pixels: int, channels: int) -> tuple[int, int]:
    """Pixels and output channels of a program: large, but so that there are enough programs."""
    wide = min(128, power_of_2(channels))
    for bm, bn in ((64, wide), (32, wide), (32, 64), (16, 64), (16, 32)):
        if ceil_div(pixels, bm) * ceil_div(channels, bn) >= ENOUGH_PROGRAMS:
            break
    return bm, min(bn, wide)


def forward(x, offset, weight, bias, mask, residual, slope, out, precision) -> Tensor:
    """`deformable` without gradients: `weight` packed, `x` and `residual` channels-last."""
    n, c, h, w = x.shape
    channels = weight.shape[2]
    if out is None:
        out = empty_channels_last(n, channels, h, w, x)
    lx, lo = layout_of(x), layout_to_write(out)
    lr = lo if residual is None else layout_of(residual)
    bm, bn = _tile(n * h * w, channels)
    _forward[(ceil_div(n * h * w, bm), ceil_div(channels, bn))](
        x, offset, weight, bias, offset if mask is None else mask,
        x if residual is None else residual, out,
        lx.row, lx.image, *offset.stride(), *mask_strides(mask),
        lr.row, lr.image, lo.row, lo.image, n * h * w, h, w,
        X=lx.pixel, RESIDUAL=lr.pixel, OUT=lo.pixel, C=c, K=channels, SLOPE=slope or 0.0,
        HAS_MASK=mask is not None, HAS_RESIDUAL=residual is not None, LEAKY=slope is not None,
        BM=bm, BN=bn, BK=min(2048 // bm, power_of_2(c)), PRECISION=precision,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    return out


class _Deformable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, offset, weight, bias, mask, residual, slope, precision):
        packed = pack_weight(weight, x.dtype)
        out = forward(x, offset, packed, bias, mask, residual, slope, None, precision)
        saved = out if slope is not None else None
        ctx.save_for_backward(x, offset, packed, bias, mask, saved)
        ctx.settings = slope, precision, weight.dtype
        ctx.has_residual = residual is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        from engine.kernels import deformable_gradients_triton as gradients  # noqa: PLC0415 - cycle

        x, offset, packed, bias, mask, out = ctx.saved_tensors
        slope, precision, dtype = ctx.settings
        wants = ctx.needs_input_grad
        if slope is not None:
            # The sign of the output is that of the LeakyReLU's input.
            grad = torch.ops.aten.leaky_relu_backward(grad, out, slope, True)
        grad = channels_last(grad)
        dx = d_offset = d_mask = d_weight = d_bias = None
        if wants[0] or wants[1] or wants[4]:
            dx, d_offset, d_mask = gradients.of_inputs(
                grad, x, offset, packed, bias, mask, (wants[0], wants[1], wants[4]), precision
            )
        if wants[2] or wants[3]:
            d_weight, d_bias = gradients.of_parameters(grad, x, offset, mask, precision)
            d_weight = d_weight.unflatten(0, (3, 3)).permute(3, 2, 0, 1).to(dtype)
            d_bias = d_bias.to(bias.dtype)
        d_residual = grad if ctx.has_residual and wants[5] else None
        return dx, d_offset, d_weight, d_bias, d_mask, d_residual, None, None


def deform(x, offset, weight, bias, mask, residual, slope, out, precision) -> Tensor:
    """`maskflownet.engine.torch.kernels.deformable.deformable` by the kernels."""
    x = channels_last(x)
    offset = offset.float()
    mask = None if mask is None else mask.float()
    residual = None if residual is None else channels_last(residual)
    tensors = (x, offset, weight, bias, mask, residual)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        if out is not None or weight.dim() == 3:
            raise ValueError("gradients need weights (K, C, 3, 3) and no tensor to write to")
        return _Deformable.apply(*tensors, slope, precision)
    packed = weight if weight.dim() == 3 else pack_weight(weight, x.dtype)
    return forward(x, offset, packed, bias, mask, residual, slope, out, precision)
