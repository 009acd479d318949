"""What the fused network of CPUs computes with: threads, framed maps, 3x3 convolutions, correlation, samples.

PyTorch itself divides each of its operations among its threads, which wait for one another after each.
Where an operation takes less than a millisecond, that waiting costs a quarter of the time on an idle
machine, and most of it on a busy one. Here a thread goes through all operations of a piece on its own,
in memory that stays in the cache of its core.

3x3 convolutions take a quarter of the multiplications by Winograd's F(4x4, 3x3).
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (arXiv 1509.09308):
4x4 outputs y of a filter g come from the 6x6 inputs x around them by

    y = A^T [(G g G^T) * (B^T x B)] A

where * multiplies by element and is summed over the input channels: 36 matrix products, (tiles,
inputs) by (inputs, outputs). The sum may be over several maps, so a convolution of a concatenation
needs none, and a map that several convolutions take is transformed once.

The interpolation points are 0, +-2/3, +-3/2 and infinity instead of the paper's 0, +-1, +-2: on
random data that makes float32's rounding error four times smaller, and a transform that is a matrix
product costs the same for any point.

Everything is written into memory of the caller in pieces, `Strip`s, that a core's cache can hold.
A map is (rows, columns, channels), channels contiguous, framed by the convolution's zero padding. A
dilated convolution is one of each d-th row and column, so that its tiles of a row of pixels are the
plain ones of pixels with d times the channels.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MOST = 4  # threads that take pieces; with more cores, each computes with several of PyTorch's
LARGE = 1 << 18  # elements of a map that several threads copy
TILE = 4  # outputs of a tile along an axis
REACH = 6  # inputs of a tile along an axis
POSITIONS = REACH * REACH  # of a transformed tile: 6 column + row
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
BLOCK = 16  # columns of a block of the correlation
FILTERS = 1 << 13  # filters that are transformed at once: what they need in float64 stays in the cache
CHUNK = 1 << 22  # elements of gathered features that are held at once


class Scratch:
    """Named pieces of memory that are used again, since new memory costs more than its use."""

    def __init__(self):
        self._pieces: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Uninitialised float32 memory; what was taken under this name before is lost."""
        size = math.prod(shape)
        piece = self._pieces.get(name)
        if piece is None or piece.numel() < size:
            # An inference tensor could not be written in a later call without inference mode.
            with torch.inference_mode(False):
                piece = self._pieces[name] = torch.empty(size)
        return piece[:size].view(shape)


Task = Callable[[Scratch], None]


class Threads:
    """The calling thread and its helpers.

    Within a ``with`` statement the calling thread has as many of PyTorch's threads as each helper;
    `run` works only there. It is for one thread at a time, without gradients.
    """

    def __init__(self):
        self.count = 1  # threads that take pieces
        self.scratch = Scratch()  # of the calling thread between calls of `run`; pieces have other memory
        self._memories = [Scratch()]
        self._total = self._before = 0
        self._helpers: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Threads":
        self._before = torch.get_num_threads()
        # What PyTorch is told here is also the default of threads that begin meanwhile: only the
        # main thread's number is what the user wants.
        known = self._total and threading.current_thread() is not threading.main_thread()
        if not known and self._before != self._total:
            self._hire(self._before)
        torch.set_num_threads(max(1, self._total // self.count))
        return self

    def __exit__(self, *_) -> None:
        torch.set_num_threads(self._before)

    def release(self) -> None:
        """Give the memory back."""
        self.scratch = Scratch()
        self._memories = [Scratch() for _ in self._memories]

    def _hire(self, total: int) -> None:
        if self._helpers is not None:
            self._helpers.shutdown()
        # Only with OpenMP does a thread's number of threads concern no other thread.
        openmp = "backend: OpenMP" in torch.__config__.parallel_info()
        self.count = min(total, MOST) if openmp else 1
        self._total, self._helpers = total, None
        self._memories = [Scratch() for _ in range(self.count)]
        if self.count > 1:
            self._helpers = ThreadPoolExecutor(self.count - 1, "maskflownet pieces")

    def run(self, tasks: Sequence[Task], needs: Sequence[Sequence[int]] | None = None) -> None:
        """Do all tasks, started in their order, each with the memory of its thread.

        `needs` names, by task, the earlier tasks that must be finished before it starts.
        """
        if self.count == 1 or len(tasks) == 1:
            for task in tasks:
                task(self._memories[0])
            return
        work = _Round(tasks, needs)
        inference = torch.is_inference_mode_enabled()
        each = torch.get_num_threads()

        def help_with(memory):
            torch.set_num_threads(each)
            with torch.inference_mode(inference), torch.no_grad():
                work.take_part(memory)

        helpers = min(self.count, len(tasks)) - 1
        others = [self._helpers.submit(help_with, self._memories[i + 1]) for i in range(helpers)]
        try:
            work.take_part(self._memories[0])
        finally:
            for other in others:
                other.result()


class _Round:
    """Tasks that several threads take one after another."""

    def __init__(self, tasks, needs):
        self._tasks, self._needs = tasks, needs
        self._next, self._finished = 0, [False] * len(tasks)
        self._failed = False
        self._change = threading.Condition()

    def take_part(self, memory: Scratch) -> None:
        try:
            while True:
                with self._change:
                    number = self._next
                    self._next += 1
                    if number >= len(self._tasks):
                        return
                    self._change.wait_for(partial(self._ready, number))
                    if self._failed:
                        return
                self._tasks[number](memory)
                with self._change:
                    self._finished[number] = True
                    self._change.notify_all()
        except BaseException:  # also an interrupt, after which no thread must wait for this one
            with self._change:
                self._failed = True
                self._change.notify_all()
            raise

    def _ready(self, number: int) -> bool:
        if self._failed or self._needs is None:
            return True
        return all(self._finished[other] for other in self._needs[number])


def split(length: int, count: int) -> list[slice]:
    """A range in `count` pieces of nearly equal length."""
    bounds = [i * length // count for i in range(count + 1)]
    return [slice(*pair) for pair in zip(bounds, bounds[1:])]


class Frame(NamedTuple):
    """Where a map (N, C, H, W) lies in memory (N, rows, columns, C), with zeros around it."""

    height: int  # of the map
    width: int
    before: int  # rows above and columns to the left of the map
    rows: int  # of the memory
    columns: int

    def holding(self, rows: int, columns: int) -> "Frame":
        """A frame in which so many rows and columns can be written from the map's first pixel."""
        rows, columns = max(self.rows, self.before + rows), max(self.columns, self.before + columns)
        return self._replace(rows=rows, columns=columns)

    def memory(self, batch: int, channels: int, scratch: Scratch | None, name: str = "") -> Tensor:
        """Uninitialised memory, new without `scratch`; with the zeros of the frame."""
        shape = (batch, self.rows, self.columns, channels)
        memory = torch.empty(shape) if scratch is None else scratch.take(name, *shape)
        self.clear(memory)
        return memory

    def clear(self, memory: Tensor) -> None:
        """Write the zeros around the map (..., rows, columns, C)."""
        top, bottom = self.before, self.before + self.height
        left, right = self.before, self.before + self.width
        memory[..., :top, :, :].zero_()
        memory[..., bottom:, :, :].zero_()
        memory[..., :left, :].zero_()
        memory[..., right:, :].zero_()

    def inside(self, memory: Tensor) -> Tensor:
        """The map in its memory, as (N, C, H, W)."""
        rows = slice(self.before, self.before + self.height)
        return memory[:, rows, self.before : self.before + self.width].permute(0, 3, 1, 2)

    def framed(self, parts: Sequence[Tensor], threads: Threads, name: str) -> Tensor:
        """Maps (N, c, H, W) of any memory layout, joined along the channels, in such memory."""
        batch, channels = parts[0].shape[0], sum(part.shape[1] for part in parts)
        memory = self.memory(batch, channels, threads.scratch, name)
        inside = self.inside(memory)
        pieces = threads.count if inside[0].numel() > LARGE else 1
        threads.run([partial(_join, parts, inside, rows) for rows in split(self.height, pieces)])
        return memory


def _join(parts: Sequence[Tensor], whole: Tensor, rows: slice, _: Scratch) -> None:
    """Some rows of maps (N, c, H, W), one behind the other along the channels."""
    first = 0
    for part in parts:
        whole[:, first : first + part.shape[1], rows].copy_(part[:, :, rows])
        first += part.shape[1]


def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """A^T (4, 6), B^T (6, 6) and G (6, 3) in float64, by Toom and Cook's interpolation."""
    points = torch.tensor(POINTS, dtype=torch.float64)
    last = len(POINTS)  # the row of the point at infinity
    filters = torch.zeros(REACH, 3, dtype=torch.float64)
    inputs = torch.zeros(REACH, REACH, dtype=torch.float64)
    outputs = torch.zeros(TILE, REACH, dtype=torch.float64)
    for i, point in enumerate(points):
        others = torch.cat([points[:i], points[i + 1 :]])
        filters[i] = point ** torch.arange(3) / (point - others).prod()
        inputs[i, :last] = _polynomial(others)
        outputs[:, i] = point ** torch.arange(TILE)
    filters[last, 2] = outputs[TILE - 1, last] = 1
    inputs[last] = _polynomial(points)
    return outputs, inputs, filters


def _polynomial(roots: Tensor) -> Tensor:
    """Coefficients, lowest power first, of the monic polynomial with these roots."""
    coefficients = torch.ones(1, dtype=roots.dtype)
    for root in roots:
        shifted = torch.cat([coefficients.new_zeros(1), coefficients])
        coefficients = shifted - root * torch.cat([coefficients, coefficients.new_zeros(1)])
    return coefficients


_OUTPUTS, _INPUTS, _FILTERS = _matrices()
_INPUT = _INPUTS.float()
_FILTER = torch.kron(_FILTERS, _FILTERS)  # (36, 9) float64
_OUTPUT = torch.kron(_OUTPUTS, _OUTPUTS).float()  # (16, 36)


def transform_filters(weight: Tensor, threads: Threads) -> Tensor:
    """(outputs, inputs, 3, 3) -> (36, inputs, outputs) float32, computed in float64."""
    outputs, inputs = weight.shape[:2]
    # Columns before rows, as in the tiles.
    taps = weight.detach().permute(3, 2, 1, 0).reshape(9, inputs * outputs)
    result = torch.empty(POSITIONS, inputs * outputs)
    threads.run([partial(_transform, *pair) for pair in zip(taps.split(FILTERS, 1), result.split(FILTERS, 1))])
    return result.view(POSITIONS, inputs, outputs)


def _transform(taps: Tensor, place: Tensor, _: Scratch) -> None:
    place.copy_(_FILTER @ taps.double())


class Strip(NamedTuple):
    """Rows of tiles that are worked on at once."""

    row: int  # first row of outputs; also the first row of inputs in the padded map
    bands: int  # rows of tiles
    step: int  # rows of pixels from one row of tiles to the next


class TileGrid(NamedTuple):
    """The tiles of a map of outputs, the last of an axis possibly over its end."""

    height: int
    width: int
    dilation: int

    @property
    def columns(self) -> int:
        """Tiles of a row, for each of the d interleaved sets of columns."""
        return -(-self.width // (TILE * self.dilation))

    @property
    def covered(self) -> tuple[int, int]:
        """Rows and columns of outputs in all tiles."""
        cell = TILE * self.dilation
        return -(-self.height // cell) * cell, self.columns * cell

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns of inputs in all tiles: a frame of d pixels and what tiles exceed."""
        rows, columns = self.covered
        return rows + 2 * self.dilation, columns + 2 * self.dilation

    def tiles(self, strip: Strip) -> int:
        return strip.bands * self.columns * self.dilation

    def strips(self, tiles: int) -> Iterator[Strip]:
        """All strips, from top to bottom without dilation, of about as many tiles."""
        cell = TILE * self.dilation
        bands = max(1, tiles // (self.columns * self.dilation))
        tops, count, step = range(0, self.covered[0], cell), self.dilation, 1
        if self.dilation == 1:
            tops, count, step = (0,), self.covered[0] // cell, cell
        for top in tops:
            for rows in split(count, -(-count // bands)):
                yield Strip(top + rows.start * step, rows.stop - rows.start, step)


def transform_inputs(padded: Tensor, grid: TileGrid, strip: Strip, scratch: Scratch, out: Tensor):
    """Write the transformed tiles of a strip to `out`, (36, grid.tiles(strip), C), contiguous.

    `padded` (rows, columns, C) is the map with its frame, at least ``grid.padded``; pixels in a row are contiguous.
    """
    d, columns, bands = grid.dilation, grid.columns, strip.bands
    unit = d * padded.shape[2]
    width = (TILE * columns + 2) * unit
    row = padded.stride(0)
    start = padded.storage_offset() + strip.row * row
    rows = padded.as_strided((bands, REACH, width), (strip.step * row, d * row, 1), start)
    vertical = scratch.take("vertical", bands, REACH, width)
    torch.bmm(_INPUT.expand(bands, REACH, REACH), rows, out=vertical)
    tiles = scratch.take("tiles", REACH, REACH, bands, columns, unit)
    tiles.copy_(vertical.as_strided(tiles.shape, (unit, width, REACH * width, TILE * unit, 1)))
    torch.mm(_INPUT, tiles.view(REACH, -1), out=out.view(REACH, -1))


def transform_outputs(products: Tensor, bias: Tensor | None, scratch: Scratch) -> Tensor:
    """Sums of products (36, tiles, C) -> outputs (16, tiles, C), 4 column + row; in scratch."""
    _, tiles, channels = products.shape
    outputs = scratch.take("outputs", TILE * TILE, tiles * channels)
    torch.mm(_OUTPUT, products.view(POSITIONS, -1), out=outputs)
    outputs = outputs.view(TILE * TILE, tiles, channels)
    return outputs if bias is None else outputs.add_(bias)


def place_outputs(outputs: Tensor, slope: float | None, grid: TileGrid, strip: Strip, target: Tensor) -> None:
    """Put the outputs of a strip where they belong, through a LeakyReLU if there is a slope.

    Outputs (16, tiles, C), possibly a slice of the channels; target (rows, columns, C), at least ``grid.covered``,
    channels contiguous.
    """
    d, columns, bands = grid.dilation, grid.columns, strip.bands
    channels = outputs.shape[2]
    row, pixel, _ = target.stride()
    places = target.as_strided(
        (TILE, TILE, bands, columns, d, channels),
        (d * pixel, d * row, strip.step * row, TILE * d * pixel, pixel, 1),
        target.storage_offset() + strip.row * row,
    )
    position, tile, _ = outputs.stride()
    values = outputs.as_strided(
        places.shape, (TILE * position, position, columns * d * tile, d * tile, tile, 1), outputs.storage_offset()
    )
    if slope is None:
        places.copy_(values)
    else:
        torch.ops.aten.leaky_relu.out(values, slope, out=places)


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
