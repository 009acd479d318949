"""What the kernels agree on: the memory layout of feature maps, and where Triton may run."""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

import torch
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


def layout_to_write(out: Tensor) -> Layout:
    """Layout of a tensor that a caller gave for the result; ValueError if kernels cannot write."""
    layout = layout_of(out)
    if layout is None:
        raise ValueError(f"the result needs channels-last memory, not strides {out.stride()}")
    return layout


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The smallest power of 2 that is at least `n` and 16, the least extent of a tensor core."""
    return max(16, 1 << (n - 1).bit_length())


def float32_precision() -> str:
    """How float32 is multiplied: "ieee" or "tf32", by ``torch.set_float32_matmul_precision``."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def uses_triton(x: Tensor) -> bool:
    """Whether `x` is on a GPU for which Triton is installed and generates code."""
    return triton_runs(x.device)


def triton_runs(device: torch.device) -> bool:
    """Whether a device is a GPU for which Triton is installed and generates code."""
    return device.type == "cuda" and _triton_runs(device.index or 0)


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on tensors of the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _triton_runs(device: int) -> bool:
    try:
        import triton  # noqa: F401, PLC0415 - not every platform has it
    except ImportError:
        return False
    return torch.cuda.get_device_capability(device) >= OLDEST_CAPABILITY
