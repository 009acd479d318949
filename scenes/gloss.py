"""Glossy surfaces, such as cars: they mirror what does not move with them."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.scenes.motion import Box

CELL = (0.12, 0.5)  # of the surface's size, how large what it mirrors appears
NODES = 16  # of the mirrored picture's grid, which goes on by reflection
CLEAR = (-0.5, 0.8)  # standard deviations of that picture, below which nothing is seen of it
STRENGTH = (0.15, 0.6)  # share of the mirrored light for each standard deviation above
MOST = 0.85  # of the light that comes from a surface, what it mirrors at most
FOLLOW = (-0.3, 0.6)  # of the surface's motion, what the mirrored picture does of it
SKY_SHARE = 0.7  # of the surfaces, those that mirror something bright; the others anything
SKY = 170.0  # grey levels, the darkest of it
FLATTENED = 0.5  # factor on the height of what is mirrored: surfaces are seen at an angle


class Gloss(NamedTuple):
    """What a surface mirrors.

    Attributes
    ----------
    picture : np.ndarray
        (n, n) float32, normal noise.
    placements : tuple of np.ndarray
        For each frame the (2, 3) affine map from px of the frame to the picture's nodes.
    clear, strength : float
        The share of the mirrored light is strength (picture - clear), from 0 to `MOST`.
    colour : np.ndarray
        (3,) grey levels of the mirrored light.
    """

    picture: np.ndarray
    placements: tuple[np.ndarray, np.ndarray]
    clear: float
    strength: float
    colour: np.ndarray

    def on(self, colour: np.ndarray, alpha: np.ndarray | None, frame: int, box: Box) -> np.ndarray:
        """Mirror in (h, w, 3) uint8 colours weighted with their (h, w) alpha, None = opaque."""
        placement = self.placements[frame].copy()
        placement[:, 2] += placement[:, :2] @ [box.x0, box.y0]
        share = cv2.warpAffine(
            self.picture,
            placement,
            box.size[::-1],
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        share = np.clip(self.strength * (share - self.clear), 0, MOST)
        kept = cv2.multiply(colour, cv2.merge([1 - share] * 3), dtype=cv2.CV_8U)
        if alpha is not None:
            share = share * (alpha / np.float32(255))
        mirrored = cv2.transform(share, self.colour[:, None])
        return cv2.add(kept, mirrored, dtype=cv2.CV_8U)


def draw_gloss(rng: np.random.Generator, centre: np.ndarray, size: float, shift: np.ndarray) -> Gloss:
    """Draw what a surface of `size` px about a (2,) centre mirrors that moves by (2,) px."""
    picture = rng.normal(0, 1, (NODES, NODES)).astype(np.float32)
    cell = size * rng.uniform(*CELL) * np.array([1, FLATTENED])
    scale = np.diag(1 / np.maximum(cell, 2))
    place = rng.uniform(0, NODES, 2)
    along = rng.uniform(*FOLLOW) * shift
    placements = tuple(np.column_stack([scale, place - scale @ at]) for at in (centre, centre + along))
    bright = rng.random() < SKY_SHARE
    colour = (rng.uniform(SKY, 255) if bright else rng.uniform(0, 255)) + rng.normal(0, 10, 3)
    return Gloss(picture, placements, rng.uniform(*CLEAR), rng.uniform(*STRENGTH), colour.clip(0, 255))
