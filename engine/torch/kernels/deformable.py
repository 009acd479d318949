"""Deformable 3x3 convolution whose nine taps share one offset, at MXNet's border rule, on GPUs: Triton kernels.

Forward, a program gathers for each tap the four corners of the samples of its pixels, whose channels
are contiguous, combines them and multiplies by the tap's matrix on tensor cores. Since a sample's place
is computed per tap, MXNet's border rule holds exactly.

Backward, with U_k = g W_k^T, the gradient `g` carried back through tap k, and S_k the tap's samples:
the features get the shares of mask U_k at the four corners (atomic additions in float32), the
offset sum_k <mask U_k, dS_k / d offset>, the mask sum_k <U_k, S_k> + <g, bias>, the weight
S_k^T (mask g). A held edge has equal corners, so that its derivative is zero without a case of its
own, as in MXNet.
"""

import torch
import triton
import triton.language as tl
from maskflownet.engine.torch.kernels.layout import ceil_div, channels_last, empty_channels_last, layout_of, power_of_2
from torch import Tensor
from torch.autograd.function import once_differentiable

ENOUGH_PROGRAMS = 264  # two for each multiprocessor of a large GPU


def deformable(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    residual: Tensor | None,
    slope: float | None,
    precision: str,
) -> Tensor:
    """``leaky(conv(x) * mask + residual)`` with a deformable 3x3 convolution of padding 1.

    Tap (ky, kx) of output (y, x) samples `x` at (y - 1 + ky + oy, x - 1 + kx + ox), bilinearly. A
    sample with a coordinate < 0 or >= size is zero; beyond size - 1 the edge value is held, as in
    MXNet. Differentiable in all tensors, once.

    Features x (N, C, H, W), best in channels-last memory (slices of wider maps too); offset (N, 2, H, W), feature
    pixels, (y, x); weight (K, C, 3, 3), or (9, C, K) of `pack_weight`, which saves a copy and has no gradient; bias
    (K,); mask (N, 1, H, W), the factor of the convolution after its bias; residual (N, K, H, W), the summand, of the
    type of `x`; slope of the LeakyReLU at the end, greater than 0; precision of float32 products, "tf32" or "ieee".
    Mask, residual and slope may be None. Returns (N, K, H, W), type of `x`, in channels-last memory.
    """
    x = channels_last(x)
    offset = offset.float()
    mask = None if mask is None else mask.float()
    residual = None if residual is None else channels_last(residual)
    tensors = (x, offset, weight, bias, mask, residual)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _Deformable.apply(*tensors, slope, precision)
    packed = weight if weight.dim() == 3 else pack_weight(weight, x.dtype)
    return _deform(x, offset, packed, bias, mask, residual, slope, precision)


def pack_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(K, C, 3, 3) -> (9, C, K), contiguous: the layout in which the kernels read weights."""
    return weight.permute(2, 3, 1, 0).flatten(0, 1).to(dtype).contiguous()


@triton.jit
def _place(pixel, H, W):
    """(n, y, x) of pixels counted through the batch; n in 64 bits, for addresses."""
    y = pixel // W
    return (y // H).to(tl.int64), y % H, pixel % W


@triton.jit
def _corners(k, n, y, x, oy, ox, inside, H, W, image, row):
    """Where tap `k` of pixels (n, y, x) samples: validity, fractions, corners as pixel indices."""
    py = (y - 1 + k // 3).to(tl.float32) + oy
    px = (x - 1 + k % 3).to(tl.float32) + ox
    valid = inside & (py >= 0) & (py < H) & (px >= 0) & (px < W)
    # Beyond the last pixel the edge is held; where the sample is outside, any pixel will do.
    py = tl.minimum(tl.maximum(py, 0.0), (H - 1).to(tl.float32))
    px = tl.minimum(tl.maximum(px, 0.0), (W - 1).to(tl.float32))
    top = py.to(tl.int32)
    left = px.to(tl.int32)
    fy = py - top.to(tl.float32)
    fx = px - left.to(tl.float32)
    # No tl.where: Triton 3.6 fails to compile it here.
    down = (top + 1 < H).to(tl.int32) * row
    right = (left + 1 < W).to(tl.int32)
    first = n * image + top * row + left
    return valid, fy, fx, first, first + right, first + down, first + down + right


@triton.jit
def _gather(x_ptr, i00, i01, i10, i11, c, known, X: tl.constexpr):
    """Channels `c` of the four corners; X elements from pixel to pixel."""
    x00 = tl.load(x_ptr + i00[:, None] * X + c[None, :], mask=known, other=0.0).to(tl.float32)
    x01 = tl.load(x_ptr + i01[:, None] * X + c[None, :], mask=known, other=0.0).to(tl.float32)
    x10 = tl.load(x_ptr + i10[:, None] * X + c[None, :], mask=known, other=0.0).to(tl.float32)
    x11 = tl.load(x_ptr + i11[:, None] * X + c[None, :], mask=known, other=0.0).to(tl.float32)
    return x00, x01, x10, x11


@triton.jit
def _sample(x_ptr, i00, i01, i10, i11, fy, fx, c, known, X: tl.constexpr):
    """Bilinear samples of channels `c`, (pixels, channels)."""
    x00, x01, x10, x11 = _gather(x_ptr, i00, i01, i10, i11, c, known, X)
    value = x00 * ((1 - fy) * (1 - fx))[:, None] + x01 * ((1 - fy) * fx)[:, None]
    value += x10 * (fy * (1 - fx))[:, None] + x11 * (fy * fx)[:, None]
    return value.to(x_ptr.dtype.element_ty)


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
    n, y, x = _place(pixel, H, W)
    at = offset_ptr + n * offset_n + y * offset_y + x * offset_x
    oy = tl.load(at, mask=inside, other=0.0)
    ox = tl.load(at + offset_c, mask=inside, other=0.0)
    out_c = tl.program_id(1) * BN + tl.arange(0, BN)
    BLOCKS: tl.constexpr = (C + BK - 1) // BK
    acc = tl.zeros((BM, BN), tl.float32)
    for step in range(9 * BLOCKS):
        k = step // BLOCKS
        c = step % BLOCKS * BK + tl.arange(0, BK)
        valid, fy, fx, i00, i01, i10, i11 = _corners(k, n, y, x, oy, ox, inside, H, W, x_image, x_row)
        known = valid[:, None] & (c < C)[None, :]
        value = _sample(x_ptr, i00, i01, i10, i11, fy, fx, c, known, X)
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


def _mask_strides(mask: Tensor | None):
    return (0, 0, 0) if mask is None else (mask.stride(0), mask.stride(2), mask.stride(3))


def _tile(pixels: int, channels: int) -> tuple[int, int]:
    """Pixels and output channels of a program: large, but so that there are enough programs."""
    wide = min(128, power_of_2(channels))
    sizes = (64, wide, ENOUGH_PROGRAMS), (32, wide, ENOUGH_PROGRAMS), (16, wide, 100), (16, 32, 0)
    return next((bm, bn) for bm, bn, least in sizes if ceil_div(pixels, bm) * ceil_div(channels, bn) >= least)


def _deform(x, offset, weight, bias, mask, residual, slope, precision) -> Tensor:
    """`deformable` without gradients: `weight` packed, `x` and `residual` channels-last."""
    n, c, h, w = x.shape
    channels = weight.shape[2]
    out = empty_channels_last(n, channels, h, w, x)
    lx, lo = layout_of(x), layout_of(out)
    lr = lo if residual is None else layout_of(residual)
    bm, bn = _tile(n * h * w, channels)
    bk = min(2048 // bm, 8192 // bn, power_of_2(c))
    _forward[(ceil_div(n * h * w, bm), ceil_div(channels, bn))](
        x, offset, weight, bias, offset if mask is None else mask,
        x if residual is None else residual, out,
        lx.row, lx.image, *offset.stride(), *_mask_strides(mask),
        lr.row, lr.image, lo.row, lo.image, n * h * w, h, w,
        X=lx.pixel, RESIDUAL=lr.pixel, OUT=lo.pixel, C=c, K=channels, SLOPE=slope or 0.0,
        HAS_MASK=mask is not None, HAS_RESIDUAL=residual is not None, LEAKY=slope is not None,
        BM=bm, BN=bn, BK=bk, PRECISION=precision, num_warps=4,
        num_stages=3 if bm == 16 and x.dtype != torch.float32 else 2,
    )  # fmt: skip
    return out


STRIDES = [
    "x_row", "x_image", "g_row", "g_image", "offset_n", "offset_c", "offset_y", "offset_x",
    "mask_n", "mask_y", "mask_x", "P", "H", "W",
]  # fmt: skip


@triton.jit
def _add(dx_ptr, index, c, value, share, known, C: tl.constexpr):
    """Add `value` times `share` to pixels `index` of dense features, where there is a share."""
    where = known & (share != 0)[:, None]
    target = dx_ptr + index[:, None] * C + c[None, :]
    tl.atomic_add(target, value * share[:, None], mask=where, sem="relaxed")


@triton.jit(do_not_specialize=STRIDES)
def _inputs(
    grad_ptr, x_ptr, offset_ptr, weight_ptr, bias_ptr, mask_ptr, dx_ptr, partial_ptr,
    x_row, x_image, g_row, g_image, offset_n, offset_c, offset_y, offset_x,
    mask_n, mask_y, mask_x, P, H, W,
    X: tl.constexpr, G: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
    HAS_MASK: tl.constexpr, NEED_X: tl.constexpr, GATHER: tl.constexpr, TAPS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BM pixels, TAPS of the nine taps; all K output channels fit into BN."""
    pixel = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = pixel < P
    n, y, x = _place(pixel, H, W)
    at = offset_ptr + n * offset_n + y * offset_y + x * offset_x
    oy = tl.load(at, mask=inside, other=0.0)
    ox = tl.load(at + offset_c, mask=inside, other=0.0)
    out_c = tl.arange(0, BN)
    g_rows = grad_ptr + (n * g_image + y * g_row + x)[:, None] * G
    g = tl.load(g_rows + out_c[None, :], mask=inside[:, None] & (out_c < K)[None, :], other=0.0)
    mask = tl.full((BM,), 1.0, tl.float32)
    if HAS_MASK:
        mask = tl.load(mask_ptr + n * mask_n + y * mask_y + x * mask_x, mask=inside, other=0.0)
    d_oy = tl.zeros((BM,), tl.float32)
    d_ox = tl.zeros((BM,), tl.float32)
    d_mask = tl.zeros((BM,), tl.float32)
    BLOCKS: tl.constexpr = (C + BK - 1) // BK
    first = tl.program_id(1) * TAPS * BLOCKS
    for step in range(first, first + TAPS * BLOCKS):
        k = step // BLOCKS
        c = step % BLOCKS * BK + tl.arange(0, BK)
        weight = tl.load(
            weight_ptr + (k * C + c)[:, None] * K + out_c[None, :],
            mask=(c < C)[:, None] & (out_c < K)[None, :],
            other=0.0,
        )
        u = tl.dot(g, tl.trans(weight), input_precision=PRECISION)  # (BM, BK)
        valid, fy, fx, i00, i01, i10, i11 = _corners(k, n, y, x, oy, ox, inside, H, W, x_image, x_row)
        known = valid[:, None] & (c < C)[None, :]
        if GATHER:
            x00, x01, x10, x11 = _gather(x_ptr, i00, i01, i10, i11, c, known, X)
            # The inner products first, the interpolation after: four sums serve three gradients.
            s00 = tl.sum(u * x00, axis=1)
            s01 = tl.sum(u * x01, axis=1)
            s10 = tl.sum(u * x10, axis=1)
            s11 = tl.sum(u * x11, axis=1)
            d_oy += (s10 - s00) * (1 - fx) + (s11 - s01) * fx
            d_ox += (s01 - s00) * (1 - fy) + (s11 - s10) * fy
            d_mask += (s00 * (1 - fx) + s01 * fx) * (1 - fy) + (s10 * (1 - fx) + s11 * fx) * fy
        if NEED_X:
            # The gradient is dense: the index of the corners counts its own rows.
            _, _, _, j00, j01, j10, j11 = _corners(k, n, y, x, oy, ox, inside, H, W, H * W, W)
            u = u * mask[:, None]
            _add(dx_ptr, j00, c, u, (1 - fy) * (1 - fx), known, C)
            _add(dx_ptr, j01, c, u, (1 - fy) * fx, known, C)
            _add(dx_ptr, j10, c, u, fy * (1 - fx), known, C)
            _add(dx_ptr, j11, c, u, fy * fx, known, C)
    partial = partial_ptr + tl.program_id(1).to(tl.int64) * 3 * P + pixel
    if GATHER:
        tl.store(partial, d_oy * mask, mask=inside)
        tl.store(partial + P, d_ox * mask, mask=inside)
    if HAS_MASK:
        if tl.program_id(1) == 0:
            bias = tl.load(bias_ptr + out_c, mask=out_c < K, other=0.0).to(tl.float32)
            d_mask += tl.sum(g.to(tl.float32) * bias[None, :], axis=1)
        tl.store(partial + 2 * P, d_mask, mask=inside)


def _gradients_of_inputs(grad, x, offset, packed, bias, mask, wanted, precision):
    """Gradients of (x, offset, mask), None where not `wanted`."""
    n, c, h, w = x.shape
    channels, pixels = packed.shape[2], n * h * w
    lx, lg = layout_of(x), layout_of(grad)
    need_x, need_offset, need_mask = wanted
    bn = power_of_2(channels)
    bm = 32 if bn <= 64 and ceil_div(pixels, 32) >= ENOUGH_PROGRAMS else 16
    bk = 64 if bm == 16 and bn <= 128 else 32
    programs = ceil_div(pixels, bm)
    splits = next(s for s in (1, 3, 9) if s == 9 or programs * s >= ENOUGH_PROGRAMS)
    dx = None
    if need_x:
        dx = empty_channels_last(n, c, h, w, x, torch.float32).zero_()
    partial = torch.empty((splits, 3, n, h, w), device=x.device, dtype=torch.float32)
    _inputs[(programs, splits)](
        grad, x, offset, packed, bias, offset if mask is None else mask,
        partial if dx is None else dx, partial,
        lx.row, lx.image, lg.row, lg.image, *offset.stride(), *_mask_strides(mask), pixels, h, w,
        X=lx.pixel, G=lg.pixel, C=c, K=channels,
        HAS_MASK=mask is not None, NEED_X=need_x, GATHER=need_offset or need_mask, TAPS=9 // splits,
        BM=bm, BN=bn, BK=min(bk, power_of_2(c)), PRECISION=precision,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    total = partial[0] if splits == 1 else partial.sum(0)
    d_offset = total[:2].transpose(0, 1) if need_offset else None
    d_mask = total[2].unsqueeze(1) if need_mask else None
    return None if dx is None else dx.to(x.dtype), d_offset, d_mask


@triton.jit(do_not_specialize=[*STRIDES, "per_split"])
def _parameters(
    grad_ptr, x_ptr, offset_ptr, mask_ptr, weight_ptr, bias_ptr,
    x_row, x_image, g_row, g_image, offset_n, offset_c, offset_y, offset_x,
    mask_n, mask_y, mask_x, P, H, W, per_split,
    X: tl.constexpr, G: tl.constexpr, C: tl.constexpr, K: tl.constexpr, HAS_MASK: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BC x BN weights of one tap, summed over `per_split` blocks of BM pixels."""
    C_BLOCKS: tl.constexpr = (C + BC - 1) // BC
    k = tl.program_id(0) // C_BLOCKS
    c = tl.program_id(0) % C_BLOCKS * BC + tl.arange(0, BC)
    out_c = tl.program_id(1) * BN + tl.arange(0, BN)
    split = tl.program_id(2)
    acc = tl.zeros((BC, BN), tl.float32)
    d_bias = tl.zeros((BN,), tl.float32)
    for block in range(split * per_split, (split + 1) * per_split):
        pixel = block * BM + tl.arange(0, BM)
        inside = pixel < P
        n, y, x = _place(pixel, H, W)
        at = offset_ptr + n * offset_n + y * offset_y + x * offset_x
        oy = tl.load(at, mask=inside, other=0.0)
        ox = tl.load(at + offset_c, mask=inside, other=0.0)
        g_rows = grad_ptr + (n * g_image + y * g_row + x)[:, None] * G
        g = tl.load(g_rows + out_c[None, :], mask=inside[:, None] & (out_c < K)[None, :], other=0.0)
        g = g.to(tl.float32)
        if HAS_MASK:
            at = mask_ptr + n * mask_n + y * mask_y + x * mask_x
            g = g * tl.load(at, mask=inside, other=0.0)[:, None]
        d_bias += tl.sum(g, axis=0)
        valid, fy, fx, i00, i01, i10, i11 = _corners(k, n, y, x, oy, ox, inside, H, W, x_image, x_row)
        known = valid[:, None] & (c < C)[None, :]
        value = tl.trans(_sample(x_ptr, i00, i01, i10, i11, fy, fx, c, known, X))
        acc = tl.dot(value, g.to(x_ptr.dtype.element_ty), acc, input_precision=PRECISION)
    at = ((split * 9 + k) * C + c)[:, None] * K + out_c[None, :]
    tl.store(weight_ptr + at, acc, mask=(c < C)[:, None] & (out_c < K)[None, :])
    if tl.program_id(0) == 0:
        tl.store(bias_ptr + split * K + out_c, d_bias, mask=out_c < K)


def _gradients_of_parameters(grad, x, offset, mask, precision) -> tuple[Tensor, Tensor]:
    """Gradients of the packed weight (9, C, K) and the bias (K,), float32.

    The sum over pixels is split among programs, which write partial sums: no atomic additions, so
    the result is the same every time.
    """
    n, c, h, w = x.shape
    channels, pixels = grad.shape[1], n * h * w
    lx, lg = layout_of(x), layout_of(grad)
    bm, bc, bn = 32, min(64, power_of_2(c)), min(64, power_of_2(channels))
    c_blocks, n_blocks = ceil_div(c, bc), ceil_div(channels, bn)
    blocks = ceil_div(pixels, bm)
    splits = min(blocks, ceil_div(4 * ENOUGH_PROGRAMS, 9 * c_blocks * n_blocks))
    per_split = ceil_div(blocks, splits)
    splits = ceil_div(blocks, per_split)
    weight = torch.empty((splits, 9, c, channels), device=x.device, dtype=torch.float32)
    bias = torch.empty((splits, channels), device=x.device, dtype=torch.float32)
    _parameters[(9 * c_blocks, n_blocks, splits)](
        grad, x, offset, offset if mask is None else mask, weight, bias,
        lx.row, lx.image, lg.row, lg.image, *offset.stride(), *_mask_strides(mask), pixels, h, w,
        per_split,
        X=lx.pixel, G=lg.pixel, C=c, K=channels, HAS_MASK=mask is not None,
        BM=bm, BN=bn, BC=bc, PRECISION=precision,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    return weight.sum(0), bias.sum(0)


class _Deformable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, offset, weight, bias, mask, residual, slope, precision):
        packed = pack_weight(weight, x.dtype)
        out = _deform(x, offset, packed, bias, mask, residual, slope, precision)
        saved = out if slope is not None else None
        ctx.save_for_backward(x, offset, packed, bias, mask, saved)
        ctx.settings = slope, precision, weight.dtype
        ctx.has_residual = residual is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, offset, packed, bias, mask, out = ctx.saved_tensors
        slope, precision, dtype = ctx.settings
        wants = ctx.needs_input_grad
        if slope is not None:
            # The sign of the output is that of the LeakyReLU's input.
            grad = torch.ops.aten.leaky_relu_backward(grad, out, slope, True)
        grad = channels_last(grad)
        dx = d_offset = d_mask = d_weight = d_bias = None
        if wants[0] or wants[1] or wants[4]:
            dx, d_offset, d_mask = _gradients_of_inputs(
                grad, x, offset, packed, bias, mask, (wants[0], wants[1], wants[4]), precision
            )
        if wants[2] or wants[3]:
            d_weight, d_bias = _gradients_of_parameters(grad, x, offset, mask, precision)
            d_weight = d_weight.unflatten(0, (3, 3)).permute(3, 2, 0, 1)
            d_weight = d_weight.to(dtype, memory_format=torch.channels_last)
            d_bias = d_bias.to(bias.dtype)
        d_residual = grad if ctx.has_residual and wants[5] else None
        return dx, d_offset, d_weight, d_bias, d_mask, d_residual, None, None
