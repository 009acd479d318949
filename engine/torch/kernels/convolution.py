"""3x3 convolutions and dense blocks on channels-last memory, by Triton: forward and backward.

A map here is a view (N, C, H, W) whose channels are contiguous and whose pixels lie a whole `pitch` apart, row after
row and image after image: a channels-last tensor or a range of its channels. So a convolution reads from and writes
into its place in a concatenation, and nothing is copied. Weights are views (9 taps, output channels, input channels)
with any strides.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from maskflownet.engine.torch.kernels.layout import Layout, ceil_div, layout_of, power_of_2
from maskflownet.errors import UserError
from torch import Tensor

CHANNEL_UNIT = 16  # channels of a buffer are a multiple: rows of pixels begin at whole vectors
MULTIPROCESSORS = 132  # of an H100, fits others roughly
WIDEST = 128  # output channels of one program
MANY_PIXELS = 128 * MULTIPROCESSORS  # from which blocks of 128 keep every multiprocessor busy
# Sizes of blocks, and from how many blocks on they are taken.
MANY_SIZES = ((128, 128, 198), (64, 128, 0))
FEW_SIZES = ((128, 64, 245), (64, 64, 72), (64, 32, 72), (32, 32, 72), (16, 32, 0))
NARROW = 32  # outputs times nine taps, at most, that one product computes together
PARTS = 6  # of a map that one kernel joins, at most
LARGEST = 2**31 - 1  # elements that the kernels' 32-bit addresses reach
# Arguments of which no two values deserve a compilation each; the others decide about alignment.
SIZES = ["height", "width", "out_height", "out_width", "pixels"]


@triton.jit
def _add_products(
    sums, x, weight, base, in_x, in_y, in_image, column, known_columns, first_channel, in_channels, steps,
    height, width, x_pitch, tap_stride, in_stride,
    TAPS: tl.constexpr, DILATION: tl.constexpr, FLIP: tl.constexpr, WHOLE: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the products of some taps, of BLOCK_K channels each; with WHOLE all channels exist."""
    for step in range(steps):
        tap = step % TAPS  # innermost: pixels serve their neighbours' taps while they are in the cache
        channel = first_channel + step // TAPS * BLOCK_K + tl.arange(0, BLOCK_K)
        dy = (tap // 3 - 1) * DILATION if TAPS == 9 else 0
        dx = (tap % 3 - 1) * DILATION if TAPS == 9 else 0
        inside = (in_y + dy >= 0) & (in_y + dy < height) & (in_x + dx >= 0) & (in_x + dx < width)
        a_known, b_known = (inside & in_image)[:, None], known_columns[None, :]
        if not WHOLE:
            known = channel < in_channels
            a_known, b_known = a_known & known[None, :], b_known & known[:, None]
        a = tl.load(x + base[:, None] + ((dy * width + dx) * x_pitch + channel)[None, :], mask=a_known, other=0.0)
        if FLIP:
            tap = 8 - tap
        b_at = channel[:, None] * in_stride + (tap * tap_stride + column)[None, :]
        b = tl.load(weight + b_at, mask=b_known, other=0.0)
        sums = tl.dot(a.to(b.dtype), b, sums, input_precision=PRECISION)
    return sums


@triton.jit(do_not_specialize=SIZES)
def _convolve(
    x, weight, bias, gate, y, sums_at,
    height, width, out_height, out_width, pixels, in_channels, out_channels, further,
    x_pitch, gate_pitch, y_pitch, sums_pitch, tap_stride, out_stride, in_stride, gap,
    TAPS: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, FLIP: tl.constexpr,
    SLOPE: tl.constexpr, ACTIVE: tl.constexpr, GATED: tl.constexpr, BIASED: tl.constexpr,
    AHEAD: tl.constexpr, GAP: tl.constexpr, BEGUN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, REST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Implicit matrix product: BLOCK_M output pixels by BLOCK_N output channels.

    The epilogue adds the bias, applies the LeakyReLU, or (GATED) multiplies with the derivative of the LeakyReLU whose
    output is `gate`. The last channels, in_channels modulo BLOCK_K, are taken in a block of REST. With AHEAD `further`
    more outputs, whose weights begin `gap` rows after the end of the others', have their sums left in `sums_at`. With
    BEGUN all sums start from there, those of the other outputs first.
    """
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_image = rows < pixels
    in_x = (rows % out_width) * STRIDE
    in_y = ((rows // out_width) % out_height) * STRIDE
    image = rows // (out_width * out_height)
    base = ((image * height + in_y) * width + in_x) * x_pitch
    whole = in_channels // BLOCK_K
    known_columns = columns < out_channels + further
    weights = columns + tl.where(columns < out_channels, 0, gap) if GAP else columns
    at = rows[:, None] * sums_pitch + columns[None, :]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    if BEGUN:
        sums = tl.load(sums_at + at, mask=in_image[:, None] & known_columns[None, :], other=0.0)
    sums = _add_products(
        sums, x, weight, base, in_x, in_y, in_image, weights * out_stride, known_columns, 0, in_channels,
        TAPS * whole, height, width, x_pitch, tap_stride, in_stride,
        TAPS, DILATION, FLIP, True, BLOCK_K, PRECISION,
    )  # fmt: skip
    if REST:
        sums = _add_products(
            sums, x, weight, base, in_x, in_y, in_image, weights * out_stride, known_columns, whole * BLOCK_K,
            in_channels, TAPS, height, width, x_pitch, tap_stride, in_stride,
            TAPS, DILATION, FLIP, False, REST, PRECISION,
        )  # fmt: skip
    if AHEAD:
        left = known_columns & (columns >= out_channels)
        first = sums_at if BEGUN else sums_at - out_channels
        tl.store(first + at, sums, mask=in_image[:, None] & left[None, :])
    known_columns = columns < out_channels
    wanted = in_image[:, None] & known_columns[None, :]
    if BIASED:
        sums += tl.load(bias + columns, mask=known_columns, other=0.0)[None, :]
    if ACTIVE:
        sums = tl.where(sums >= 0, sums, sums * SLOPE)
    if GATED:
        gate_at = rows[:, None] * gate_pitch + columns[None, :]
        passed = tl.load(gate + gate_at, mask=wanted, other=0.0) >= 0
        sums = tl.where(passed, sums, sums * SLOPE)
    tl.store(y + rows[:, None] * y_pitch + columns[None, :], sums.to(y.dtype.element_ty), mask=wanted)


@triton.jit(do_not_specialize=["size", "height", "width"])
def _sum_taps(taps, bias, y, size, height, width, pitch: tl.constexpr, outputs: tl.constexpr, BLOCK: tl.constexpr):
    """Bias and nine neighbours' products, each with its tap's weight: (N, H, W, 9 outputs) -> (N, outputs, H, W)."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = at < size
    column, row = at % width, at // width % height
    channel = at // (width * height) % outputs
    image = at // (width * height * outputs)
    total = tl.load(bias + channel, mask=known, other=0.0)
    for tap in tl.static_range(9):
        y_in, x_in = row + tap // 3 - 1, column + tap % 3 - 1
        inside = known & (y_in >= 0) & (y_in < height) & (x_in >= 0) & (x_in < width)
        pixel = (image * height + y_in) * width + x_in
        total += tl.load(taps + pixel * pitch + channel * 9 + tap, mask=inside, other=0.0)
    tl.store(y + at, total, mask=known)


@triton.jit(do_not_specialize=["pixels", "each"])
def _sum_pixels(x, y, pixels, each, channels, pitch, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Sums over `each` pixels: (pixels, channels) -> (programs, channels)."""
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    begin = tl.program_id(0) * each
    end = tl.minimum(begin + each, pixels)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for first in range(begin, end, BLOCK_M):
        row = first + tl.arange(0, BLOCK_M)
        known = (row < end)[:, None] & (column < channels)[None, :]
        total += tl.load(x + row[:, None] * pitch + column[None, :], mask=known, other=0.0).to(tl.float32)
    tl.store(y + tl.program_id(0) * channels + column, tl.sum(total, axis=0), mask=column < channels)


def sum_pixels(x: Tensor) -> Tensor:
    """Sums of a map's channels, (N, C, H, W) -> (C,) float32, in two steps of a fixed order, faster than Tensor.sum."""
    n, c, h, w = x.shape
    block_m, block_n = 32, min(64, power_of_2(c))
    programs = MULTIPROCESSORS * ceil_div(4, ceil_div(c, block_n))

    def add(x: Tensor, rows: int, each: int, pitch: int) -> Tensor:
        sums = torch.empty((ceil_div(rows, each), c), dtype=torch.float32, device=x.device)
        grid = len(sums), ceil_div(c, block_n)
        _sum_pixels[grid](x, sums, rows, each, c, pitch, BLOCK_M=block_m, BLOCK_N=block_n)
        return sums

    parts = add(x, n * h * w, block_m * ceil_div(n * h * w, block_m * programs), dense_layout(x).pixel)
    return add(parts, len(parts), len(parts), c)[0]


def padded(channels: int) -> int:
    return ceil_div(channels, CHANNEL_UNIT) * CHANNEL_UNIT


def new_map(n: int, c: int, h: int, w: int, dtype, device) -> Tensor:
    """Uninitialised (n, c, h, w) whose pixels lie a multiple of CHANNEL_UNIT elements apart."""
    if n * h * w * padded(c) > LARGEST:
        raise UserError(f"{n} maps of {c}x{h}x{w} are too large at once: predict fewer or smaller")
    memory = torch.empty((n, h, w, padded(c)), dtype=dtype, device=device)
    return memory.permute(0, 3, 1, 2)[:, :c]


def dense_layout(x: Tensor) -> Layout | None:
    """Layout of `x` if its channels are contiguous and its pixels equally spaced, else None."""
    layout = layout_of(x)
    n, _, h, w = x.shape
    if layout is None or (h > 1 and layout.row != w) or (n > 1 and layout.image != h * w):
        return None
    return layout


def as_map(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`x` itself if the kernels can read it, else a channels-last copy; as `dtype` if given."""
    if dtype in {None, x.dtype} and dense_layout(x) is not None:
        return x
    n, c, h, w = x.shape
    return new_map(n, c, h, w, dtype or x.dtype, x.device).copy_(x)


@triton.jit
def _add_part(
    sums, planar, x, n_stride, c_stride, y_stride, x_stride, begin, end, first, image, row, column, known,
    PLANAR: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Add the channels `begin` to `end` of a joined map that are among BLOCK_N from `first` on."""
    x += image * n_stride + row * y_stride
    channel = first + tl.arange(0, BLOCK_N)
    own = (channel >= begin) & (channel < end)
    if PLANAR:  # read along the row, not along the channels
        at = (channel - begin)[:, None] * c_stride + column[None, :] * x_stride
        planar += tl.load(x + at, mask=own[:, None] & known[None, :], other=0.0).to(tl.float32)
    elif (begin < first + BLOCK_N) & (end > first):
        at = column[:, None] * x_stride + (channel - begin)[None, :]
        sums += tl.load(x + at, mask=known[:, None] & own[None, :], other=0.0).to(tl.float32)
    return sums, planar


@triton.jit(do_not_specialize=list(range(2, 6 + 6 * PARTS)))
def _join(
    y, pitch, height, width, across, deep,
    a, a_n, a_c, a_y, a_x, a_end, b, b_n, b_c, b_y, b_x, b_end, c, c_n, c_c, c_y, c_x, c_end,
    d, d_n, d_c, d_y, d_x, d_end, e, e_n, e_c, e_y, e_x, e_end, f, f_n, f_c, f_y, f_x, f_end,
    PLANAR: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_N channels of BLOCK_M pixels of a row; those behind the last part are 0.

    The `deep` programs for the same pixels follow one another, and the `across` groups of them for a row.
    """
    # From channel `at` on, pixels k of row j of image i: s as it is written, p turned.
    place = tl.program_id(0)
    line = place // (deep * across)
    i, j, at = line // height, line % height, place % deep * BLOCK_N
    k = place // deep % across * BLOCK_M + tl.arange(0, BLOCK_M)
    known = k < width
    s = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    p = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    s, p = _add_part(s, p, a, a_n, a_c, a_y, a_x, 0, a_end, at, i, j, k, known, PLANAR & 1, BLOCK_N)
    s, p = _add_part(s, p, b, b_n, b_c, b_y, b_x, a_end, b_end, at, i, j, k, known, PLANAR & 2, BLOCK_N)
    s, p = _add_part(s, p, c, c_n, c_c, c_y, c_x, b_end, c_end, at, i, j, k, known, PLANAR & 4, BLOCK_N)
    s, p = _add_part(s, p, d, d_n, d_c, d_y, d_x, c_end, d_end, at, i, j, k, known, PLANAR & 8, BLOCK_N)
    s, p = _add_part(s, p, e, e_n, e_c, e_y, e_x, d_end, e_end, at, i, j, k, known, PLANAR & 16, BLOCK_N)
    s, p = _add_part(s, p, f, f_n, f_c, f_y, f_x, e_end, f_end, at, i, j, k, known, PLANAR & 32, BLOCK_N)
    to = (line * width + k)[:, None] * pitch + (at + tl.arange(0, BLOCK_N))[None, :]
    tl.store(y + to, (s + tl.trans(p)).to(y.dtype.element_ty), mask=known[:, None])


def join(parts: Sequence[Tensor], y: Tensor) -> Tensor:
    """Write maps (N, C, H, W) of any strides, side by side, into a map of a multiple of CHANNEL_UNIT; then zeros."""
    n, c, h, w = y.shape
    if len(parts) > PARTS or {(len(part), *part.shape[2:]) for part in parts} != {(n, h, w)}:
        raise ValueError(f"at most {PARTS} parts of {n} maps of {h}x{w} are joined, not {[*map(Tensor.size, parts)]}")
    arguments, end, planar = [], 0, 0
    for i, part in enumerate((*parts, *[parts[0][:, :0]] * (PARTS - len(parts)))):
        end += part.shape[1]
        arguments += [part, *part.stride(), end]
        planar += (part.shape[1] > 0 and part.stride(1) != 1) << i
    m = min(64, power_of_2(w))
    across, deep = ceil_div(w, m), c // CHANNEL_UNIT
    _join[(n * h * across * deep,)](
        y, dense_layout(y).pixel, h, w, across, deep, *arguments, PLANAR=planar, BLOCK_M=m, BLOCK_N=CHANNEL_UNIT
    )
    return y


def phases(batches: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Pixels of even and odd rows and columns side by side, then zeros: (N, C, 2h, 2w) -> (N, CHANNEL_UNIT, h, w)."""
    n, c, height, width = batches[0].shape
    parts = [[x[:, :, i::2, j::2] for i in range(2) for j in range(2)] for x in batches]
    if torch.is_grad_enabled() and any(x.requires_grad for x in batches):
        together = torch.cat([torch.cat(part, 1) for part in parts])
        return F.pad(together, (0, 0, 0, 0, 0, CHANNEL_UNIT - 4 * c)).to(dtype)
    y = new_map(n * len(batches), CHANNEL_UNIT, height // 2, width // 2, dtype, batches[0].device)
    for part, of_batch in zip(parts, y.split(n)):
        join(part, of_batch)
    return y


def phase_weight(weight: Tensor) -> Tensor:
    """(K, C, 3, 3) of a stride of 2 -> (K, CHANNEL_UNIT, 3, 3) of a stride of 1 on `phases`."""
    k, c = weight.shape[:2]
    # Of the pixels 2 y - 1 to 2 y + 1 the first is in the phase of odd rows at y - 1.
    taps = F.pad(weight, (1, 0, 1, 0)).reshape(k, c, 2, 2, 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(k, 4 * c, 2, 2)
    return F.pad(taps, (0, 1, 0, 1, 0, CHANNEL_UNIT - 4 * c))


def _forward_blocks(pixels: int, inputs: int, outputs: int, half: bool) -> tuple[int, int, int, int, int]:
    """Block sizes m, n, k, warps and stages, from timings of the networks' shapes on an H100 and H200 (2026-11-30)."""
    k = min(64, power_of_2(inputs))
    sizes = MANY_SIZES if pixels >= MANY_PIXELS else FEW_SIZES
    widths = [(m, min(n, power_of_2(outputs)), least) for m, n, least in sizes]
    m, n = next((m, n) for m, n, least in widths if ceil_div(pixels, m) * ceil_div(outputs, n) >= least)
    if pixels >= MANY_PIXELS and outputs <= 32 and (inputs <= 32 or (outputs > 16 and pixels >= 65536)):
        m = 256
    warps = 8 if m == 256 and inputs > 16 else 4
    stages = 3 if m == 256 or m * n >= 128 * 64 else 4
    if not half:
        k = max(16, k // 2)
    return m, n, k, warps, stages


def convolve_into(
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    bias: Tensor | None = None,
    *,
    slope: float | None = None,
    gate: Tensor | None = None,
    stride: int = 1,
    dilation: int = 1,
    flip: bool = False,
    ahead: Tensor | None = None,
    sums: Tensor | None = None,
    begun: bool = False,
    precision: str = "tf32",
) -> Tensor:
    """Write a convolution of a map `x` (N, C, H, W), padded by its dilation, into a map `y`.

    The weight is (9, K, C), float32 or bfloat16, of any strides, taps row by row; float32 of `x` is converted to its
    type. The bias is (K,) float32. `slope` is that of the LeakyReLU at the end; with `gate`, a map like `y`, of the
    LeakyReLU whose output the gate is, and the result is multiplied by its derivative. `flip` takes the taps in the
    opposite order: the gradient of a convolution is one with flipped taps and transposed weights. `ahead` is another
    weight (9, K', C) of the same memory and strides: its products with the same inputs are left in `sums` (pixels, K'),
    float32, without bias and activation. If `begun`, `sums` is (pixels, K + K'): all products start from it, and those
    of `ahead` are left in their place. A weight of one tap (1, K, C) makes a product of each pixel. `precision`, "tf32"
    or "ieee", is that of float32 products.
    """
    wide = WIDEST < y.shape[1] <= WIDEST + WIDEST // 2
    if wide and sums is None:  # a second block as wide as the first would be half empty
        for part in (slice(WIDEST), slice(WIDEST, None)):
            convolve_into(
                x, weight[:, part], y[:, part], None if bias is None else bias[part], slope=slope,
                gate=None if gate is None else gate[:, part], stride=stride, dilation=dilation, flip=flip,
                precision=precision,
            )  # fmt: skip
        return y
    n, inputs, height, width = x.shape
    outputs, out_height, out_width = y.shape[1:]
    pixels = n * out_height * out_width
    ahead = weight[:, :0] if ahead is None else ahead
    further = ahead.shape[1]
    gap = (ahead.storage_offset() - weight.storage_offset()) // weight.stride(1) - outputs if further else 0
    m, n, k, warps, stages = _forward_blocks(pixels, inputs, outputs + further, weight.dtype != torch.float32)
    _convolve[ceil_div(pixels, m), ceil_div(outputs + further, n)](
        x, weight, y if bias is None else bias, y if gate is None else gate, y, y if sums is None else sums,
        height, width, out_height, out_width, pixels, inputs, outputs, further,
        dense_layout(x).pixel, 0 if gate is None else dense_layout(gate).pixel, dense_layout(y).pixel,
        0 if sums is None else sums.stride(0), *weight.stride(), gap,
        TAPS=len(weight), STRIDE=stride, DILATION=dilation, FLIP=flip, SLOPE=1.0 if slope is None else slope,
        ACTIVE=slope is not None and gate is None, GATED=gate is not None, BIASED=bias is not None,
        AHEAD=further > 0, GAP=gap != 0, BEGUN=begun,
        BLOCK_M=m, BLOCK_N=n, BLOCK_K=k, REST=power_of_2(inputs % k) if inputs % k else 0,
        PRECISION=precision, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return y


def weight_gradients(x: Tensor, gradient: Tensor, stride: int = 1, dilation: int = 1) -> tuple[Tensor, Tensor]:
    """Gradients of the weight (K, C, 3, 3) and the bias (K,) of a convolution of a map `x`, from its output's.

    The weight's by cuDNN, which is two to four times faster here than what was written in Triton;
    in the type of `gradient`, summed in float32. The bias's in float32.
    """
    outputs, inputs = gradient.shape[1], x.shape[1]
    bias = sum_pixels(gradient)
    gradient, x = whole_pixels(gradient), whole_pixels(x.to(gradient.dtype))
    weight = new_map(gradient.shape[1], x.shape[1], 3, 3, gradient.dtype, x.device)
    pair = [dilation] * 2
    weight = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [stride] * 2, pair, pair, False, [0, 0], 1,
        [False, True, False],
    )[1]  # fmt: skip
    return weight[:outputs, :inputs], bias


def whole_pixels(x: Tensor) -> Tensor:
    """A map with the unused channels at the end of its pixels, or else a copy without any.

    What lies in such channels is arbitrary: they are for products whose results are thrown away.
    """
    n, c, h, w = x.shape
    pitch = dense_layout(x).pixel
    end = x.storage_offset() + n * h * w * pitch
    if c < pitch == padded(c) and end <= x.untyped_storage().nbytes() // x.element_size():
        return x.as_strided((n, pitch, h, w), (h * w * pitch, 1, w * pitch, pitch))
    return x.contiguous(memory_format=torch.channels_last)


class Arithmetic(NamedTuple):
    """In which type maps are kept and multiplied."""

    dtype: torch.dtype  # float32 or bfloat16
    precision: str = "tf32"  # or "ieee": of float32 products


def new_packed(like: Tensor, k: int, c: int, dtype: torch.dtype) -> Tensor:
    """Zeros (9, K, C), of which the taps of an output lie side by side in memory."""
    return like.new_zeros((k, 9, c), dtype=dtype).transpose(0, 1)


def pack(weight: Tensor, into: Tensor) -> None:
    """Copy (K, C, 3, 3) to a range (9, K, C) of packed weights."""
    into.unflatten(0, (3, 3)).copy_(weight.permute(2, 3, 0, 1))


class ConvolutionSpec(NamedTuple):
    stride: int
    dilation: int
    slope: float | None
    arithmetic: Arithmetic


def convolve_map(spec: ConvolutionSpec, packed: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """LeakyReLU of a 3x3 convolution with packed weights (9, K, C), as a new map."""
    n, _, h, w = x.shape
    size = -(-h // spec.stride), -(-w // spec.stride)
    y = new_map(n, packed.shape[1], *size, spec.arithmetic.dtype, x.device)
    return convolve_into(
        as_map(x), packed, y, bias, slope=spec.slope, stride=spec.stride, dilation=spec.dilation,
        precision=spec.arithmetic.precision,
    )  # fmt: skip


class Chain(torch.autograd.Function):
    """`convolve_map` several times, with gradients.

    Tensors: all weights (K, C, 3, 3), of which `packed` hold the values, then all biases.
    """

    @staticmethod
    def forward(ctx, specs: Sequence[ConvolutionSpec], packed: Sequence[Tensor], x, *tensors):
        maps = [as_map(x)]
        for spec, weight, bias in zip(specs, packed, tensors[len(specs) :]):
            maps.append(convolve_map(spec, weight, maps[-1], bias))
        ctx.specs = specs
        ctx.save_for_backward(*packed, *tensors[: len(specs)], *maps)
        return maps[-1]

    @staticmethod
    def backward(ctx, gradient):
        count, saved = len(ctx.specs), ctx.saved_tensors
        packed, weights, maps = saved[:count], saved[count : 2 * count], saved[2 * count :]
        wanted = any(ctx.needs_input_grad[3:])
        dw, db = [None] * count, [None] * count
        gradient = behind_activation(gradient, maps[-1], ctx.specs[-1].slope)
        for i in reversed(range(count)):
            spec, x = ctx.specs[i], maps[i]
            if wanted:
                dw[i], db[i] = weight_gradients(x, gradient, spec.stride, spec.dilation)
            if i == 0 and not ctx.needs_input_grad[2]:
                return None, None, None, *dw, *db
            slope = ctx.specs[i - 1].slope if i else None  # of the LeakyReLU whose output x is
            if spec.stride > 1:
                gradient = behind_activation(strided_input_gradient(gradient, x, weights[i], spec), x, slope)
                continue
            n, c, h, w = x.shape
            dx = new_map(n, packed[i].shape[2], h, w, gradient.dtype, x.device)  # for whole vectors of weights
            convolve_into(
                gradient, packed[i].transpose(1, 2), dx, slope=slope, gate=None if slope is None else x,
                dilation=spec.dilation, flip=True, precision=spec.arithmetic.precision,
            )  # fmt: skip
            gradient = dx[:, :c]
        return None, None, gradient, *dw, *db


def behind_activation(gradient: Tensor, y: Tensor, slope: float | None) -> Tensor:
    """The gradient before a LeakyReLU with output `y`, or none, as a map of the type of `y`."""
    if slope is not None:
        gradient = torch.ops.aten.leaky_relu_backward(gradient.to(y.dtype), y, slope, True)
    return as_map(gradient, y.dtype)


def strided_input_gradient(gradient, x, weight, spec: ConvolutionSpec) -> Tensor:
    """Of a convolution with a stride, by the library."""
    last = {"memory_format": torch.channels_last}
    pair = [spec.dilation] * 2
    return torch.ops.aten.convolution_backward(
        gradient.contiguous(**last), x.to(gradient.dtype).contiguous(**last),
        weight.to(gradient.dtype).contiguous(**last), None,
        [spec.stride] * 2, pair, pair, False, [0, 0], 1, [True, False, False],
    )[0]  # fmt: skip


class Head(NamedTuple):
    """A convolution that reads the whole output of a dense block."""

    channels: int
    slope: float | None
    dtype: torch.dtype  # of its output


class BlockSpec(NamedTuple):
    """A dense block: every convolution reads all before it, and new features come first.

    One map holds them all: [last features, ..., first features, input], each convolution's input being a suffix.
    Another has the gradients before the activations: [first, ..., last, heads], so that what a part's gradient is
    computed from is a suffix, too. Packed weights have the rows of the second one and the columns of the first.

    For many pixels a convolution takes its whole input at once. For few, each part of the map, when it is ready, is
    multiplied with the weights of all that read it, and what is not complete yet waits in float32: a program has less
    to do then, and there are more of them.
    """

    parts: tuple[int, ...]  # channels of what the input is concatenated from
    dense: tuple[int, ...]  # channels of the convolutions, first to last
    heads: tuple[Head, ...]
    slope: float
    arithmetic: Arithmetic

    @property
    def inputs(self) -> int:
        return sum(self.parts)

    @property
    def columns(self) -> int:
        return sum(self.dense) + padded(self.inputs)

    @property
    def rows(self) -> int:
        return self.head_rows[-1]

    @property
    def head_rows(self) -> list[int]:
        """First row of each head, and the end of the last one."""
        return [*accumulate((padded(head.channels) for head in self.heads), initial=sum(self.dense))]

    def column(self, i: int) -> int:
        """First column of the features of convolution i."""
        return sum(self.dense[i + 1 :])

    def suffix(self, i: int) -> int:
        """First column of what convolution i reads; `len(dense)` stands for the heads."""
        return sum(self.dense[i:])

    def row(self, i: int) -> int:
        """First row of convolution i; `len(dense)` stands for the heads."""
        return sum(self.dense[:i])

    @property
    def ahead(self) -> tuple[int, int] | None:
        """The first (i, j): what the block of outputs of convolution i leaves free holds those of a later one, j."""
        numbered = list(enumerate(self.dense))
        pairs = ((i, j) for i, a in numbered for j, b in numbered[i + 1 :] if a + b <= min(WIDEST, power_of_2(a)))
        return next(pairs, None)

    def pack(self, packed: Tensor, weights: Sequence[Tensor]) -> None:
        """Fill (9, rows, columns), zero before, with the weights of the convolutions and heads."""
        count = len(self.dense)
        for i, weight in enumerate(weights[:count]):
            at = packed[:, self.row(i) : self.row(i) + self.dense[i]]
            pack(weight, at[:, :, self.suffix(i) : self.suffix(i) + weight.shape[1]])
        for row, head, weight in zip(self.head_rows, self.heads, weights[count:]):
            pack(weight, packed[:, row : row + head.channels, : weight.shape[1]])

    def unpack(self, weight: Tensor, bias: Tensor) -> list[Tensor]:
        """Weights and biases of the layers in turn, of (rows, columns, 3, 3) and (rows,)."""
        end, arrays = self.suffix(0) + self.inputs, []
        reads = [(self.row(i), c, self.suffix(i)) for i, c in enumerate(self.dense)]
        reads += [(row, head.channels, 0) for row, head in zip(self.head_rows, self.heads)]
        for row, channels, begin in reads:
            rows = slice(row, row + channels)
            arrays += [weight[rows, begin:end], bias[rows]]
        return arrays


def run_block(spec: BlockSpec, packed, parts, biases) -> tuple[Tensor, list[Tensor]]:
    """All features of a dense block (N, columns, H, W), and its heads' outputs."""
    n, _, h, w = parts[0].shape
    dtype, precision = spec.arithmetic
    features = new_map(n, spec.columns, h, w, dtype, parts[0].device)
    join(parts, features[:, spec.suffix(0) :])
    few, sums = n * h * w < MANY_PIXELS, None
    first, later = (None if few else spec.ahead) or (None, None)
    if few or later is not None:
        width = spec.rows if few else spec.dense[later]
        sums = torch.empty(n * h * w, width, dtype=torch.float32, device=features.device)
    for i, channels in enumerate(spec.dense):
        begin, row, end = spec.suffix(i), spec.row(i), spec.columns
        options = {}
        if few:
            end = spec.suffix(i - 1) if i else end
            options = {"ahead": packed[:, row + channels :, begin:end], "begun": i > 0}
            options["sums"] = sums[:, row:] if i else sums[:, channels:]
        elif i == first:
            rows = slice(spec.row(later), spec.row(later) + spec.dense[later])
            options = {"ahead": packed[:, rows, begin:], "sums": sums}
        elif i == later:
            end = spec.suffix(first)
            options = {"sums": sums, "begun": True}
        convolve_into(
            features[:, begin:end],
            packed[:, row : row + channels, begin:end],
            features[:, spec.column(i) : begin],
            biases[i],
            slope=spec.slope,
            precision=precision,
            **options,
        )
    outputs = []
    end = spec.suffix(len(spec.dense) - 1) if few else spec.columns
    for row, head, bias in zip(spec.head_rows, spec.heads, biases[len(spec.dense) :]):
        weight = packed[:, row : row + head.channels, :end]
        if not few and head[1:] == (None, torch.float32) and 9 * head.channels <= NARROW:
            outputs.append(_convolve_narrow(features, weight, bias, precision))
            continue
        y = new_map(n, head.channels, h, w, head.dtype, features.device)
        options = {"sums": sums[:, row:], "begun": True} if few else {}
        convolve_into(features[:, :end], weight, y, bias, slope=head.slope, precision=precision, **options)
        outputs.append(y)
    return features, outputs


def _convolve_narrow(x: Tensor, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
    """A convolution to few channels, float32: a product reads each pixel once, not nine times, for all of its taps."""
    n, _, h, w = x.shape
    outputs = weight.shape[1]
    taps = new_map(n, 9 * outputs, h, w, torch.float32, x.device)
    convolve_into(x, weight.transpose(0, 1).flatten(0, 1)[None], taps, precision=precision)
    y = torch.empty((n, outputs, h, w), dtype=torch.float32, device=x.device)
    _sum_taps[(ceil_div(y.numel(), 256),)](taps, bias, y, y.numel(), h, w, dense_layout(taps).pixel, outputs, BLOCK=256)
    return y


class DenseBlock(torch.autograd.Function):
    """`run_block` with gradients; returns the heads' outputs.

    Tensors: the parts of the input, the weights and biases of the dense convolutions in turn, then
    those of the heads.
    """

    @staticmethod
    def forward(ctx, spec: BlockSpec, packed, *tensors):
        count = len(spec.parts)
        features, outputs = run_block(spec, packed, tensors[:count], tensors[count + 1 :: 2])
        ctx.spec = spec
        kept = [y if head.slope is not None else None for y, head in zip(outputs, spec.heads)]
        ctx.save_for_backward(packed, features, *kept)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *gradients):
        spec, (packed, features, *outputs) = ctx.spec, ctx.saved_tensors
        dtype, precision = spec.arithmetic
        n, _, h, w = features.shape
        total = new_map(n, spec.rows, h, w, dtype, features.device)
        rows = spec.head_rows
        for row, end, head, gradient, y in zip(rows, rows[1:], spec.heads, gradients, outputs):
            before = total[:, row : row + head.channels]
            if y is None:
                before.copy_(gradient)
            else:
                gradient = gradient.to(y.dtype)  # noqa: PLW2901
                torch.ops.aten.leaky_relu_backward.grad_input(gradient, y, head.slope, True, grad_input=before)
            total[:, row + head.channels : end].zero_()
        few, sums = n * h * w < MANY_PIXELS, None
        if few:
            sums = torch.empty(n * h * w, spec.columns, dtype=torch.float32, device=features.device)
        for i in reversed(range(len(spec.dense))):
            row, column, later = spec.row(i), spec.column(i), spec.row(i + 1)
            own = slice(column, column + spec.dense[i])
            end, options = spec.rows, {}
            if few:
                is_last = i == len(spec.dense) - 1
                end = end if is_last else spec.row(i + 2)
                options = {"ahead": packed[:, later:end, own.stop :].transpose(1, 2), "begun": not is_last}
                options["sums"] = sums[:, own.stop :] if is_last else sums[:, column:]
            convolve_into(
                total[:, later:end],
                packed[:, later:end, own].transpose(1, 2),
                total[:, row:later],
                gate=features[:, own],
                slope=spec.slope,
                flip=True,
                precision=precision,
                **options,
            )
        begin = spec.suffix(0)
        dx = None
        if any(ctx.needs_input_grad[2 : 2 + len(spec.parts)]):
            # With the zeros behind them, for weights are read in whole vectors then: three times as fast.
            dx = new_map(n, spec.columns - begin, h, w, dtype, features.device)
            end, options = (spec.row(1), {"sums": sums[:, begin:], "begun": True}) if few else (spec.rows, {})
            weight = packed[:, :end, begin:].transpose(1, 2)
            convolve_into(total[:, :end], weight, dx, flip=True, precision=precision, **options)
            dx = dx[:, : spec.inputs].split(spec.parts, dim=1)
        results = list(dx or [None] * len(spec.parts))
        if any(ctx.needs_input_grad[2 + len(spec.parts) :]):
            results += spec.unpack(*weight_gradients(features, total))
        else:
            results += [None] * 2 * (len(spec.dense) + len(spec.heads))
        return (None, None, *results)
