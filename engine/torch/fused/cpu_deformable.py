"""Deformable convolution with one offset for all taps on a CPU, for prediction."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from maskflownet.engine.torch.fused.cpu_chain import WinogradLayer, run_chain
from maskflownet.engine.torch.kernels.deformable import gather_taps, sample_shifted
from maskflownet.engine.torch.kernels.threads import Scratch, Threads
from maskflownet.engine.torch.kernels.winograd import transform_filters
from torch import Tensor

PIECE = 8192  # pixels that are worth a piece: with fewer, threads hinder one another


class PackedDeformable(NamedTuple):
    plain: WinogradLayer  # the convolution without offsets, without bias
    weight: Tensor  # (outputs, inputs, 3, 3), a view of contiguous (3, 3, inputs, outputs)
    bias: Tensor


def pack_deformable(parameters: list[Tensor]) -> PackedDeformable:
    weight, bias = (parameter.detach().clone() for parameter in parameters)
    plain = WinogradLayer(transform_filters(weight), None, None, 1)
    weight = weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    return PackedDeformable(plain, weight, bias)


def deform(
    packed: PackedDeformable,
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    residual: Tensor | None,
    slope: float | None,
    threads: Threads,
) -> Tensor:
    """`maskflownet.engine.torch.kernels.deformable.deformable`; x (N, C, H, W) is best in channels-last memory.

    As there, a plain convolution is sampled once, except near the border.
    """
    height, width = x.shape[2:]
    plain = run_chain([packed.plain], x, threads)
    plain = plain.contiguous(memory_format=torch.channels_last)
    result = torch.empty_like(plain)
    pieces = max(1, min(threads.count, height, height * width // PIECE))
    bounds = [i * height // pieces for i in range(pieces + 1)]
    threads.run(
        [
            partial(_rows, packed, image, x, plain, offset, mask, residual, slope, rows, result)
            for image in range(x.shape[0])
            for rows in map(slice, bounds, bounds[1:])
        ]
    )
    return result


def _rows(
    packed: PackedDeformable, image: int, x, plain, offset, mask, residual, slope, rows: slice,
    result: Tensor, _: Scratch,
) -> None:  # fmt: skip
    """Some rows of one image."""
    size = x.shape[2:]
    axes = torch.arange(rows.start, rows.stop), torch.arange(size[1])
    pixels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)  # (P, 2)
    shift = offset[image, :, rows].permute(1, 2, 0).flatten(0, 1)  # (P, 2), px, (y, x)
    centre = pixels + shift
    # Half a pixel of margin: the rounding of a coordinate must not decide.
    inner = ((centre > 1.5) & (centre < torch.tensor(size) - 2.5)).all(dim=1)
    near = (~inner).nonzero().squeeze(1)
    values = sample_shifted(plain[image], pixels[:, None], shift, size).squeeze(1)  # (P, outputs)
    if near.numel():
        values.index_copy_(0, near, gather_taps(x[image], pixels[near], shift[near], packed.weight, size))
    values += packed.bias
    values = values.unflatten(0, (-1, size[1]))  # (rows, W, outputs)
    if mask is not None:
        values *= mask[image, :, rows].permute(1, 2, 0)
    if residual is not None:
        values += residual[image, :, rows].permute(1, 2, 0)
    place = result[image, :, rows].permute(1, 2, 0)
    if slope is None:
        place.copy_(values)
    else:
        torch.ops.aten.leaky_relu.out(values, slope, out=place)
