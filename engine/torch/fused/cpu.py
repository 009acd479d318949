"""Executes a network's graph on a CPU, for prediction several times faster than node by node."""

import threading
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from maskflownet.engine.symbol import Graph
from maskflownet.engine.torch.fused.plan import Layer, Piece, fused_graph
from maskflownet.engine.torch.kernels.cpu import (
    POSITIONS,
    TILE,
    Frame,
    Scratch,
    Strip,
    Task,
    Threads,
    TileGrid,
    correlate,
    gather_taps,
    place_outputs,
    sample_shifted,
    split,
    transform_filters,
    transform_inputs,
    transform_outputs,
)
from maskflownet.engine.torch.kernels.layout import as_convolution
from maskflownet.engine.torch.module import GraphModule
from maskflownet.engine.torch.operators import OPERATORS
from torch import Tensor

# Of a chain, transformed numbers of a strip: the inputs and the products of one share the cache of a core.
STRIP = 1 << 20
PIECE = 8192  # pixels of a deformable convolution that are worth a piece: with fewer, threads hinder one another
# Of a dense block:
TILES = 256  # of a strip, less where that gives the threads too few
LEAST = 64  # tiles of a strip, fewer are one strip whose products the threads share
LAG = 2  # strips between a convolution and the next, which takes three strips of its result


class CPUNetwork(GraphModule):
    """A network's graph as a module with `GraphModule`'s parameters and results.

    Without gradients it computes fused nodes; where a gradient may be asked for, and for anything
    but float32 on a CPU, it is `GraphModule`. Transformed parameters and intermediate memory are
    kept from call to call. Raises ValueError if the graph is not wired as the names of its layers say.
    """

    def __init__(self, graph: Graph):
        kinds = {
            "dense_block": self._dense_block,
            "chain": self._chain,
            "correlation": self._correlation,
            "deformable": self._deformable,
        }
        super().__init__(fused_graph(graph), {**OPERATORS, **kinds})
        self._threads, self._lock = Threads(), threading.Lock()
        self._packed: dict[str, tuple[list, object]] = {}
        self.plain = GraphModule(graph, owner=self)

    def parameters_changed(self) -> None:
        """To be called after a change that PyTorch does not count, such as through ``.data``."""
        self._packed.clear()

    def release(self) -> None:
        """Give back the memory that is kept from call to call."""
        with self._lock:
            self._packed.clear()
            self._threads.release()

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        if torch.is_grad_enabled() or not self._all_float32_on_cpu(inputs):
            return self.plain(*inputs)
        with self._lock, self._threads:
            return super().forward(*inputs)

    def _all_float32_on_cpu(self, inputs) -> bool:
        parameters = (getattr(owner, leaf) for owner, leaf in self._leaves.values())
        return all(value.dtype == torch.float32 and value.device.type == "cpu" for value in (*inputs, *parameters))

    def _dense_block(self, inputs: list[Tensor], attrs) -> tuple[Tensor, ...]:
        piece = attrs["piece"]
        packed = self._pack(attrs["name"], inputs[piece.parts :], partial(_pack_block, piece, self._threads))
        return tuple(_run_block(packed, inputs[: piece.parts], self._threads))

    def _chain(self, inputs: list[Tensor], attrs) -> Tensor:
        piece = attrs["piece"]
        layers = self._pack(attrs["name"], inputs[piece.parts :], partial(_pack_chain, piece, self._threads))
        x = inputs[0] if piece.parts == 1 else torch.cat(inputs[: piece.parts])
        return _run_chain(layers, x, self._threads)

    def _correlation(self, inputs: list[Tensor], attrs) -> Tensor:
        return correlate(*inputs, attrs["radius"], attrs["slope"], self._threads)

    def _deformable(self, inputs: list[Tensor], attrs) -> Tensor:
        x, offset, weight, bias, *others = inputs
        mask = others.pop(0) if attrs["masked"] else None
        residual = others.pop(0) if attrs["residual"] else None
        packed = self._pack(attrs["name"], [weight, bias], partial(_pack_deformable, self._threads))
        # Convolved without offsets, the result is sampled once instead of nine times, except near the border.
        plain = _run_chain([packed.plain], x, self._threads).contiguous(memory_format=torch.channels_last)
        call = _Deformable(packed, x, plain, offset, mask, residual, attrs["slope"], torch.empty_like(plain))
        height, width = x.shape[2:]
        bands = split(height, max(1, min(self._threads.count, height, height * width // PIECE)))
        self._threads.run([partial(call.rows, image, rows) for image in range(x.shape[0]) for rows in bands])
        return call.result

    def _pack(self, name: str, parameters: list[Tensor], pack: Callable):
        """What `pack` made of the parameters, anew if they have changed."""
        state = [(v.data_ptr(), None if v.is_inference() else v._version) for v in parameters]
        known, packed = self._packed.get(name, (None, None))
        if known != state:
            # Not inference tensors, which a later call without inference mode could not use.
            with torch.inference_mode(False), torch.no_grad():
                packed = pack([parameter.detach() for parameter in parameters])
            self._packed[name] = state, packed
        return packed


class WinogradLayer(NamedTuple):
    """A convolution of stride 1, by Winograd's method."""

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
        grid, widest = TileGrid(*size, self.dilation), max(self.filters.shape[1:])
        strips = grid.strips(STRIP // (POSITIONS * widest))
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
    """A convolution with a stride, by PyTorch, in pieces of rows."""

    weight: Tensor  # (outputs, inputs, 3, 3), channels last
    bias: Tensor
    slope: float | None
    stride: int

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Of the output for an input of a size."""
        return -(-height // self.stride), -(-width // self.stride)

    covered = size

    def frame(self, height: int, width: int) -> Frame:
        return Frame(height, width, 1, height + 2, width + 2)

    def tasks(self, memory: Tensor, target: Tensor, size, threads: Threads) -> list[Task]:
        rows, _ = self.size(*size)
        frame = self.frame(*size)
        memory = memory[: frame.rows, : frame.columns]
        return [partial(self._rows, memory, target, some) for some in split(rows, min(rows, threads.count))]

    def _rows(self, memory: Tensor, target: Tensor, some: slice, _: Scratch) -> None:
        rows = memory[some.start * self.stride : (some.stop - 1) * self.stride + 3]
        x = F.conv2d(rows.permute(2, 0, 1)[None], self.weight, self.bias, self.stride)
        x = x[0].permute(1, 2, 0)
        torch.ops.aten.leaky_relu.out(x, 1.0 if self.slope is None else self.slope, out=target[some, : x.shape[1]])


def _pack_chain(piece: Piece, threads: Threads, parameters: list[Tensor]) -> list:
    return [_pack_layer(*layer, threads) for layer in zip(piece.layers, parameters[::2], parameters[1::2])]


def _pack_layer(layer: Layer, weight: Tensor, bias: Tensor, threads: Threads) -> WinogradLayer | DirectLayer:
    if layer.stride == 1:
        return WinogradLayer(transform_filters(weight, threads), bias.clone(), layer.slope, layer.dilation)
    return DirectLayer(weight.clone(memory_format=torch.channels_last), bias.clone(), layer.slope, layer.stride)


def _run_chain(layers: list, x: Tensor, threads: Threads) -> Tensor:
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


class PackedDeformable(NamedTuple):
    plain: WinogradLayer  # the convolution without offsets, without bias
    weight: Tensor  # (outputs, inputs, 3, 3), a view of contiguous (3, 3, inputs, outputs)
    bias: Tensor


def _pack_deformable(threads: Threads, parameters: list[Tensor]) -> PackedDeformable:
    weight, bias = parameters
    plain = WinogradLayer(transform_filters(weight, threads), None, None, 1)
    weight = weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    return PackedDeformable(plain, weight, bias.clone())


class _Deformable(NamedTuple):
    """``leaky((sampled convolution + bias) * mask + residual)`` of maps (N, C, H, W)."""

    packed: PackedDeformable
    x: Tensor
    plain: Tensor  # its convolution without offsets and bias
    offset: Tensor  # (N, 2, H, W), px, (y, x)
    mask: Tensor | None
    residual: Tensor | None
    slope: float | None
    result: Tensor

    def rows(self, image: int, rows: slice, _: Scratch) -> None:
        """Compute some rows of one image."""
        size = self.x.shape[2:]
        axes = torch.arange(rows.start, rows.stop), torch.arange(size[1])
        pixels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)  # (P, 2)
        shift = self.offset[image, :, rows].permute(1, 2, 0).flatten(0, 1)  # (P, 2), px, (y, x)
        centre = pixels + shift
        # Half a pixel of margin: the rounding of a coordinate must not decide.
        inner = ((centre > 1.5) & (centre < torch.tensor(size) - 2.5)).all(dim=1)
        near = (~inner).nonzero().squeeze(1)
        values = sample_shifted(self.plain[image], pixels[:, None], shift, size).squeeze(1)  # (P, outputs)
        if near.numel():
            values.index_copy_(0, near, gather_taps(self.x[image], pixels[near], shift[near], self.packed.weight, size))
        values += self.packed.bias
        values = values.unflatten(0, (-1, size[1]))  # (rows, W, outputs)
        if self.mask is not None:
            values *= self.mask[image, :, rows].permute(1, 2, 0)
        if self.residual is not None:
            values += self.residual[image, :, rows].permute(1, 2, 0)
        place = self.result[image, :, rows].permute(1, 2, 0)
        torch.ops.aten.leaky_relu.out(values, 1.0 if self.slope is None else self.slope, out=place)


class Stage(NamedTuple):
    """A convolution of all maps that exist so far: the parts, then results of earlier stages."""

    filters: list[Tensor]  # (36, inputs, outputs) of each map
    bias: Tensor


class PackedBlock(NamedTuple):
    piece: Piece
    stages: list[Stage]  # the convolutions, and all heads as one: those that double as before a pixel shuffle


def _pack_block(piece: Piece, threads: Threads, parameters: list[Tensor]) -> PackedBlock:
    pairs = list(zip(parameters[::2], parameters[1::2]))
    count, widths = len(piece.layers), [layer.channels for layer in piece.layers]
    stages = [_stage(*pairs[i], widths[:i], threads) for i in range(count)]
    joined = [as_convolution(*pair) if head.doubles else pair for head, pair in zip(piece.heads, pairs[count:])]
    weights, biases = zip(*joined)
    stages.append(_stage(torch.cat(weights), torch.cat(biases), widths, threads))
    return PackedBlock(piece, stages)


def _stage(weight: Tensor, bias: Tensor, widths: list[int], threads: Threads) -> Stage:
    """`widths` are those of the earlier convolutions; the newest comes first in the weight."""
    parts = weight.shape[1] - sum(widths)
    pieces = weight.split([*widths[::-1], parts], dim=1)[::-1]
    return Stage([transform_filters(piece, threads) for piece in pieces], bias.clone())


def _run_block(packed: PackedBlock, parts: list[Tensor], threads: Threads) -> list[Tensor]:
    """Parts (N, c, H, W) of any memory layout -> results of the heads (N, C, h, w)."""
    batch, _, height, width = parts[0].shape
    grid = TileGrid(height, width, 1)
    frame = Frame(height, width, 1, *grid.padded)
    maps = [frame.framed(parts, threads, "map 0")]
    for i, stage in enumerate(packed.stages[:-1], 1):
        maps.append(frame.memory(batch, stage.bias.numel(), threads.scratch, f"map {i}"))
    heads = packed.piece.heads
    outputs = [torch.empty(batch, *grid.covered, head.channels * (4 if head.doubles else 1)) for head in heads]
    for image in range(batch):
        _Pass(packed, frame, [memory[image] for memory in maps], [output[image] for output in outputs], threads).run()
    return [_result(head, output[:, :height, :width]) for head, output in zip(heads, outputs)]


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

    def _sum(self, i: int, number: int, positions: slice, products: Tensor, _: Scratch | None = None) -> None:
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
        shares = split(POSITIONS, self.threads.count)
        self.threads.run([partial(self._sum, i, 0, share, products) for share in shares])
        return products

    def _finish(self, i: int, number: int, products: Tensor, scratch: Scratch) -> None:
        """Put the results of a strip of stage i where they belong."""
        outputs = transform_outputs(products, self.packed.stages[i].bias, scratch)
        strip = self.strips[number]
        if i < self.last:
            target = self.maps[i + 1][1:, 1:]
            place_outputs(outputs, self.packed.piece.layers[i].slope, self.grid, strip, target)
            if self.grid.covered != self.grid[:2]:
                self.frame.clear(self.maps[i + 1])
            return
        widths = [target.shape[2] for target in self.outputs]
        for head, values, target in zip(self.packed.piece.heads, outputs.split(widths, 2), self.outputs):
            place_outputs(values, head.slope, self.grid, strip, target)


def _result(head: Layer, output: Tensor) -> Tensor:
    """(N, h, w, channels) -> (N, C, H, W)."""
    if not head.doubles:
        return output.permute(0, 3, 1, 2)
    batch, height, width, channels = output.shape
    output = output.reshape(batch, height, width, channels // 4, 2, 2).permute(0, 1, 4, 2, 5, 3)
    return output.reshape(batch, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)
