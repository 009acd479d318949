"""Triton kernels of 3x3 convolutions on ranges of channels in NHWC buffers.

A tensor here is a view (N, C, H, W) whose channels are contiguous and whose pixels lie a whole
`pitch` apart, row after row and image after image: a channels-last tensor or a range of its
channels. So a layer reads from and writes into its place in a concatenation, and nothing is copied.
Weights are views (9 taps, output channels, input channels) with any strides.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Arguments of which no two values deserve a compilation each; the others decide about alignment.
SIZES = ["height", "width", "out_height", "out_width", "pixels", "parts"]


@triton.jit(do_not_specialize=SIZES)
def convolve(
    x, weight, bias, gate, y, partial,
    height, width, out_height, out_width, pixels, in_channels, out_channels, parts,
    x_pitch, gate_pitch, y_pitch, tap_stride, out_stride, in_stride,
    STRIDE: tl.constexpr, DILATION: tl.constexpr, FLIP: tl.constexpr,
    SLOPE: tl.constexpr, ACTIVE: tl.constexpr, GATED: tl.constexpr, BIASED: tl.constexpr,
    SPLIT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Implicit matrix product: BLOCK_M output pixels by BLOCK_N output channels.

    The epilogue adds the bias, applies the LeakyReLU, or (GATED) multiplies with the derivative of
    the LeakyReLU whose output is `gate`. With SPLIT the sum over taps and input channels is shared
    by `parts` programs, which write to `partial` (parts, pixels, out_channels) instead.
    """
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(2)
    in_image = rows < pixels
    in_x = (rows % out_width) * STRIDE
    in_y = ((rows // out_width) % out_height) * STRIDE
    image = rows // (out_width * out_height)
    base = ((image * height + in_y) * width + in_x) * x_pitch
    channels = tl.arange(0, BLOCK_K)
    chunks = tl.cdiv(in_channels, BLOCK_K)
    total = 9 * chunks
    each = tl.cdiv(total, parts)
    begin = part * each
    end = tl.minimum(begin + each, total)
    known_columns = columns < out_channels
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(begin, end):
        tap = step // chunks
        channel = (step - tap * chunks) * BLOCK_K + channels
        dy = (tap // 3 - 1) * DILATION
        dx = (tap % 3 - 1) * DILATION
        inside = (in_y + dy >= 0) & (in_y + dy < height) & (in_x + dx >= 0) & (in_x + dx < width)
        inside = inside & in_image
        known = channel < in_channels
        a_at = base[:, None] + ((dy * width + dx) * x_pitch + channel)[None, :]
        a = tl.load(x + a_at, mask=inside[:, None] & known[None, :], other=0.0)
        if FLIP:
            tap = 8 - tap
        b_at = channel[:, None] * in_stride + (tap * tap_stride + columns * out_stride)[None, :]
        b = tl.load(weight + b_at, mask=known[:, None] & known_columns[None, :], other=0.0)
        sums = tl.dot(a.to(b.dtype), b, sums, input_precision=PRECISION)
    wanted = in_image[:, None] & known_columns[None, :]
    if SPLIT:
        at = (part * pixels + rows)[:, None] * out_channels + columns[None, :]
        tl.store(partial + at, sums, mask=wanted)
    else:
        if BIASED:
            sums += tl.load(bias + columns, mask=known_columns, other=0.0)[None, :]
        if ACTIVE:
            sums = tl.where(sums >= 0, sums, sums * SLOPE)
        if GATED:
            gate_at = rows[:, None] * gate_pitch + columns[None, :]
            passed = tl.load(gate + gate_at, mask=wanted, other=0.0) >= 0
            sums = tl.where(passed, sums, sums * SLOPE)
        tl.store(y + rows[:, None] * y_pitch + columns[None, :], sums.to(y.dtype.element_ty),
                 mask=wanted)  # fmt: skip


@triton.jit(do_not_specialize=[*SIZES, "out_channels"])
def add_parts(
    partial, bias, gate, y, pixels, out_channels, parts, gate_pitch, y_pitch,
    SLOPE: tl.constexpr, ACTIVE: tl.constexpr, GATED: tl.constexpr, BIASED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum what the programs of a split `convolve` wrote; the same epilogue."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    size = pixels * out_channels
    known = at < size
    row = at // out_channels
    column = at - row * out_channels
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for part in range(parts):
        total += tl.load(partial + part * size + at, mask=known, other=0.0)
    if BIASED:
        total += tl.load(bias + column, mask=known, other=0.0)
    if ACTIVE:
        total = tl.where(total >= 0, total, total * SLOPE)
    if GATED:
        passed = tl.load(gate + row * gate_pitch + column, mask=known, other=0.0) >= 0
        total = tl.where(passed, total, total * SLOPE)
    tl.store(y + row * y_pitch + column, total.to(y.dtype.element_ty), mask=known)


@triton.jit(do_not_specialize=["pixels", "channels", "each"])
def sum_pixels(
    gradient, partial, pixels, channels, each, g_pitch,
    BLOCK_M: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """partial[part, o] = sum of `each` pixels of g(p, o). Programs: (part, block of channels)."""
    outputs = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    begin = tl.program_id(0) * each
    sums = tl.zeros((BLOCK_O,), dtype=tl.float32)
    for step in range(0, each, BLOCK_M):
        rows = step + tl.arange(0, BLOCK_M)
        known = (rows < each) & (begin + rows < pixels)
        at = (begin + rows)[:, None] * g_pitch + outputs[None, :]
        values = tl.load(gradient + at, mask=known[:, None] & (outputs < channels)[None, :],
                         other=0.0)  # fmt: skip
        sums += tl.sum(values.to(tl.float32), 0)
    tl.store(partial + tl.program_id(0) * channels + outputs, sums, mask=outputs < channels)
