"""3x3 convolutions on channels-last memory by Triton: forward, and both halves of backward.

Inputs and outputs may be ranges of the channels of wider maps (`maskflownet.engine.torch.kernels.layout`), so that a
convolution reads a concatenation, and writes into one, without a copy.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from maskflownet.engine.torch.kernels.convolution_triton import add_parts, convolve, sum_pixels
from maskflownet.engine.torch.kernels.layout import Layout, ceil_div, layout_of, power_of_2
from maskflownet.errors import UserError
from torch import Tensor

CHANNEL_UNIT = 16  # channels of a buffer are a multiple: rows of pixels begin at whole vectors
MULTIPROCESSORS = 132  # programs below which a product is split; of an H100, fits others roughly
LARGEST = 2**31 - 1  # elements that the kernels' 32-bit addresses reach


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


class _Blocks(NamedTuple):
    m: int
    n: int
    k: int
    warps: int
    stages: int


def _forward_blocks(pixels: int, inputs: int, outputs: int, half: bool) -> _Blocks:
    """Block sizes, from timings of the networks' shapes on an H100 (2026-11-22)."""
    n = min(128, power_of_2(outputs))
    if n == 128 and (pixels < 1024 or 128 < outputs <= 192):
        n = 64
    k = min(64, power_of_2(inputs))
    if pixels >= 16384:
        m = 256 if inputs <= 32 and outputs <= 32 else 128
    elif pixels >= 1024:
        m = 64
    else:
        m = 64 if pixels > 256 else 16
    if m == 16:
        n = min(n, 64)
    stages = 3 if m * n >= 128 * 128 else 4
    warps = 8 if m == 256 and inputs > 16 else 4
    if not half:
        k = max(16, k // 2)
    return _Blocks(m, n, k, warps, stages)


def _parts(programs: int, steps: int, wanted: int = 2 * MULTIPROCESSORS) -> int:
    """Into how many parts a sum is split so that all multiprocessors have work."""
    if programs >= MULTIPROCESSORS:
        return 1
    return max(1, min(wanted // programs, steps // 3))


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
    precision: str = "tf32",
) -> Tensor:
    """Write a 3x3 convolution, padded by its dilation, into `y`.

    Parameters
    ----------
    x : (N, C, H, W)
        A map (`as_map`); float32 is converted to the type of the weight.
    weight : (9, K, C)
        float32 or bfloat16, any strides; taps row by row.
    y : (N, K, H / stride, W / stride)
        A map to write to.
    bias : (K,), float32, optional
    slope : float, optional
        Of the LeakyReLU at the end; with `gate`, of the LeakyReLU that gave the gate.
    gate : map like `y`, optional
        Multiply by the derivative of the LeakyReLU whose output this is, instead of applying it.
    flip : bool
        Use the taps in the opposite order: the gradient of a convolution is one with flipped taps
        and transposed weights.
    precision : {"tf32", "ieee"}
        Of float32 products.
    """
    n, inputs, height, width = x.shape
    outputs, out_height, out_width = y.shape[1:]
    pixels = n * out_height * out_width
    blocks = _forward_blocks(pixels, inputs, outputs, weight.dtype != torch.float32)
    grid_m, grid_n = ceil_div(pixels, blocks.m), ceil_div(outputs, blocks.n)
    steps = 9 * ceil_div(inputs, blocks.k)
    split = _parts(grid_m * grid_n, steps)
    split = ceil_div(steps, ceil_div(steps, split))
    partial = y
    if split > 1:
        partial = torch.empty(split * pixels * outputs, dtype=torch.float32, device=x.device)
    epilogue = {
        "SLOPE": 1.0 if slope is None else slope,
        "ACTIVE": slope is not None and gate is None,
        "GATED": gate is not None,
        "BIASED": bias is not None,
    }
    bias = y if bias is None else bias
    gate_pitch = dense_layout(gate).pixel if gate is not None else 0
    gate = y if gate is None else gate
    y_pitch = dense_layout(y).pixel
    convolve[grid_m, grid_n, split](
        x, weight, bias, gate, y, partial,
        height, width, out_height, out_width, pixels, inputs, outputs, split,
        dense_layout(x).pixel, gate_pitch, y_pitch, *weight.stride(),
        STRIDE=stride, DILATION=dilation, FLIP=flip, **epilogue, SPLIT=split > 1,
        BLOCK_M=blocks.m, BLOCK_N=blocks.n, BLOCK_K=blocks.k, PRECISION=precision,
        num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    if split > 1:
        add_parts[(ceil_div(pixels * outputs, 1024),)](
            partial, bias, gate, y, pixels, outputs, split, gate_pitch, y_pitch, **epilogue, BLOCK=1024
        )
    return y


def weight_gradients(x: Tensor, gradient: Tensor, stride: int = 1, dilation: int = 1) -> tuple[Tensor, Tensor]:
    """Gradients of the weight (K, C, 3, 3) and the bias (K,) of a convolution.

    The weight's by cuDNN, which is two to four times faster here than what was written in Triton;
    in the type of `gradient`, summed in float32. The bias's in float32.

    Parameters
    ----------
    x : (N, C, H, W)
        Input of the convolution, a map.
    gradient : (N, K, H / stride, W / stride)
        Gradient of its output, a map.
    """
    outputs, inputs = gradient.shape[1], x.shape[1]
    bias = pixel_sums(gradient)
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


def pixel_sums(x: Tensor) -> Tensor:
    """The sums over images and pixels of a map (N, C, H, W) -> (C,), float32."""
    n, channels, h, w = x.shape
    pixels = n * h * w
    parts = max(1, min(256, pixels // 256))
    each = ceil_div(pixels, parts)
    partial = torch.empty((parts, channels), dtype=torch.float32, device=x.device)
    block = min(128, power_of_2(channels))
    sum_pixels[parts, ceil_div(channels, block)](
        x, partial, pixels, channels, each, dense_layout(x).pixel, BLOCK_M=32, BLOCK_O=block
    )
    return partial.sum(0)
