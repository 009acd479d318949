"""Objects of several parts that move as one: body, panels, limbs and openings, as chairs have."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.scenes.shapes import MARGIN, SMALLEST, random_mask
from maskflownet.scenes.textures import Textures

BODY = (0.4, 0.85)  # of the object's sides, the body's
PANEL = (0.15, 0.5)  # of the object's sides, a panel's or an opening's
MOST_PANELS, MOST_LIMBS = 3, 6
OPENING_SHARE = 0.3  # of the bodies, those that one can look through
PLAIN_SHARE = 0.6  # of the parts, those of one shaded colour
DARK_SHARE = 0.35  # of those, the nearly black ones
GREY_SHARE = 0.4  # of the others, those of any grey; what is left has its photograph's mean colour
DARK = 30.0  # grey levels, the brightest of them
SHADING = 40.0  # grey levels, standard deviation of the change across a plain part
GRAIN = (0.0, 0.25)  # contrast that a plain part keeps of its photograph
LEAST = 24  # px, side of the smallest texture


def draw_composite(textures: Textures, rng: np.random.Generator, height: int, width: int, stroke: float) -> np.ndarray:
    """Draw one object of several parts.

    Every limb begins in the body and reaches outward; every panel has its centre on the body and
    may stand out. All of it is one texture and thus one motion.

    Parameters
    ----------
    textures : Textures
    rng : np.random.Generator
    height, width : int
        px; smaller ones than `LEAST` become it.
    stroke : float
        Mean width of the limbs, px.

    Returns
    -------
    np.ndarray
        (height, width, 4) uint8 RGBA, its border transparent.
    """
    height, width = max(height, LEAST), max(width, LEAST)
    colour = np.zeros((height, width, 3), np.uint8)
    alpha = np.zeros((height, width), np.uint8)

    def paint(mask: np.ndarray) -> None:
        """Lay a part over the others, with soft edges; where there was nothing it has no edge."""
        fill = _fill(textures, rng, height, width)
        under = np.where(alpha[..., None] > 0, colour, fill)
        weight = cv2.merge([mask] * 3)
        mixed = cv2.add(
            cv2.multiply(fill, weight, scale=1 / 255), cv2.multiply(under, cv2.bitwise_not(weight), scale=1 / 255)
        )
        cv2.copyTo(mixed, mask, colour)
        np.maximum(alpha, mask, out=alpha)

    box = _box(rng, height, width, BODY)
    limbs = _limbs(rng, height, width, box, stroke)
    behind = rng.random() < 0.5  # or before the body
    if behind:
        paint(limbs)
    body = _silhouette(rng, height, width, box)
    if rng.random() < OPENING_SHARE:
        opening = _silhouette(rng, height, width, _box(rng, height, width, PANEL, box))
        body = cv2.subtract(body, opening)
    paint(body)
    for _ in range(rng.integers(1, MOST_PANELS + 1)):
        paint(_silhouette(rng, height, width, _box(rng, height, width, PANEL, box)))
    if not behind:
        paint(limbs)
    inside = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    opaque = np.zeros_like(alpha)
    opaque[inside] = alpha[inside]
    return cv2.merge([*cv2.split(colour), opaque])


class _Box(NamedTuple):
    """Where a part lies, px."""

    top: int
    left: int
    height: int
    width: int


def _box(
    rng: np.random.Generator, height: int, width: int, share: tuple[float, float], body: _Box | None = None
) -> _Box:
    """Draw where a part lies: anywhere, or with its centre on the body."""
    h, w = (max(SMALLEST, round(side * rng.uniform(*share))) for side in (height, width))
    if body is None:
        return _Box(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
    top = body.top + rng.random() * body.height - h / 2
    left = body.left + rng.random() * body.width - w / 2
    return _Box(round(min(max(top, 0), height - h)), round(min(max(left, 0), width - w)), h, w)


def _silhouette(rng: np.random.Generator, height: int, width: int, box: _Box) -> np.ndarray:
    """(height, width) uint8, a rectangle, polygon or blob that fills most of the box."""
    top, left, h, w = box
    mask = np.zeros((height, width), np.uint8)
    part = mask[top : top + h, left : left + w]
    if rng.random() < 0.4:
        lean = rng.uniform(-0.3, 0.3) * w  # a seat or a side seen at an angle
        corners = np.array([[max(lean, 0), 0], [w - 1 + min(lean, 0), 0]])
        corners = np.concatenate([corners, [w - 1, h - 1] - corners])
        cv2.fillPoly(part, [np.rint(corners).astype(np.int32)], 255, cv2.LINE_AA)
    else:
        part[...] = random_mask(rng, h, w, False, 0)
    return mask


def _limbs(rng: np.random.Generator, height: int, width: int, box: _Box, stroke: float) -> np.ndarray:
    """(height, width) uint8, lines from the body outward and some bars between their ends."""
    mask = np.zeros((height, width), np.uint8)
    top, left, h, w = box
    count = int(rng.integers(1, MOST_LIMBS + 1))
    start = [left, top] + rng.uniform(0.25, 0.75, (count, 2)) * [w, h]
    side = rng.uniform(0, 2 * math.pi)  # legs point the same way more or less
    angle = side + rng.normal(0, rng.choice([0.25, 2.0]), count)
    reach = rng.uniform(0.4, 1.1, count)[:, None] * [width, height]
    end = start + reach * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    thickness = max(1, round(stroke * rng.uniform(0.6, 1.6)))
    for a, b in zip(start, end):
        _line(mask, a, b, thickness)
    if count > 1 and rng.random() < 0.4:
        along = rng.uniform(0.4, 0.9)
        joints = start + along * (end - start)
        for a, b in zip(joints, joints[1:]):
            _line(mask, a, b, max(1, thickness // 2))
    return mask


def _line(mask: np.ndarray, a: np.ndarray, b: np.ndarray, thickness: int) -> None:
    points = (tuple(np.rint(point).astype(int).tolist()) for point in (a, b))
    cv2.line(mask, *points, 255, thickness, cv2.LINE_AA)


def _fill(textures: Textures, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: part of a photograph, or one colour with shading and some grain."""
    pyramid = textures.photograph(int(rng.integers(len(textures.photographs))))
    picture = pyramid[int(rng.integers(min(2, len(pyramid))))]
    y, x = (int(rng.integers(max(1, n - m + 1))) for n, m in zip(picture.shape, (height, width)))
    crop = picture[y : y + height, x : x + width]
    if crop.shape[:2] != (height, width):
        missing = height - crop.shape[0], width - crop.shape[1]
        crop = cv2.copyMakeBorder(crop, 0, missing[0], 0, missing[1], cv2.BORDER_REFLECT)
    if rng.random() >= PLAIN_SHARE:
        return crop
    grain = rng.uniform(*GRAIN)
    mean = np.array(cv2.mean(crop)[:3])
    colour = mean  # of something real
    if rng.random() < DARK_SHARE:
        colour = rng.uniform(0, DARK, 3)
    elif rng.random() < GREY_SHARE:
        colour = rng.uniform(0, 255) + rng.normal(0, 8, 3)
    slope = rng.normal(0, SHADING, 2)
    y, x = (np.linspace(-0.5, 0.5, n) * k for n, k in zip((height, width), slope))
    shade = np.add.outer(y, x).astype(np.float32)
    plain = cv2.transform(crop, np.eye(3) * grain).astype(np.float32)
    plain += (colour - grain * mean).astype(np.float32) + shade[..., None]
    return plain.clip(0, 255).astype(np.uint8)
