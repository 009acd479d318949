"""Random silhouettes: what a photograph is cut to where no cut-out is at hand."""

from __future__ import annotations

import cv2
import numpy as np

MARGIN = 3  # px kept transparent, so that interpolation never meets the picture's border
FRACTION_BITS = 4  # of the coordinates passed to OpenCV
SMALLEST = 4 * MARGIN  # px, the smallest mask side that holds a shape


def random_mask(rng: np.random.Generator, height: int, width: int, thin: bool, stroke: float) -> np.ndarray:
    """Draw one silhouette with soft edges.

    Parameters
    ----------
    rng : np.random.Generator
    height, width : int
        px; the shape fills most of it.
    thin : bool
        A stick, rope, ring or net instead of a polygon or a blob.
    stroke : float
        Width of what is thin, px.

    Returns
    -------
    np.ndarray
        (height, width) uint8, 255 = inside.
    """
    draw = rng.choice([_sticks, _rope, _ring, _net] if thin else [_polygon, _blob, _blob])
    mask = np.zeros((height, width), np.uint8)
    half = np.array([width, height]) / 2 - MARGIN
    for outline, closed in draw(rng):
        points = (np.asarray(outline) * half + [width / 2 - 0.5, height / 2 - 0.5]).clip(
            MARGIN, [width - 1 - MARGIN, height - 1 - MARGIN]
        )
        fixed = np.rint(points * 2**FRACTION_BITS).astype(np.int32)
        if thin:
            thickness = max(1, round(stroke))
            cv2.polylines(mask, [fixed], closed, 255, thickness, cv2.LINE_AA, FRACTION_BITS)
        else:
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, FRACTION_BITS)
    mask[:2], mask[-2:], mask[:, :2], mask[:, -2:] = 0, 0, 0, 0
    return mask


# Each shape is a list of (outline, closed) with outline (n, 2) in [-1, 1] x [-1, 1].


def _polygon(rng: np.random.Generator) -> list:
    corners = rng.integers(3, 10)
    angles = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners
    radii = rng.uniform(0.45, 1.15, corners)
    return [(_polar(angles + rng.uniform(0, 2 * np.pi), radii), True)]


def _blob(rng: np.random.Generator) -> list:
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radii = np.full(96, 0.8)
    for order in range(1, 6):
        radii += rng.normal(0, 0.22 / order) * np.sin(order * angles + rng.uniform(0, 2 * np.pi))
    return [(_polar(angles, radii.clip(0.2, 1.1)), True)]


def _sticks(rng: np.random.Generator) -> list:
    return [(rng.uniform(-1, 1, 2) * [[1], [-1]], False) for _ in range(rng.integers(1, 4))]


def _rope(rng: np.random.Generator) -> list:
    t = np.linspace(-1, 1, 60)
    turns = rng.uniform(1, 6, 2)
    phase = rng.uniform(0, 2 * np.pi, 2)
    return [(np.stack([t, 0.8 * np.sin(turns * t[:, None] + phase).mean(axis=1)], axis=1), False)]


def _ring(rng: np.random.Generator) -> list:
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return [(_polar(angles, np.full(64, r)), True) for r in rng.uniform(0.4, 0.97, rng.integers(1, 3))]


def _net(rng: np.random.Generator) -> list:
    across, along = (np.linspace(-0.95, 0.95, n) for n in rng.integers(2, 6, 2))
    return [(np.array([[x, -0.95], [x, 0.95]]), False) for x in across] + [
        (np.array([[-0.95, y], [0.95, y]]), False) for y in along
    ]


def _polar(angles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
