"""Correlation of two feature maps: the cost volume of the networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from maskflownet.engine.torch.kernels.layout import float32_precision, uses_triton
from torch import Tensor

BLOCK = 16  # pixels of a row whose products with their neighbours are one matrix


def correlation(
    a: Tensor,
    b: Tensor,
    radius: int,
    slope: float | None = None,
    out: Tensor | None = None,
    precision: str | None = None,
) -> Tensor:
    """Cost volume of two feature maps.

    ``out[(dy + r)(2r + 1) + dx + r, y, x] = mean_c a[c, y, x] b[c, y + dy, x + dx]``, where `b` is
    zero outside. Differentiable in `a` and `b`, once. On a GPU a Triton kernel, elsewhere
    `correlation_reference`.

    Parameters
    ----------
    a, b : (N, C, H, W)
        Features of one type, best in channels-last memory (slices of wider maps too).
    radius : int
        Largest displacement r, feature pixels.
    slope : float, optional
        Of the LeakyReLU to apply to the result; at least 0.
    out : (N, (2r + 1)^2, H, W), optional
        A channels-last view to write to; only without gradients.
    precision : {"tf32", "ieee"}, optional
        Of float32 products on a GPU; by default ``torch.get_float32_matmul_precision()``.

    Returns
    -------
    (N, (2r + 1)^2, H, W), type of `a`; on a GPU in channels-last memory.
    """
    if uses_triton(a):
        from maskflownet.engine.torch.kernels.correlation_triton import correlate  # noqa: PLC0415 - needs Triton

        return correlate(a, b, radius, slope, out, precision or float32_precision())
    result = correlation_reference(a, b, radius)
    if slope is not None:
        result = F.leaky_relu(result, slope)
    return result if out is None else out.copy_(result)


def correlation_reference(a: Tensor, b: Tensor, radius: int) -> Tensor:
    """`correlation` in plain differentiable torch operators, float32 or float64 inside.

    A block of a row of `a` times the block of a row of `b` that it can reach is one small matrix
    product, whose diagonals are the cost volume.
    """
    n, c, h, w = a.shape
    side = 2 * radius + 1
    blocks = -(-w // BLOCK)
    wide = torch.promote_types(a.dtype, torch.float32)
    tail = blocks * BLOCK - w
    rows = F.pad(a.to(wide).permute(0, 2, 3, 1), (0, 0, 0, tail))
    rows = rows.reshape(n, h, blocks, BLOCK, c)
    border = (radius, radius + tail, radius, radius)
    reach = F.pad(b.to(wide), border).permute(0, 2, 1, 3)  # (N, H + 2r, C, W')
    reach = reach.unfold(3, BLOCK + 2 * radius, BLOCK).permute(0, 1, 3, 2, 4)
    reach = reach.contiguous()  # (N, H + 2r, blocks, C, BLOCK + 2r)
    result = torch.stack(
        [_diagonals(rows @ reach[:, dy : dy + h], side) for dy in range(side)], dim=4
    )  # (N, H, blocks, BLOCK, side, side)
    result = result.reshape(n, h, blocks * BLOCK, side * side)[:, :, :w] / c
    memory = torch.contiguous_format
    if a.is_contiguous(memory_format=torch.channels_last) and not a.is_contiguous():
        memory = torch.channels_last
    return result.permute(0, 3, 1, 2).to(a.dtype).contiguous(memory_format=memory)


def _diagonals(products: Tensor, side: int) -> Tensor:
    """``out[..., i, d] = products[..., i, i + d]`` of (..., I, I + side - 1) matrices."""
    height, width = products.shape[-2:]
    # In rows of one element more, what lay on a diagonal lies in a column.
    flat = F.pad(products.flatten(-2), (0, height))
    return flat.unflatten(-1, (height, width + 1))[..., :side]
