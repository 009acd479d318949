"""Bilinear samples at MXNet's border rule, for the kernels of the deformable convolution."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place(pixel, H, W):
    """(n, y, x) of pixels counted through the batch; n in 64 bits, for addresses."""
    y = pixel // W
    return (y // H).to(tl.int64), y % H, pixel % W


@triton.jit
def corners(k, n, y, x, oy, ox, inside, H, W, image, row):
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
def gather(x_ptr, i00, i01, i10, i11, c, known, X: tl.constexpr):
    """Channels `c` of the four corners; X elements from pixel to pixel."""
    x00 = tl.load(x_ptr + i00[:, None] * X + c[None, :], mask=known, other=0.0).to(tl.float32)
    x01 = tl.load(x_ptr + i01[:, None] * X + c[None, :], mask=known, other=0.0).to(tl.float32)
    x10 = tl.load(x_ptr + i10[:, None] * X + c[None, :], mask=known, other=0.0).to(tl.float32)
    x11 = tl.load(x_ptr + i11[:, None] * X + c[None, :], mask=known, other=0.0).to(tl.float32)
    return x00, x01, x10, x11


@triton.jit
def sample(x_ptr, i00, i01, i10, i11, fy, fx, c, known, X: tl.constexpr):
    """Bilinear samples of channels `c`, (pixels, channels)."""
    x00, x01, x10, x11 = gather(x_ptr, i00, i01, i10, i11, c, known, X)
    value = x00 * ((1 - fy) * (1 - fx))[:, None] + x01 * ((1 - fy) * fx)[:, None]
    value += x10 * (fy * (1 - fx))[:, None] + x11 * (fy * fx)[:, None]
    return value.to(x_ptr.dtype.element_ty)
