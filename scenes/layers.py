"""Layers of a synthetic scene and how they are composed, with the flow and the occlusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.scenes.gloss import Gloss
from maskflownet.scenes.motion import Box, Motion
from maskflownet.scenes.shadows import apply_light


class Layer(NamedTuple):
    """One surface and its motion.

    Attributes
    ----------
    texture : np.ndarray
        (h, w, 4) uint8 RGBA of an object, its border transparent; or (h, w, 3) uint8 RGB of a
        background, which goes on for ever by reflection.
    placement : np.ndarray
        (2, 3) float64, affine map from texture px to px of frame 1.
    motion : Motion
        From frame 1 to frame 2.
    curve : np.ndarray or None
        (1, 256, 3) uint8, look-up table of its colours.
    blur : np.ndarray or None
        (k, k) float32, symmetric kernel of its defocus and motion blur, in px of the frames.
    gloss : Gloss or None
        What it mirrors.
    light : tuple of np.ndarray or None
        Two (H, W, 3) float32, factors on its colours in frames 1 and 2.
    """

    texture: np.ndarray
    placement: np.ndarray
    motion: Motion
    curve: np.ndarray | None = None
    blur: np.ndarray | None = None
    gloss: Gloss | None = None
    light: tuple[np.ndarray, np.ndarray] | None = None


class Composition(NamedTuple):
    """Two frames and what happens between them.

    Attributes
    ----------
    img1, img2 : np.ndarray
        (H, W, 3) uint8 RGB.
    flow : np.ndarray
        (H, W, 2) float32, px, (u, v): the motion of the top layer in frame 1.
    occlusion : np.ndarray
        (H, W, 1) uint8, 255 = what is seen in frame 1 is hidden or outside in frame 2.
    """

    img1: np.ndarray
    img2: np.ndarray
    flow: np.ndarray
    occlusion: np.ndarray


class _View(NamedTuple):
    """A layer in one frame: colour times alpha (h, w, 3), and alpha (h, w), None = opaque."""

    box: Box
    colour: np.ndarray
    alpha: np.ndarray | None


def compose(layers: Sequence[Layer], height: int, width: int) -> Composition:
    """Compose layers, the first one being the background, back to front in both frames.

    A pixel belongs to the nearest layer with an alpha of at least one half. In frame 1 this chooses
    whose motion is the label. The pixel is occluded if in frame 2, at the place to which its label
    points, a nearer layer is there, or if that place is outside the pixel centres of the picture.

    Parameters
    ----------
    layers : sequence of Layer
        Back to front.
    height, width : int
        Size of the frames, px.
    """
    views1 = [_view_first(layer, height, width) for layer in layers]
    views2 = [_view_second(layer, Box(0, 0, width, height), height, width) for layer in layers]
    top = np.zeros((height, width), np.uint8)  # index of the layer that a pixel of frame 1 shows
    for index, view in enumerate(views1):
        if view.alpha is not None:
            top[view.box.slices][view.alpha >= 128] = index
    flow = np.zeros((height, width, 2), np.float32)
    occlusion = np.zeros((height, width), np.uint8)
    nearer = np.zeros((height, width), np.uint8)  # alpha of the layers before this, in frame 2
    for index in range(len(layers) - 1, -1, -1):
        box = views1[index].box
        shown = (top[box.slices] == index).astype(np.uint8)
        if shown.any():
            box, shown = _tight(box, shown)
            own = layers[index].motion.flow(box)
            cv2.copyTo(own, shown, flow[box.slices])
            cv2.copyTo(_hidden(own, box, nearer), shown, occlusion[box.slices])
        box, _, alpha = views2[index]
        if alpha is not None and alpha.size:
            np.maximum(nearer[box.slices], alpha, out=nearer[box.slices])
    return Composition(_stack(views1), _stack(views2), flow, occlusion[..., None])


def _view_first(layer: Layer, height: int, width: int) -> _View:
    box = _first_box(layer, height, width).clip(height, width)
    if 0 in box.size:
        return _empty(box)
    placement = layer.placement.copy()
    placement[:, 2] -= [box.x0, box.y0]
    pixels = cv2.warpAffine(layer.texture, placement, box.size[::-1], flags=cv2.INTER_LINEAR, borderMode=_border(layer))
    return _finish(layer, box, pixels, 0)


def _view_second(layer: Layer, frame: Box, height: int, width: int) -> _View:
    box = frame
    if layer.texture.shape[2] == 4:
        box = layer.motion.moved_box(_first_box(layer, height, width)).clip(height, width)
    if 0 in box.size:
        return _empty(box)
    positions = layer.motion.backward_map(box, cv2.invertAffineTransform(layer.placement))
    pixels = cv2.remap(layer.texture, positions, None, cv2.INTER_LINEAR, borderMode=_border(layer))
    return _finish(layer, box, pixels, 1)


def _first_box(layer: Layer, height: int, width: int) -> Box:
    """Box of frame 1 that holds the whole layer, blur included, on and off the picture."""
    if layer.texture.shape[2] == 3:
        return Box(0, 0, width, height)
    h, w = layer.texture.shape[:2]
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]]) @ layer.placement.T
    margin = 0 if layer.blur is None else layer.blur.shape[0] // 2
    low = np.floor(corners.min(axis=0)).astype(int) - margin
    high = np.ceil(corners.max(axis=0)).astype(int) + margin + 1
    return Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _border(layer: Layer) -> int:
    return cv2.BORDER_REFLECT_101 if layer.texture.shape[2] == 3 else cv2.BORDER_CONSTANT


def _empty(box: Box) -> _View:
    return _View(box, np.zeros((*box.size, 3), np.uint8), np.zeros(box.size, np.uint8))


def _finish(layer: Layer, box: Box, pixels: np.ndarray, frame: int) -> _View:
    """Recolour, weight with alpha, mirror, blur, light: so nothing transparent leaks out."""
    alpha = None
    colour = pixels
    if pixels.shape[2] == 4:
        colour, alpha = cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), pixels[..., 3].copy()
    if layer.curve is not None:
        colour = cv2.LUT(colour, layer.curve)
    if alpha is not None:
        colour = cv2.multiply(colour, cv2.merge([alpha] * 3), scale=1 / 255)
    if layer.gloss is not None:
        colour = layer.gloss.on(colour, alpha, frame, box)
    if layer.blur is not None:
        colour = cv2.filter2D(colour, -1, layer.blur)
        if alpha is not None:
            alpha = cv2.filter2D(alpha, -1, layer.blur)
    if layer.light is not None:
        colour = apply_light(colour, alpha, layer.light[frame][box.slices])
    return _View(box, colour, alpha)


def _stack(views: Sequence[_View]) -> np.ndarray:
    canvas = views[0].colour.copy()
    for box, colour, alpha in views[1:]:
        if colour.size:
            part = canvas[box.slices]
            behind = cv2.multiply(part, cv2.merge([cv2.bitwise_not(alpha)] * 3), scale=1 / 255)
            cv2.add(behind, colour, dst=behind)
            part[...] = behind
    return canvas


def _tight(box: Box, shown: np.ndarray) -> tuple[Box, np.ndarray]:
    """Reduce a box to the rectangle that holds all of its shown pixels."""
    x, y, w, h = cv2.boundingRect(shown)
    tight = Box(box.x0 + x, box.y0 + y, box.x0 + x + w, box.y0 + y + h)
    return tight, np.ascontiguousarray(shown[y : y + h, x : x + w])


def _hidden(flow: np.ndarray, box: Box, nearer: np.ndarray) -> np.ndarray:
    """(h, w) uint8, 255 where the box's pixels, moved by `flow`, are covered or outside."""
    height, width = nearer.shape
    x = np.arange(box.x0, box.x1, dtype=np.float32)
    y = np.arange(box.y0, box.y1, dtype=np.float32)
    target = flow.copy()
    target[..., 0] += x
    target[..., 1] += y[:, None]
    cover = cv2.remap(nearer, target, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    covered = cv2.threshold(cover, 127, 255, cv2.THRESH_BINARY)[1]
    inside = cv2.inRange(target, (0.0, 0.0), (width - 1.0, height - 1.0))
    return cv2.bitwise_or(covered, cv2.bitwise_not(inside))
