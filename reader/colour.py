"""Flow fields as pictures, in the colour code of Baker et al. (IJCV 2011, figure 1)."""

import math

import flow_vis
import numpy as np

_EPSILON = 1e-5  # px; what flow_vis adds to a scale


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
    known = np.isfinite(flow).all(axis=2)  # (H, W)
    if valid is not None:
        if valid.shape not in (known.shape, (*known.shape, 1)):
            raise ValueError(f"the mask {valid.shape} does not fit the flow {flow.shape}")
        known &= valid.reshape(known.shape) != 0
    flow = np.where(known[:, :, None], flow, 0)
    if max_flow is None:
        max_flow = colour_scale(np.hypot(flow[:, :, 0], flow[:, :, 1]).max(initial=0), *known.shape)
    # Not flow_vis.flow_to_color: its clip_flow cuts negative components to 0.
    scale = np.float32(max_flow + _EPSILON)
    colour = flow_vis.flow_uv_to_colors(flow[:, :, 0] / scale, flow[:, :, 1] / scale)
    colour[~known] = 0
    return colour


def colour_wheel(size: int) -> np.ndarray:
    """Draw the legend of `flow_to_colour`: the colour of every direction up to the full scale.

    Returns (size, size, 3) uint8 RGB: a disc on white, rest in its centre, u to the right, v down.
    """
    if size < 1:
        raise ValueError(f"the side of a picture is at least 1 px, not {size}")
    centred = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    flow = np.stack(np.meshgrid(centred, centred), axis=2)  # (size, size, 2), of the scale
    wheel = flow_to_colour(flow, max_flow=1)
    wheel[np.hypot(flow[:, :, 0], flow[:, :, 1]) > 1] = 255
    return wheel
