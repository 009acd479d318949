"""What the kernels agree on: memory layouts, a transposed convolution as a plain one, where Triton may run."""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

OLDEST_CAPABILITY = (7, 0)  # of the GPUs for which Triton generates code


class Layout(NamedTuple):
    """Strides of a feature map whose channels are contiguous, in units of whole pixels.

    Element (n, c, y, x) lies at ``(n * image + y * row + x) * pixel + c``. That the pixel stride is
    one factor of all addresses lets a compiler that knows it as a constant see their alignment.
    """

    pixel: int  # elements from one pixel to the next: at least the channels
    row: int  # pixels
    image: int  # pixels


def layout_of(x: Tensor) -> Layout | None:
    """Layout of an (N, C, H, W) tensor; None if it is no view of channels-last memory."""
    n, c, h, w = x.shape
    sizes_and_strides = ((w, x.stride(3)), (h, x.stride(2)), (n, x.stride(0)))
    # The stride of an axis of one element means nothing: the first axis that moves tells the pixel.
    pixel = next((stride for size, stride in sizes_and_strides if size > 1), c)
    if (c > 1 and x.stride(1) != 1) or pixel < c:
        return None
    if any(size > 1 and stride % pixel for size, stride in sizes_and_strides):
        return None
    row = x.stride(2) // pixel if h > 1 else w
    return Layout(pixel, row, x.stride(0) // pixel if n > 1 else row * h)


def channels_last(x: Tensor) -> Tensor:
    """`x` itself where `layout_of` describes it, else a channels-last copy."""
    if layout_of(x) is not None:
        return x
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def empty_channels_last(n: int, c: int, h: int, w: int, like: Tensor, dtype=None) -> Tensor:
    """An uninitialised (n, c, h, w) tensor of channels-last memory on the device of `like`."""
    memory = torch.empty((n, h, w, c), device=like.device, dtype=dtype or like.dtype)
    return memory.permute(0, 3, 1, 2)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The smallest power of 2 that is at least `n` and 16, the least extent of a tensor core."""
    return max(16, 1 << (n - 1).bit_length())


def triton_runs(device: torch.device) -> bool:
    """Whether a device is a GPU for which Triton is installed and generates code."""
    return device.type == "cuda" and _triton_runs(device.index or 0)


@functools.cache
def _triton_runs(device: int) -> bool:
    try:
        import triton  # noqa: F401, PLC0415 - not every platform has it
    except ImportError:
        return False
    return torch.cuda.get_device_capability(device) >= OLDEST_CAPABILITY


def as_convolution(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A 4x4 transposed convolution of stride 2 and padding 1 as a 3x3 one before a pixel shuffle.

    (C, K, 4, 4), (K,) -> (4 K, C, 3, 3), (4 K,)
    """
    taps = F.pad(weight.flatten(2), (0, 1)).index_select(2, _taps(weight.device)).unflatten(2, (2, 3, 2, 3))
    return taps.permute(1, 2, 4, 0, 3, 5).flatten(0, 2), bias.repeat_interleave(4)


@functools.cache
@torch.inference_mode(False)
def _taps(device: torch.device) -> Tensor:
    """Which of 4x4 taps is tap (i, j) for output (2 y + a, 2 x + b), in the order (a, i, b, j); 16 for none."""
    # Output row 2 y takes the rows y - 1, y of the input by taps 3 and 1, row 2 y + 1 the rows y, y + 1 by 2 and 0.
    one = torch.tensor([3, 1, -1, -1, 2, 0])
    both = torch.where((one[:, None] < 0) | (one < 0), 16, 4 * one[:, None] + one)
    return both.flatten().to(device)
