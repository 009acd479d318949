"""Correlation with its activation on a CPU, for prediction."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from maskflownet.engine.torch.kernels.frames import Frame
from maskflownet.engine.torch.kernels.threads import Scratch, Threads
from torch import Tensor

BLOCK = 16  # columns of a block


def correlate(a: Tensor, b: Tensor, radius: int, slope: float | None, threads: Threads) -> Tensor:
    """The cost volume of `maskflownet.engine.torch.kernels.correlation`, through its LeakyReLU.

    For a block of columns, each row of `a` is multiplied with all that it can reach, (2r + 1) rows
    of `b`, in one matrix product, whose diagonals are the result.

    Parameters
    ----------
    a, b : (N, C, H, W), float32
        Best in channels-last memory.
    radius : int
        Largest displacement r, feature pixels.
    slope : float or None
        Of the LeakyReLU to apply to the result.
    threads : Threads

    Returns
    -------
    (N, (2r + 1)^2, H, W), channels last.
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
