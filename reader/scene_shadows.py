"""Sun and shadow: areas that lie on everything and move with the ground or by themselves."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from reader.scene_motion import Box, Motion
from reader.scene_shapes import SMALLEST, random_mask

MOST_AREAS = 4  # of those that lie on the ground, and of those that move by themselves
AREA = (0.15, 1.2)  # of the picture's sides, the sides of an area
THIN_SHARE = 0.2  # of the areas, shadows of poles, wires and fences
DAPPLED_SHARE = 0.25  # of the others, many small ones as under a tree
STROKE = (0.01, 0.04)  # of the picture's size, width of what is thin
RATIO = (1.4, 4.5)  # of the light in the sun to that in the shadow
EXPOSED = (0.25, 0.75)  # of the logarithm of the ratio, above what the camera is exposed for
TINT = 0.05  # deviation of the logarithm of each channel's light
PENUMBRA = 0.012  # of the picture's size, largest standard deviation of an edge
ASTRAY_SHARE = 0.3  # of the scenes, those with shadows that move by themselves
OFFSET = 0.12  # of the picture's size: how far a shadow lies elsewhere on what is nearer


class Light(NamedTuple):
    """How bright the light is, in both frames, on the background and `margin` px around them.

    Attributes
    ----------
    first, second : np.ndarray
        (H + 2 margin, W + 2 margin, 3) float32 factors on the colours.
    margin : int
        px.
    """

    first: np.ndarray
    second: np.ndarray
    margin: int

    def on(self, shift: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) factors of both frames on a surface that meets the light (x, y) px away."""
        x, y = (self.margin + s for s in shift)
        height, width = (side - 2 * self.margin for side in self.first.shape[:2])
        part = np.s_[y : y + height, x : x + width]
        return self.first[part], self.second[part]


def draw_light(
    rng: np.random.Generator, height: int, width: int, ground: Motion, speed: float
) -> Light:
    """Draw the light of a scene.

    Parameters
    ----------
    rng : np.random.Generator
    height, width : int
        Size of the frames, px.
    ground : Motion
        What most shadows move with.
    speed : float
        px, how far those shadows go that move by themselves.

    Returns
    -------
    Light
        Its margin is `OFFSET` of the picture's size.
    """
    size = math.sqrt(height * width)
    margin = round(OFFSET * size)
    canvas = (height + 2 * margin, width + 2 * margin)
    fixed = _draw_areas(rng, canvas, size)
    box = Box(-margin, -margin, width + margin, height + margin)
    positions = ground.backward_map(box, np.array([[1.0, 0, margin], [0, 1, margin]]))
    masks = fixed, cv2.remap(fixed, positions, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    if rng.random() < ASTRAY_SHARE:
        astray = _draw_areas(rng, canvas, size)
        angle = rng.uniform(0, 2 * math.pi)
        shift = speed * math.exp(rng.normal(0, 0.5)) * np.array([math.cos(angle), math.sin(angle)])
        move = np.column_stack([np.eye(2), shift])
        moved = cv2.warpAffine(astray, move, canvas[::-1], borderMode=cv2.BORDER_REPLICATE)
        masks = np.maximum(masks[0], astray), np.maximum(masks[1], moved)
    ratio = math.exp(rng.uniform(*np.log(RATIO)))
    above = rng.uniform(*EXPOSED)
    sun, shadow = (ratio**k * np.exp(rng.normal(0, TINT, 3)) for k in (above, above - 1))
    inside, outside = (sun, shadow) if rng.random() < 0.5 else (shadow, sun)
    levels = np.column_stack([(inside - outside) / 255, outside])  # of 0 and of 255
    return Light(*(cv2.transform(mask.astype(np.float32), levels) for mask in masks), margin)


def shine(colour: np.ndarray, alpha: np.ndarray | None, light: np.ndarray) -> np.ndarray:
    """Light (h, w, 3) uint8 colours that are weighted with their (h, w) alpha, None = opaque."""
    lit = cv2.multiply(colour, light, dtype=cv2.CV_8U)
    return lit if alpha is None else cv2.min(lit, cv2.merge([alpha] * 3))


def _draw_areas(rng: np.random.Generator, canvas: tuple[int, int], size: float) -> np.ndarray:
    """Draw some areas with soft edges, (H, W) uint8 of the canvas."""
    mask = np.zeros(canvas, np.uint8)
    for _ in range(rng.integers(1, MOST_AREAS + 1)):
        sides = rng.uniform(*AREA, 2) * canvas
        thin = rng.random() < THIN_SHARE
        many = not thin and rng.random() < DAPPLED_SHARE
        centre = rng.uniform(0, 1, 2) * canvas
        for _ in range(rng.integers(8, 40) if many else 1):
            part = sides * (rng.uniform(0.04, 0.2, 2) if many else 1)
            middle = centre + (rng.uniform(-0.5, 0.5, 2) * sides if many else 0)
            stroke = rng.uniform(*STROKE) * size
            _lay(mask, _shape(rng, part, thin, stroke), middle)
    sigma = rng.uniform(0, PENUMBRA) * size
    return cv2.GaussianBlur(mask, (0, 0), max(sigma, 0.4))


def _shape(rng: np.random.Generator, sides: np.ndarray, thin: bool, stroke: float) -> np.ndarray:
    height, width = (max(SMALLEST, round(side)) for side in sides)
    return random_mask(rng, height, width, thin, stroke)


def _lay(mask: np.ndarray, shape: np.ndarray, middle: np.ndarray) -> None:
    """Add a shape about a (y, x) position, as far as it is on the mask."""
    y, x = (round(m - n / 2) for m, n in zip(middle, shape.shape))
    box = Box(x, y, x + shape.shape[1], y + shape.shape[0]).clip(*mask.shape)
    if 0 in box.size:
        return
    part = mask[box.slices]
    cut = shape[box.y0 - y : box.y1 - y, box.x0 - x : box.x1 - x]
    np.maximum(part, cut, out=part)
