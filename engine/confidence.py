"""Confidence of a flow by its consistency with the flow of the opposite direction.

A pixel of image 1 that is visible in image 2 is led there by the forward flow f and back by the
backward flow b, so that f(x) + b(x + f(x)) is about zero; where it is occluded, leaves the picture
or was matched wrongly, the way back usually ends elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Sundaram, Brox and Keutzer (ECCV 2010), equation 5: consistent where
# |f + b|^2 < SHARE (|f|^2 + |b|^2) + SLACK.
SHARE = 0.01
SLACK = 0.5  # px^2
BORDER = 0.5  # px; pixels are squares, so the picture reaches this far beyond their centres


class Consistency(NamedTuple):
    """How far the way there and back misses its start, and how far it may."""

    error: np.ndarray  # (H, W) float32, px, |f(x) + b(x + f(x))|; infinite outside of the picture
    tolerance: np.ndarray  # (H, W) float32, px, sqrt(0.01 (|f|^2 + |b|^2) + 0.5), finite

    @property
    def consistent(self) -> np.ndarray:
        """Whether each pixel keeps within the tolerance: (H, W) bool."""
        return self.error < self.tolerance

    @property
    def confidence(self) -> np.ndarray:
        """1 / (1 + (error / tolerance)^2): (H, W) float32 in [0, 1].

        1 where the way back ends where it began, 1/2 at the tolerance, so that the consistent
        pixels are those above 1/2, and 0 where the flow leaves the picture.
        """
        with np.errstate(over="ignore"):  # beyond 1e19 px the square is infinite, as it may be
            return 1 / (1 + np.square(self.error / self.tolerance))


def look_up(field: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of a field of image 2 at the points to which a flow leads, bilinearly interpolated.

    In NumPy, since `cv2.remap` rounds the points to 1/32 px.

    Parameters
    ----------
    field : (H, W, 2) float32 array
    flow : (H, W, 2) float32 array, px, (u, v)

    Returns
    -------
    values : (H, W, 2) float32 array
        The field at x + flow(x); of the nearest pixel in the outer half of the border's pixels, 0
        where the point is not inside.
    inside : (H, W) bool array
        Whether the point lies in the picture, which reaches half a pixel beyond the centres of its
        outermost pixels; it does not where the flow is no number.
    """
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    # So written that what is no number lies outside.
    inside = (
        (x >= -BORDER) & (x <= width - 1 + BORDER) & (y >= -BORDER) & (y <= height - 1 + BORDER)
    )
    left, right, of_right = _neighbours(np.where(inside, x, 0), width)
    top, bottom, of_bottom = _neighbours(np.where(inside, y, 0), height)
    # As complex numbers u + iv: one access to memory for both, several times faster.
    numbers = np.ascontiguousarray(field, np.float32).view(np.complex64).reshape(-1)
    rows = []
    for row in (top * width, bottom * width):
        at_left, at_right = numbers[row + left], numbers[row + right]
        rows.append(at_left + (at_right - at_left) * of_right)
    values = rows[0] + (rows[1] - rows[0]) * of_bottom
    values[~inside] = 0
    return values[..., None].view(np.float32), inside


def _neighbours(position: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels beside a position on one axis, and the second one's share of its value."""
    position = np.clip(position, 0, size - 1)
    first = np.floor(position)
    # The same one twice at a pixel's centre, so that nothing without a share is looked at.
    return first.astype(np.int64), np.ceil(position).astype(np.int64), position - first


def consistency(forward: np.ndarray, backward: np.ndarray) -> Consistency:
    """Compare the flows between two images with each other.

    Parameters
    ----------
    forward : (H, W, 2) float32 array, px, (u, v)
        From image 1 to image 2.
    backward : (H, W, 2) float32 array, px, (u, v)
        From image 2 to image 1.

    Returns
    -------
    Consistency
        Of the pixels of image 1.

    Raises
    ------
    ValueError
        The arrays are no flows of one size.
    """
    if forward.ndim != 3 or forward.shape[2] != 2 or forward.shape != backward.shape:
        raise ValueError(f"two flows are (H, W, 2) twice, not {forward.shape}, {backward.shape}")
    forward = np.asarray(forward, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a way back that is no number is none
        back, inside = look_up(backward, forward)
        there = np.where(inside[..., None], forward, 0)
        tolerance = np.sqrt(SHARE * (_squares(there) + _squares(back)) + np.float32(SLACK))
        error = np.where(inside, np.sqrt(_squares(there + back)), np.float32(np.inf))
    known = np.isfinite(error) & np.isfinite(tolerance)
    return Consistency(
        np.where(known, error, np.float32(np.inf)),
        np.where(known, tolerance, np.float32(np.sqrt(SLACK))),
    )


def _squares(flow: np.ndarray) -> np.ndarray:
    return np.square(flow[..., 0]) + np.square(flow[..., 1])
