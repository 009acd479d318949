"""A dense block with its heads on a CPU, without any concatenation.

Every map is transformed once for Winograd's method, and a convolution of a concatenation sums the
products of its parts. All convolutions of the block advance together over the rows of the image,
each two strips behind the one before it, so that only a few strips of transformed maps exist and
the convolutions can be computed at the same time.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from maskflownet.engine.torch.fused.patterns import Activated, DenseBlock
from maskflownet.engine.torch.kernels.frames import Frame
from maskflownet.engine.torch.kernels.threads import Scratch, Threads
from maskflownet.engine.torch.kernels.winograd import (
    POSITIONS,
    TILE,
    Strip,
    TileGrid,
    place_outputs,
    transform_filters,
    transform_inputs,
    transform_outputs,
)
from torch import Tensor

TILES = 256  # of a strip, less where that gives the threads too few
LEAST = 64  # tiles of a strip, fewer are one strip whose products the threads share
LAG = 2  # strips between a convolution and the next, which takes three strips of its result


class Stage(NamedTuple):
    """A convolution of all maps that exist so far: the parts, then results of earlier stages."""

    filters: list[Tensor]  # (36, inputs, outputs) of each map
    bias: Tensor


class Head(NamedTuple):
    """A slice of the last stage's outputs."""

    channels: slice
    slope: float | None
    doubled: bool  # a transposed convolution, whose outputs at (ry, rx, channel) are interleaved


class PackedBlock(NamedTuple):
    stages: list[Stage]  # the convolutions, and all heads as one
    slopes: list[float | None]  # of the convolutions
    heads: list[Head]


def pack_block(block: DenseBlock, parameters: list[Tensor]) -> PackedBlock:
    """Parameters in the order of ``block.fusion`` -> what `run_block` needs."""
    values = iter(parameters)
    packed = [_plain(layer, [next(values) for _ in layer.parameters]) for layer in block.layers]
    count = len(block.convolutions)
    widths = [layer.channels for layer in block.convolutions]
    stages = [_stage(*packed[i], widths[:i]) for i in range(count)]
    weights, biases = zip(*packed[count:])
    stages.append(_stage(torch.cat(weights), torch.cat(biases), widths))
    heads, first = [], 0
    for layer, (weight, _) in zip(block.heads, packed[count:]):
        channels = slice(first, first + weight.shape[0])
        heads.append(Head(channels, layer.slope, layer.node.op == "Deconvolution"))
        first = channels.stop
    return PackedBlock(stages, [layer.slope for layer in block.convolutions], heads)


def _plain(layer: Activated, parameters: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Weight (outputs, inputs, 3, 3) and bias; a transposed convolution as a plain one.

    Output (2 y + ry, 2 x + rx) of the transposed convolution of stride 2 takes 2x2 of the 3x3
    inputs around (y, x), so it is output (ry, rx, channel) of a 3x3 convolution at (y, x).
    """
    weight, bias = (*(value.detach() for value in parameters), None)[:2]
    if layer.node.op == "Deconvolution":
        inputs, outputs = weight.shape[:2]
        taps = weight.new_zeros(2, 2, outputs, inputs, 3, 3)
        # Input y + e reaches output 2 y + r through element r + 1 - 2 e of the kernel.
        elements = [(r, e, r + 1 - 2 * e) for r in (0, 1) for e in (-1, 0, 1)]
        elements = [element for element in elements if 0 <= element[2] < 4]
        for ry, ey, ky in elements:
            for rx, ex, kx in elements:
                taps[ry, rx, :, :, ey + 1, ex + 1] = weight[:, :, ky, kx].t()
        weight = taps.flatten(0, 2)
        bias = None if bias is None else bias.repeat(4)
    return weight, weight.new_zeros(weight.shape[0]) if bias is None else bias.clone()


def _stage(weight: Tensor, bias: Tensor, widths: list[int]) -> Stage:
    """`widths` are those of the earlier convolutions; the newest comes first in the weight."""
    parts = weight.shape[1] - sum(widths)
    pieces = weight.split([*widths[::-1], parts], dim=1)[::-1]
    return Stage([transform_filters(piece) for piece in pieces], bias)


def run_block(packed: PackedBlock, parts: list[Tensor], threads: Threads) -> list[Tensor]:
    """Parts (N, c, H, W) of any memory layout -> results of the heads (N, C, h, w)."""
    batch, _, height, width = parts[0].shape
    grid = TileGrid(height, width, 1)
    frame = Frame(height, width, 1, *grid.padded)
    maps = [frame.framed(parts, threads, "map 0")]
    for i, stage in enumerate(packed.stages[:-1], 1):
        maps.append(frame.memory(batch, stage.bias.numel(), threads.scratch, f"map {i}"))
    outputs = [torch.empty(batch, *grid.covered, _width(head)) for head in packed.heads]
    for image in range(batch):
        _Pass(packed, frame, [memory[image] for memory in maps], [output[image] for output in outputs], threads).run()
    return [_result(head, output[:, :height, :width]) for head, output in zip(packed.heads, outputs)]


class _Pass:
    """The block on one image.

    Stage i transforms a strip of map i and computes from it, and from this strip of the maps before
    it, a strip of map i + 1, the last stage the heads.
    """

    def __init__(self, packed: PackedBlock, frame: Frame, maps, outputs, threads: Threads):
        self.packed, self.frame, self.maps, self.outputs = packed, frame, maps, outputs
        self.threads = threads
        self.grid = TileGrid(frame.height, frame.width, 1)
        self.strips = self._strips()
        tiles = max(map(self.grid.tiles, self.strips))
        self.last = len(maps) - 1
        # From the transform of a strip to its use by the last stage, and one more to work ahead.
        self.slots = [LAG * (self.last - i) + 2 for i in range(len(maps))]
        self.transformed = [
            threads.scratch.take(f"transformed {i}", slots, POSITIONS * tiles * memory.shape[2])
            for i, (slots, memory) in enumerate(zip(self.slots, maps))
        ]

    def _strips(self) -> list[Strip]:
        """At least two for each thread, or a single one where these would be too small."""
        rows, columns = (length // TILE for length in self.grid.covered)
        share = rows * columns // (2 * self.threads.count)
        return list(self.grid.strips(min(TILES, share) if share >= LEAST else rows * columns))

    def run(self) -> None:
        if len(self.strips) == 1:
            for i in range(len(self.maps)):
                self._transform(i, 0, self.threads.scratch)
                self._finish(i, 0, self._sum_together(i), self.threads.scratch)
            return
        steps = range(len(self.strips) + LAG * self.last)
        pairs = [(i, step - LAG * i) for step in steps for i in range(len(self.maps))]
        pairs = [(i, number) for i, number in pairs if 0 <= number < len(self.strips)]
        order = {pair: place for place, pair in enumerate(pairs)}
        needs = [[order[needed] for needed in self._needs(*pair) if needed in order] for pair in pairs]
        self.threads.run([partial(self._compute, *pair) for pair in pairs], needs)

    def _needs(self, i: int, number: int) -> list[tuple[int, int]]:
        """What must be computed before strip `number` of stage i."""
        around = [(i - 1, number + near) for near in (-1, 0, 1)]  # none for the first stage
        return [*around, (self.last, number - self.slots[i])]  # the last to read its memory

    def _compute(self, i: int, number: int, scratch: Scratch) -> None:
        self._transform(i, number, scratch)
        filters, bias = self.packed.stages[i]
        tiles = self.grid.tiles(self.strips[number])
        products = scratch.take("products", POSITIONS, tiles, bias.numel())
        self._sum(i, number, slice(None), products)
        self._finish(i, number, products, scratch)

    def _transform(self, i: int, number: int, scratch: Scratch) -> None:
        inputs = self._inputs(i, number)
        transform_inputs(self.maps[i], self.grid, self.strips[number], scratch, inputs)

    def _inputs(self, i: int, number: int) -> Tensor:
        """Memory of a strip of map i, transformed."""
        tiles, channels = self.grid.tiles(self.strips[number]), self.maps[i].shape[2]
        piece = self.transformed[i][number % self.slots[i]]
        return piece[: POSITIONS * tiles * channels].view(POSITIONS, tiles, channels)

    def _sum(self, i: int, number: int, positions: slice, products: Tensor) -> None:
        """The products of stage i at some positions of a strip, summed over the maps."""
        total, filters = products[positions], self.packed.stages[i].filters
        torch.bmm(self._inputs(0, number)[positions], filters[0][positions], out=total)
        for j in range(1, i + 1):
            x = self._inputs(j, number)[positions]
            torch.baddbmm(total, x, filters[j][positions], out=total)

    def _sum_together(self, i: int) -> Tensor:
        """All products of stage i in one strip, the positions divided among the threads."""
        tiles, channels = self.grid.tiles(self.strips[0]), self.packed.stages[i].bias.numel()
        products = self.threads.scratch.take("products", POSITIONS, tiles, channels)
        count = self.threads.count
        bounds = [j * POSITIONS // count for j in range(count + 1)]
        shares = [slice(*pair) for pair in zip(bounds, bounds[1:])]
        self.threads.run([partial(self._share, i, share, products) for share in shares])
        return products

    def _share(self, i: int, positions: slice, products: Tensor, _: Scratch) -> None:
        self._sum(i, 0, positions, products)

    def _finish(self, i: int, number: int, products: Tensor, scratch: Scratch) -> None:
        """Put the results of a strip of stage i where they belong."""
        outputs = transform_outputs(products, self.packed.stages[i].bias, scratch)
        strip = self.strips[number]
        if i < self.last:
            target = self.maps[i + 1][1:, 1:]
            place_outputs(outputs, self.packed.slopes[i], self.grid, strip, target)
            if self.grid.covered != self.grid[:2]:
                self.frame.clear(self.maps[i + 1])
            return
        for head, target in zip(self.packed.heads, self.outputs):
            values = outputs[:, :, head.channels]
            place_outputs(values, head.slope, self.grid, strip, target)


def _width(head: Head) -> int:
    return head.channels.stop - head.channels.start


def _result(head: Head, output: Tensor) -> Tensor:
    """(N, h, w, channels) -> (N, C, H, W)."""
    if not head.doubled:
        return output.permute(0, 3, 1, 2)
    batch, height, width, channels = output.shape
    output = output.reshape(batch, height, width, 2, 2, channels // 4)
    output = output.permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)
    return output.permute(0, 3, 1, 2)
