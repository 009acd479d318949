"""What the networks do with two feature maps, on a CPU: correlation, and samples of a map at a flow."""

from functools import partial

import torch
import torch.nn.functional as F
from maskflownet.engine.torch.kernels.threads import Frame, Scratch, Threads
from torch import Tensor

BLOCK = 16  # columns of a block of the correlation
CHUNK = 1 << 22  # elements of gathered features that are held at once


def correlate(a: Tensor, b: Tensor, radius: int, slope: float | None, threads: Threads) -> Tensor:
    """Cost volume of two maps (N, C, H, W), float32 -> (N, (2r + 1)^2, H, W), channels last, through a LeakyReLU.

    For a block of columns, each row of `a` is multiplied with all that it can reach, (2r + 1) rows
    of `b`, in one matrix product, whose diagonals are the result.
    """
    count, _, height, width = a.shape
    columns = -(-width // BLOCK) * BLOCK + 2 * radius
    frame = Frame(height, width, radius, height + 2 * radius, columns)
    framed = frame.framed([b], threads, "framed")
    result = torch.empty(count, height, width, (2 * radius + 1) ** 2)
    threads.run(
        [
            partial(_block, image, others, matches, radius, slope, first)
            for image, others, matches in zip(a.permute(0, 2, 3, 1), framed, result)
            for first in range(0, width, BLOCK)
        ]
    )
    return result.permute(0, 3, 1, 2)


def _block(
    a: Tensor, b: Tensor, matches: Tensor, radius: int, slope: float | None, first: int,
    scratch: Scratch,
) -> None:  # fmt: skip
    """Columns from `first` on of one image: (H, W, C), framed b, (H, W, displacements)."""
    side, reach = 2 * radius + 1, BLOCK + 2 * radius
    features = a[:, first : first + BLOCK]  # (H, columns, C)
    height, columns, channels = features.shape
    # Consecutive rows of b are consecutive memory, so those that a row reaches are one matrix.
    around = scratch.take("around", channels, b.shape[0] * reach)
    near = b[:, first : first + reach].permute(2, 0, 1)
    around.view(near.shape).copy_(near)
    line = side * reach
    near = around.as_strided((height, channels, line), (reach, around.stride(0), 1), around.storage_offset())
    products = scratch.take("products", height, columns, line)
    torch.baddbmm(products, features, near, beta=0, alpha=1 / channels, out=products)
    # Displacement (dy, dx) of column i is element dy reach + i + dx of its row.
    diagonals = products.as_strided((height, columns, side, side), (columns * line, line + 1, reach, 1))
    place = matches[:, first : first + columns]
    place.unflatten(2, (side, side)).copy_(diagonals)
    if slope is not None:
        F.leaky_relu_(place, slope)


def gather_taps(features, pixels, shift, kernel, size) -> Tensor:
    """The convolution at P pixels by its definition: nine samples each; -> (P, K)."""
    taps = torch.arange(9, device=pixels.device)
    taps = torch.stack([taps // 3, taps % 3], dim=1) - 1  # (9, 2)
    matrix = kernel.permute(2, 3, 1, 0).flatten(0, 2)  # (9 C, K)
    step = max(1, CHUNK // matrix.shape[0])
    parts = [
        sample_shifted(features, some[:, None] + taps, moved, size).flatten(1) @ matrix
        for some, moved in zip(pixels.split(step), shift.split(step))
    ]
    return torch.cat(parts)


def sample_shifted(features: Tensor, pixels: Tensor, shift: Tensor, size) -> Tensor:
    """Bilinear samples of (C, H, W) at (P, T, 2) pixels + (P, 2) -> (P, T, C), MXNet's border."""
    height, width = size
    y, x = (pixels + shift[:, None]).unbind(-1)  # (P, T)
    valid = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = (torch.where(valid, axis, torch.zeros_like(axis)) for axis in (y, x))
    top, left = y.detach().floor(), x.detach().floor()
    fy, fx = y - top, x - left
    top, left = top.to(torch.int32), left.to(torch.int32)
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    index = [top * width + left, top * width + right, bottom * width + left, bottom * width + right]
    share = [(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]
    share = torch.stack(share, dim=-1) * valid[..., None].to(fy.dtype)
    rows = features.permute(1, 2, 0).flatten(0, 1)  # (H W, C)
    samples = F.embedding_bag(
        torch.stack(index, dim=-1).flatten(0, 1), rows, per_sample_weights=share.flatten(0, 1), mode="sum"
    )
    return samples.unflatten(0, y.shape)
