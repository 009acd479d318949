"""The pictures of a validation report: what is drawn of one labelled pair and its prediction."""

from __future__ import annotations

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from engine.metrics import end_point_error, plane, valid_pixels
from engine.predictions import Labelled, Measured
from reader.colour import flow_to_colour

# By the names that a pair's pictures have, in the order in which they are switched.
TITLES = {
    "frame": "First frame",
    "flow": "Flow",
    "truth": "Ground truth",
    "error": "Error",
    "mask": "Mask",
    "occlusion": "Occlusion",
    "confidence": "Confidence",
}
ERROR_TICKS = (0, 1, 3, 10, 30, 100)  # px; the last one and all above have the brightest colour
SCALE_PERCENTILE = 99  # of the true motions, drawn in full colour
UNKNOWN = 112  # grey level where there is no label; the error's colours hold no grey
QUALITY = 80  # of lossy WebP, in percent
EFFORT = 2  # of WebP, 0 to 6: level 4 takes twice the time for 4 % fewer bytes


class Views(NamedTuple):
    """The pictures of one pair, all of one size."""

    pictures: dict[str, np.ndarray]  # (h, w, 3) uint8 RGB or (h, w) uint8
    max_flow: float  # px, the motion drawn in full colour in `flow` and `truth`


def draw_views(pair: Labelled, measured: Measured, width: int) -> Views:
    """Draw what there is to see of a pair: a picture by its name, see `TITLES`.

    Parameters
    ----------
    pair : Labelled
    measured : Measured
        With the prediction that is drawn; `mask` and `confidence` are left out where it has none.
    width : int
        Of the pictures in px; images that are smaller keep their size.
    """
    sample, prediction = pair.sample, measured.prediction
    height, full = sample.img1.shape[:2]
    size = min(width, full), max(1, round(height * min(width / full, 1)))  # (w, h), as OpenCV does
    valid = valid_pixels(sample.flow, sample.mask)
    label = np.where(valid[..., None], sample.flow, 0)
    small_label, known = shrink(label, size, valid)
    flow, _ = shrink(prediction.flow, size)
    error, _ = shrink(end_point_error(prediction.flow, label), size, valid)
    # A few wild pixels shall not make the whole picture pale.
    scale = usual_motion(small_label[known]) or usual_motion(flow) or 1.0
    pictures = {
        "frame": cv2.resize(sample.img1, size, interpolation=cv2.INTER_AREA),
        "flow": flow_to_colour(flow, scale),
        "truth": flow_to_colour(small_label, scale, known),
        "error": error_to_colour(error, known),
    }
    if prediction.mask is not None:
        pictures["mask"] = _grey(prediction.mask, size)
    visible = _visible(pair, valid)
    if visible is not None:
        share, told = shrink(visible[0], size, visible[1])
        pictures["occlusion"] = np.where(told, np.where(share >= 0.5, 255, 0), UNKNOWN).astype(
            np.uint8
        )
    confidence = getattr(prediction, "confidence", None)
    if confidence is not None:
        pictures["confidence"] = _grey(confidence, size)
    return Views(pictures, scale)


def usual_motion(flow: np.ndarray) -> float:
    """Length of flow vectors (..., 2) that 99 % of the finite ones do not exceed, px; 0 of none."""
    lengths = np.hypot(flow[..., 0], flow[..., 1])
    lengths = lengths[np.isfinite(lengths)]
    return float(np.percentile(lengths, SCALE_PERCENTILE)) if lengths.size else 0.0


def shrink(values: np.ndarray, size: tuple[int, int], where: np.ndarray | None = None):
    """Average over the pixels that become one; `size` is (w, h).

    Parameters
    ----------
    values : (H, W) or (H, W, C) array
    size : (int, int)
        Width and height of the result, not above those of `values`.
    where : (H, W) bool array, optional
        Only these pixels count: a sparse label keeps its values and its points.

    Returns
    -------
    values : (h, w) or (h, w, C) float32 array
        0 where no pixel counts.
    known : (h, w) bool array
        Whether a pixel counts.
    """
    values = np.asarray(values, np.float32)
    if where is None or where.all():
        known = np.ones(size[::-1], bool)
        return cv2.resize(values, size, interpolation=cv2.INTER_AREA), known
    weight = cv2.resize(where.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    spread = where if values.ndim == 2 else where[..., None]
    sums = cv2.resize(np.where(spread, values, 0), size, interpolation=cv2.INTER_AREA)
    known = weight > 1e-6
    share = np.where(known, weight, 1)
    return sums / (share if values.ndim == 2 else share[..., None]), known


def error_level(error):
    """Place of an error on the scale from 0 to 1: logarithmic, so that 0.3 and 30 px both show."""
    return np.log1p(np.minimum(error, ERROR_TICKS[-1])) / np.log1p(ERROR_TICKS[-1])


def error_colours(levels: np.ndarray) -> np.ndarray:
    """Colours of `error_level`s (h, w): (h, w, 3) uint8 RGB, from black over red to yellow."""
    steps = np.rint(np.asarray(levels) * 255).astype(np.uint8)
    return cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO)[..., ::-1]


def error_to_colour(error: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Draw the end-point error (h, w) px: (h, w, 3) uint8 RGB, grey where it is not known.

    What is no number is drawn as the largest error.
    """
    error = np.where(np.isfinite(error), error, ERROR_TICKS[-1])
    picture = np.array(error_colours(error_level(error)))
    picture[~known] = UNKNOWN
    return picture


def encode(name: str, picture: np.ndarray) -> bytes:
    """A picture as WebP: lossless for the few levels of `occlusion`, lossy for all others."""
    file = io.BytesIO()
    lossless = name == "occlusion"
    Image.fromarray(np.ascontiguousarray(picture)).save(
        file, "WEBP", quality=QUALITY, method=EFFORT, lossless=lossless
    )
    return file.getvalue()


def _visible(pair: Labelled, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Where pixels are visible in image 2, and where that is known: (H, W) bool twice."""
    if pair.occlusion is not None:
        return ~plane(pair.occlusion), np.ones_like(valid)
    if pair.noc is not None:
        return plane(pair.noc), valid
    return None


def _grey(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw values (H, W, 1) in [0, 1]: (h, w) uint8, 1 is white."""
    small, _ = shrink(values[..., 0], size)
    return np.clip(np.rint(small * 255), 0, 255).astype(np.uint8)
