"""Sun and shadow: areas that lie on everything and move with the ground or by themselves."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.scenes.motion import Box, Motion, draw_direction
from maskflownet.scenes.shapes import SMALLEST, random_mask

MOST_AREAS = 4  # of those that lie on the ground, and of those that move by themselves
AREA = (0.15, 1.2)  # of the picture's sides, the sides of an area
THIN_SHARE = 0.2  # of the areas, shadows of poles, wires and fences
STROKE = (0.01, 0.04)  # of the picture's size, width of what is thin
DAPPLED_SHARE = 0.25  # of the others, many small spots as under a tree
SPOTS = (8, 40)  # number of the spots
SPOT = (0.04, 0.2)  # of the area's sides, the sides of a spot
RATIO = (1.4, 4.5)  # of the light in the sun to that in the shadow
SUN = (0.1, 0.6)  # of the logarithm of the ratio: the sun's above 1, the shadow has the rest below
TINT = 0.05  # standard deviation of the logarithm of each channel's light
PENUMBRA = (0.001, 0.012)  # of the picture's size, standard deviation of an edge
MOVING_SHARE = 0.3  # of the scenes, those with areas that move by themselves
OFFSET = 0.12  # of the picture's size: how far an area lies elsewhere on what is nearer


class Light(NamedTuple):
    """How bright the light is in each frame and `margin` px around it.

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

    def on(self, shift: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) factors of both frames on a surface that gets at p the light of p + shift."""
        x, y = (self.margin + s for s in shift)
        height, width = (side - 2 * self.margin for side in self.first.shape[:2])
        part = np.s_[y : y + height, x : x + width]
        return self.first[part], self.second[part]


def draw_light(rng: np.random.Generator, height: int, width: int, ground: Motion, speed: float) -> Light:
    """Draw the light of a scene.

    Parameters
    ----------
    rng : np.random.Generator
    height, width : int
        Size of the frames, px.
    ground : Motion
        What most areas move with, on whatever they lie: on things that stand nearer to a camera
        that travels they slide.
    speed : float
        px, about how far those areas go that move by themselves.

    Returns
    -------
    Light
        Its margin is `OFFSET` of the picture's size.
    """
    margin = round(OFFSET * math.sqrt(height * width))
    first = _draw_areas(rng, height, width, margin)
    box = Box(-margin, -margin, width + margin, height + margin)
    positions = ground.backward_map(box, np.array([[1.0, 0, margin], [0, 1, margin]]))
    second = cv2.remap(first, positions, None, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT_101)
    if rng.random() < MOVING_SHARE:
        areas = _draw_areas(rng, height, width, margin)
        shift = draw_direction(rng) * speed * math.exp(rng.normal(0, 0.5))
        move = np.column_stack([np.eye(2), shift])
        moved = cv2.warpAffine(areas, move, areas.shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
        first, second = np.maximum(first, areas), np.maximum(second, moved)
    inside, outside = _draw_colours(rng)
    to_light = np.column_stack([(inside - outside) / 255, outside])  # (3, 2): factor and summand
    return Light(*(cv2.transform(m.astype(np.float32), to_light) for m in (first, second)), margin)


def apply_light(colour: np.ndarray, alpha: np.ndarray | None, light: np.ndarray) -> np.ndarray:
    """Light (h, w, 3) uint8 colours that are weighted with their (h, w) alpha, None = opaque."""
    lit = cv2.multiply(colour, light, dtype=cv2.CV_8U)
    return lit if alpha is None else cv2.min(lit, cv2.merge([alpha] * 3))


def _draw_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the light inside and outside the areas, (3,) factors: sun and shadow, or the reverse."""
    ratio = math.exp(rng.uniform(*np.log(RATIO)))
    above = rng.uniform(*SUN)
    sun, shadow = (ratio**k * np.exp(rng.normal(0, TINT, 3)) for k in (above, above - 1))
    return (sun, shadow) if rng.random() < 0.5 else (shadow, sun)


def _draw_areas(rng: np.random.Generator, height: int, width: int, margin: int) -> np.ndarray:
    """Draw some areas with soft edges, (H + 2 margin, W + 2 margin) uint8."""
    frame = np.array([height, width])
    size = math.sqrt(height * width)
    mask = np.zeros(frame + 2 * margin, np.uint8)
    for _ in range(rng.integers(1, MOST_AREAS + 1)):
        sides = rng.uniform(*AREA, 2) * frame
        middle = margin + rng.uniform(0, 1, 2) * frame
        thin = rng.random() < THIN_SHARE
        if not thin and rng.random() < DAPPLED_SHARE:
            for _ in range(rng.integers(*SPOTS)):
                spot = rng.uniform(*SPOT, 2) * sides
                _lay(rng, mask, spot, middle + rng.uniform(-0.5, 0.5, 2) * sides, False, 0)
        else:
            _lay(rng, mask, sides, middle, thin, rng.uniform(*STROKE) * size)
    return cv2.GaussianBlur(mask, (0, 0), max(rng.uniform(*PENUMBRA) * size, 0.3))


def _lay(
    rng: np.random.Generator, mask: np.ndarray, sides: np.ndarray, middle: np.ndarray, thin: bool, stroke: float
) -> None:
    """Add a silhouette of (height, width) about a (y, x) position, as far as it is on the mask."""
    height, width = (max(SMALLEST, round(side)) for side in sides)
    shape = random_mask(rng, height, width, thin, stroke)
    y, x = (round(m - n / 2) for m, n in zip(middle, shape.shape))
    box = Box(x, y, x + width, y + height).clip(*mask.shape)
    part = mask[box.slices]
    cut = shape[box.y0 - y : box.y1 - y, box.x0 - x : box.x1 - x]
    np.maximum(part, cut, out=part)
