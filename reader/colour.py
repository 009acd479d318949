"""Flow fields as pictures, in the colour code of Baker et al. (IJCV 2011, figure 1)."""

import math
from functools import cache
from itertools import product
from types import ModuleType
from typing import Any

import cv2
import numpy as np

_EPSILON = 1e-5  # px; what flow_vis adds to a scale
# Colours change by at most 550 levels along the circle and 255 along the radius per unit of a scaled vector, so that
# the middle of a cell is less than one level from all of it.
_CELLS = 512  # of the table per unit
_LAST = _CELLS + 2  # the outermost one, to which all moves that lies farther out
_ORIGIN = _LAST + 2  # in the table: row and column 0 are black, for what is unknown
_BLOCK = 64, 2048  # rows and columns that NumPy draws at a time, for its cache; OpenCV refuses 32,767 at once


def colour_scale(largest: float, height: int, width: int) -> float:
    """Motion in px to draw with full colour, rounded up to 0.01 px, for pictures whose largest motion is given.

    At least 1 px, and 1/1000 of the diagonal: networks predict some tenths of a pixel where nothing moves, which are
    not to look like a storm.
    """
    return math.ceil(100 * max(largest, 1, math.hypot(height, width) / 1000)) / 100


def usual_motion(flow: np.ndarray) -> float:
    """Length of flow vectors (..., 2) that 99 % of the finite ones do not exceed, px; 0 of none.

    As a scale it does not let a few wild pixels make the whole picture pale.
    """
    lengths = np.hypot(flow[..., 0], flow[..., 1])
    lengths = lengths[np.isfinite(lengths)]
    return float(np.percentile(lengths, 99)) if lengths.size else 0.0


def largest_motion(flow: Any, xp: ModuleType) -> Any:
    """Length of the longest vector of a flow (..., H, W, 2), px: (...), not finite if a value is not.

    `xp` is the module of the array, numpy or torch.
    """
    u, v = flow[..., 0], flow[..., 1]
    return xp.sqrt(xp.amax(u * u + v * v, (-2, -1)))


def flow_to_colour(flow: np.ndarray, max_flow: float | None = None, valid: np.ndarray | None = None) -> np.ndarray:
    """Draw a flow field: hue is the direction, saturation the magnitude, white is rest.

    Parameters
    ----------
    flow : np.ndarray
        (H, W, 2), px, (u, v).
    max_flow : float, optional
        Magnitude in px that is drawn fully saturated; what exceeds it is drawn darker. Default:
        the `colour_scale` of the largest magnitude among the pixels drawn.
    valid : np.ndarray, optional
        (H, W) or (H, W, 1), 0 = unknown. Unknown pixels and values that are not finite are black.

    Returns
    -------
    np.ndarray
        (H, W, 3) uint8, RGB.
    """
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"a flow is (H, W, 2), not {flow.shape}")
    if max_flow is not None and not 0 < max_flow < np.inf:
        raise ValueError(f"the largest flow drawn is a number of px above 0, not {max_flow}")
    flow = flow.astype(np.float32, copy=False)
    if valid is not None:
        if valid.shape not in (flow.shape[:2], (*flow.shape[:2], 1)):
            raise ValueError(f"the mask {valid.shape} does not fit the flow {flow.shape}")
        flow = np.where(valid.reshape(*flow.shape[:2], 1) != 0, flow, np.float32(np.nan))
    if max_flow is None:
        lengths = np.hypot(flow[:, :, 0], flow[:, :, 1])
        max_flow = colour_scale(lengths.max(where=np.isfinite(lengths), initial=0), *flow.shape[:2])
    colour = np.empty((*flow.shape[:2], 3), np.uint8)
    for top, left in product(*map(range, (0, 0), colour.shape, _BLOCK)):
        block = np.s_[top : top + _BLOCK[0], left : left + _BLOCK[1]]
        with np.errstate(all="ignore"):
            row, column = table_places(flow[block], scale_of_flow_vis(max_flow), np)
        # It rounds, and what is not finite lies outside of the table.
        cv2.remap(colour_table(), column, row, cv2.INTER_NEAREST, colour[block], cv2.BORDER_CONSTANT)
    return colour


def scale_of_flow_vis(max_flow: float) -> np.float32:
    """What flow_vis divides a flow by whose greatest length is `max_flow`."""
    return np.float32(max_flow + _EPSILON)


def table_places(flow: Any, scale: Any, xp: ModuleType) -> tuple[Any, Any]:
    """Row and column of the `colour_table`, before they are rounded, for flows (..., 2) float32 wherever they are.

    One of them is not finite where the flow is not. `xp` is the module of the arrays: numpy, or torch with a scale that
    is a tensor on the flow's device: division by a number is not exact on GPUs.
    """
    u, v = flow[..., 0] / scale, flow[..., 1] / scale
    height = abs(v)
    larger = xp.maximum(abs(u), height)
    # The colour jumps where the length is 1, so this is decided to the last bit as flow_vis does: of the squares below
    # 1 + 2^-23 the root is at most 1. What is beyond moves outwards, so that no cell has some of both.
    outwards = xp.clip((u * u + v * v - (1 + 2**-23)) * 2**24, 0, 1.5)
    outwards = xp.asarray(outwards, dtype=xp.float32)  # NumPy 1 makes it float64
    factor = xp.minimum((_LAST + 0.5) / larger, outwards + _CELLS)
    row = xp.copysign(height * factor + 1e-3, v)  # the colour jumps between 0.0 and -0.0 px
    return row + (_ORIGIN - 0.5), u * factor + (_ORIGIN - 0.5)


@cache
def colour_table() -> np.ndarray:
    """The colours in the middle of each cell of (v, u) over the scale: (rows, columns, 3) uint8, RGB."""
    from flow_vis.flow_vis import make_colorwheel  # noqa: PLC0415 - engines that draw nothing do without it

    middle = (np.arange(-_LAST - 1, _LAST + 1, dtype=np.float32) + 0.5) / _CELLS
    u, v = middle[None, :], middle[:, None]
    wheel = make_colorwheel().astype(np.float32)  # (55, 3)
    turn = (np.arctan2(-v, -u) / np.float32(np.pi) + 1) / 2 * (len(wheel) - 1)
    first = turn.astype(np.int32)
    hue = wheel[first]
    hue += (turn - first)[..., None] * (np.roll(wheel, -1, 0) - wheel)[first]
    length = np.hypot(u, v)[..., None]
    within = length < 1 + 0.75 / _CELLS  # half a diagonal, 0.71 cells, is to both sides of it
    colours = np.where(within, 255 - np.minimum(length, 1) * (255 - hue), 0.75 * hue)
    colours[_LAST : _LAST + 2, _LAST : _LAST + 2] = 255  # rest is white
    return np.pad(colours.astype(np.uint8), ((1, 0), (1, 0), (0, 0)))


def colour_wheel(size: int) -> np.ndarray:
    """Draw the legend of `flow_to_colour`: the colour of every direction up to the full scale.

    Returns (size, size, 3) uint8 RGB: a disc on white, rest in its centre, u to the right, v down.
    """
    centred = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    flow = np.stack(np.meshgrid(centred, centred), axis=2)  # (size, size, 2), of the scale
    wheel = flow_to_colour(flow, max_flow=1)
    wheel[np.hypot(flow[:, :, 0], flow[:, :, 1]) > 1] = 255
    return wheel
