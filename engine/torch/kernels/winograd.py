"""3x3 convolutions with a quarter of the multiplications, for CPUs: Winograd's F(4x4, 3x3).

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

from collections.abc import Iterator
from typing import NamedTuple

import torch
from maskflownet.engine.torch.kernels.threads import Scratch
from torch import Tensor

TILE = 4  # outputs of a tile along an axis
REACH = 6  # inputs of a tile along an axis
POSITIONS = REACH * REACH  # of a transformed tile: 6 column + row
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)


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
_OUTPUT = torch.kron(_OUTPUTS, _OUTPUTS).float()  # (16, 36)


def transform_filters(weight: Tensor) -> Tensor:
    """(outputs, inputs, 3, 3) -> (36, inputs, outputs) float32, computed in float64."""
    outputs, inputs = weight.shape[:2]
    # Columns before rows, as in the tiles.
    taps = weight.detach().double().permute(3, 2, 1, 0).reshape(9, inputs * outputs)
    result = torch.kron(_FILTERS, _FILTERS) @ taps
    return result.float().view(POSITIONS, inputs, outputs)


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
        if self.dilation == 1:
            count = self.covered[0] // cell
            for first, some in _shares(count, bands):
                yield Strip(first * cell, some, cell)
            return
        for top in range(0, self.covered[0], cell):
            for first, some in _shares(self.dilation, bands):
                yield Strip(top + first, some, 1)


def _shares(count: int, most: int) -> Iterator[tuple[int, int]]:
    """Ranges (first, length) of nearly equal length, none above `most`."""
    shares = -(-count // most)
    for i in range(shares):
        first = i * count // shares
        yield first, (i + 1) * count // shares - first


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
