"""The operators that sample images and match features as nodes of ONNX, with MXNet's border rules.

Height and width are constants of the model, so that every index and position is one, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from maskflownet.engine.torch.operators import Table
from maskflownet.tools.onnx_graph.builder import only
from onnx import TensorProto

OPERATORS = Table()
operator = OPERATORS.operator

TILE = 32  # columns that are matched in one matrix product, at most
FAR = -9.0  # a coordinate of GridSample that no picture reaches


@operator("Correlation")
def correlation(
    build, a, b, *, max_displacement, pad_size=0, kernel_size=1, stride1=1, stride2=1,
    is_multiply=True,
):  # fmt: skip
    """Cost volume, (N, C, H, W) twice -> (N, (2 md + 1)^2, H, W), zero outside `b`.

    The pixels of a row's tile are multiplied with all that any of them is matched with, as one
    matrix product, of which the displacements are taken out: onnxruntime needs a quarter of the
    time of a sum for each displacement, which reads and writes features (2 md + 1)^2 times.
    """
    only(
        "Correlation",
        kernel_size=(kernel_size, 1),
        stride1=(stride1, 1),
        stride2=(stride2, 1),
        is_multiply=(is_multiply, True),
        pad_size=(pad_size, max_displacement),
    )
    _, channels, height, width = a.shape
    side = 2 * max_displacement + 1
    tile = max(size for size in range(1, TILE + 1) if width % size == 0)
    reach = tile + side - 1  # columns that the pixels of a tile are matched with
    rows, tiles = np.arange(height), np.arange(width // tile)

    # What each tile is matched with, (N, H, tiles, side reach, C): pixels of `b` with its margin.
    margin = [0, 0, max_displacement, max_displacement]
    padded = build("Pad", build("Mul", b, 1 / channels), margin * 2)
    pixels = build("Transpose", padded, perm=(0, 2, 3, 1))
    pixels = build("Reshape", pixels, [0, -1, channels])
    row = rows[:, None, None, None] + np.arange(side)[:, None]
    column = tiles[:, None, None] * tile + np.arange(reach)
    wanted = row * (width + side - 1) + column  # (H, tiles, side, reach)
    wanted = wanted.reshape(height, len(tiles), -1).astype(np.int32)
    others = build("Gather", pixels, wanted, axis=1)

    own = build("Reshape", a, [0, channels, height, len(tiles), tile])
    own = build("Transpose", own, perm=(0, 2, 3, 1, 4))  # (N, H, tiles, C, tile)
    products = build("MatMul", others, own)  # (N, H, tiles, side reach, tile)
    products = build("Reshape", products, [0, height, len(tiles), -1])

    down, right, pixel = np.ogrid[:side, :side, :tile]
    wanted = (down * reach + right + pixel) * tile + pixel
    wanted = wanted.reshape(side**2, tile).astype(np.int32)
    matches = build("Gather", products, wanted, axis=3)
    matches = build("Transpose", matches, perm=(0, 3, 1, 2, 4))  # (N, side^2, H, tiles, tile)
    return build("Reshape", matches, [0, side**2, height, width])


@operator("_contrib_DeformableConvolution")
def deformable_convolution(
    build,
    x,
    offset,
    weight,
    *bias,
    kernel,
    num_filter,
    stride=(1, 1),
    pad=(0, 0),
    dilate=(1, 1),
    num_group=1,
    num_deformable_group=1,
    no_bias=False,
):
    """Convolution all of whose taps sample `x` (N, C, H, W) at their place + one offset, (y, x).

    A sample with a coordinate < 0 or >= size is 0; inside bilinear, the last row and column held.

    ONNX's DeformConv fades at the borders, and few runtimes have it. As the taps move together, the
    result is bilinear between whole pixels. It is computed there first, for the taps' neighbours
    on both sides where a border makes them differ, see `_cells`, and then sampled once.
    """
    only("_contrib_DeformableConvolution", num_group=(num_group, 1), num_deformable_group=(num_deformable_group, 1))
    shift = offset.repeated
    only("_contrib_DeformableConvolution", offset_of_each_tap=(shift is None, False))
    # A row and a column of zeros at the end are what taps outside take.
    whole = build("Pad", x, [0, 0, 0, 0, 0, 0, 1, 1])
    grid = []
    for i, part in enumerate(build("Split", shift, outputs=2, axis=1)):
        size, axis = x.shape[2 + i], 2 + i
        cells = _cells(size, np.arange(kernel[i]) * dilate[i] - pad[i])
        whole = build("Gather", whole, cells.windows.reshape(-1), axis=axis)
        pixels = np.arange(shift.shape[axis], dtype=np.float32) * stride[i]
        position = build("Add", part, pixels.reshape(-1, 1) if axis == 2 else pixels)
        grid.append(_grid_coordinate(build, position, cells))
    whole = build("Conv", whole, weight, kernel_shape=kernel, strides=kernel)
    grid = [build("Reshape", part, [0, *shift.shape[2:], 1]) for part in reversed(grid)]
    out = _sample(build, whole, build("Concat", *grid, axis=3))
    return build("Add", out, build("Reshape", bias[0], [-1, 1, 1])) if bias else out


class _Cells(NamedTuple):
    """The intervals [i, i + 1) of positions between which taps along an axis take two pixels each.

    Cell c, from ``first + c`` on, lies between the rows c' and c' + 1 of `windows`, c' = left[c].
    """

    first: int  # the lowest position at which a tap is inside
    left: np.ndarray  # (cells,), float32
    windows: np.ndarray  # (at most 2 cells, taps): indices of pixels, `size` = outside


def _cells(size: int, taps) -> _Cells:
    """For an axis with `size` pixels and taps at these places.

    The pixels on the right of a cell are those on the left of the next one and stored once, but
    not at the borders: a tap at -0.1 takes nothing, one at 0 takes pixel 0.
    """
    first, last = -max(taps), size - 1 - min(taps)
    left, windows = [], []
    for cell in range(first, last + 1):
        at = [tap + cell for tap in taps]
        low = [place if 0 <= place < size else size for place in at]
        high = [min(place + 1, size - 1) if 0 <= place < size else size for place in at]
        if windows[-1:] != [low]:
            windows.append(low)
        left.append(len(windows) - 1)
        windows.append(high)
    return _Cells(first, np.array(left, np.float32), np.array(windows, np.int32))


def _grid_coordinate(build, position, cells: _Cells):
    """Positions in px -> coordinates of GridSample among the windows."""
    count = len(cells.left)
    before = build("Less", position, float(cells.first))
    # What is not a number is no less than the end, and so outside.
    inside = build("And", build("Not", before), build("Less", position, float(cells.first + count)))
    position = build("Where", inside, position, float(cells.first))
    start = build("Floor", position)
    cell = build("Cast", build("Sub", start, float(cells.first)), to=TensorProto.INT64)
    place = build("Add", build("Gather", cells.left, cell), build("Sub", position, start))
    scaled = build("Sub", build("Mul", place, 2 / (len(cells.windows) - 1)), 1.0)
    return build("Where", inside, scaled, FAR)


@operator("GridGenerator")
def grid_generator(build, x, *, transform_type, target_shape=(0, 0)):
    """Positions (N, 2, H, W), in [-1, 1], to which a flow (N, 2, H, W) in px leads; both (x, y)."""
    only("GridGenerator", transform_type=(transform_type, "warp"))
    height, width = x.shape[2:]
    y, x_ = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    position = build("Add", x, np.stack([x_, y])[None].astype(np.float32))
    half = np.array([(width - 1) / 2, (height - 1) / 2], np.float32).reshape(1, 2, 1, 1)
    return build("Sub", build("Div", position, half), 1.0)


@operator("BilinearSampler")
def bilinear_sampler(build, x, grid, *, cudnn_off=None):
    """(N, C, H, W) at a grid (N, 2, h, w) -> (N, C, h, w), zero outside."""
    return _sample(build, x, build("Transpose", grid, perm=(0, 2, 3, 1)))


def _sample(build, x, grid):
    settings = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": 1}
    return build("GridSample", x, grid, **settings)
