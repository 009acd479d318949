"""Chains of convolutions on a CPU: by Winograd's method where the size stays, else by PyTorch."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from maskflownet.engine.torch.fused.patterns import Activated, ConvolutionChain, dilation_of, same_convolution
from maskflownet.engine.torch.kernels.frames import Frame
from maskflownet.engine.torch.kernels.threads import Scratch, Task, Threads
from maskflownet.engine.torch.kernels.winograd import (
    POSITIONS,
    Strip,
    TileGrid,
    place_outputs,
    transform_filters,
    transform_inputs,
    transform_outputs,
)
from torch import Tensor

# Transformed numbers of a strip: the inputs and the products of one share the cache of a core.
STRIP = 1 << 20


class WinogradLayer(NamedTuple):
    """A convolution that keeps the size."""

    filters: Tensor  # (36, inputs, outputs)
    bias: Tensor | None
    slope: float | None
    dilation: int

    @property
    def outputs(self) -> int:
        return self.filters.shape[2]

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def covered(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns that are written for an input of a size."""
        return TileGrid(height, width, self.dilation).covered

    def frame(self, height: int, width: int) -> Frame:
        """What the input needs around it."""
        return Frame(height, width, self.dilation, *TileGrid(height, width, self.dilation).padded)

    def tasks(self, memory: Tensor, target: Tensor, size, threads: Threads) -> list[Task]:
        """Of one image: framed memory (rows, columns, C) -> target (>= covered, outputs)."""
        grid = TileGrid(*size, self.dilation)
        widest = max(self.filters.shape[1:])
        tiles = STRIP // (POSITIONS * widest)
        strips = grid.strips(tiles)
        return [partial(self._strip, memory, target, grid, strip) for strip in strips]

    def _strip(self, memory: Tensor, target: Tensor, grid: TileGrid, strip: Strip, scratch: Scratch) -> None:
        _, inputs, outputs = self.filters.shape
        tiles = grid.tiles(strip)
        transformed = scratch.take("inputs", POSITIONS, tiles, inputs)
        transform_inputs(memory, grid, strip, scratch, transformed)
        products = scratch.take("products", POSITIONS, tiles, outputs)
        torch.bmm(transformed, self.filters, out=products)
        results = transform_outputs(products, self.bias, scratch)
        place_outputs(results, self.slope, grid, strip, target)


class DirectLayer(NamedTuple):
    """Any convolution of one group, by PyTorch, in pieces of rows."""

    weight: Tensor  # (outputs, inputs, rows, columns), channels last
    bias: Tensor | None
    slope: float | None
    stride: tuple[int, int]
    padding: int
    dilation: tuple[int, int]

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Of the output for an input of a size."""
        return tuple(
            (length + 2 * self.padding - dilation * (kernel - 1) - 1) // stride + 1
            for length, dilation, kernel, stride in zip(
                (height, width), self.dilation, self.weight.shape[2:], self.stride
            )
        )

    covered = size

    def frame(self, height: int, width: int) -> Frame:
        p = self.padding
        return Frame(height, width, p, height + 2 * p, width + 2 * p)

    def tasks(self, memory: Tensor, target: Tensor, size, threads: Threads) -> list[Task]:
        rows, _ = self.size(*size)
        frame = self.frame(*size)
        memory = memory[: frame.rows, : frame.columns]
        pieces = min(rows, threads.count)
        bounds = [i * rows // pieces for i in range(pieces + 1)]
        return [partial(self._rows, memory, target, first, last) for first, last in zip(bounds, bounds[1:])]

    def _rows(self, memory: Tensor, target: Tensor, first: int, last: int, _: Scratch) -> None:
        reach = self.dilation[0] * (self.weight.shape[2] - 1) + 1
        rows = memory[first * self.stride[0] : (last - 1) * self.stride[0] + reach]
        x = F.conv2d(
            rows.permute(2, 0, 1)[None],
            self.weight, self.bias, self.stride, 0, self.dilation,
        )  # fmt: skip
        x = x[0].permute(1, 2, 0)
        place = target[first:last, : x.shape[1]]
        if self.slope is None:
            place.copy_(x)
        else:
            torch.ops.aten.leaky_relu.out(x, self.slope, out=place)


def pack_chain(chain: ConvolutionChain, parameters: list[Tensor]) -> list:
    """Parameters in the order of ``chain.fusion`` -> the layers."""
    values = iter(parameters)
    return [_pack(layer, [next(values) for _ in layer.parameters]) for layer in chain.layers]


def _pack(layer: Activated, parameters: list[Tensor]) -> WinogradLayer | DirectLayer:
    weight, bias = (*(value.detach() for value in parameters), None)[:2]
    bias = None if bias is None else bias.clone()
    if same_convolution(layer.node):
        return WinogradLayer(transform_filters(weight), bias, layer.slope, dilation_of(layer.node))
    stride, padding, dilation = (
        tuple(layer.node.attrs.get(key, default))
        for key, default in (("stride", (1, 1)), ("pad", (0, 0)), ("dilate", (1, 1)))
    )
    weight = weight.clone(memory_format=torch.channels_last)
    return DirectLayer(weight, bias, layer.slope, stride, padding[0], dilation)


def run_chain(layers: list, x: Tensor, threads: Threads) -> Tensor:
    """(N, C, H, W) of any memory layout -> (N, outputs, h, w), channels last."""
    size = x.shape[2:]
    memory = layers[0].frame(*size).framed([x], threads, "framed")
    for i, layer in enumerate(layers):
        result_size = layer.size(*size)
        covered = layer.covered(*size)
        last = i == len(layers) - 1
        frame = Frame(*result_size, 0, 0, 0) if last else layers[i + 1].frame(*result_size)
        frame = frame.holding(*covered)
        # What the chain returns stays; what it computes in between alternates in two places.
        scratch = None if last else threads.scratch
        result = frame.memory(x.shape[0], layer.outputs, scratch, f"map {i % 2}")
        targets = result[:, frame.before :, frame.before :]
        tasks = [task for image, target in zip(memory, targets) for task in layer.tasks(image, target, size, threads)]
        threads.run(tasks)
        if covered != tuple(result_size):
            frame.clear(result)
        memory, size = result, result_size
    return frame.inside(memory)
