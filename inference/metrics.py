"""Measures of a flow against its label.

Every measure is kept as a sum over pixels and their number, so that both customs of averaging can
be had from it: over images (each image counts the same, as the released code prints) and pooled
over pixels (each pixel counts the same, as the benchmarks do). The first bears the measure's name,
the second that name with `.pooled`: `epe` and `epe.pooled`.

What a validation leaves behind: a line in a log, a CSV of the images, a JSON of the totals.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.engine.contract import ConfidentPrediction, Prediction
from maskflownet.reader.files import atomic_path

SPEEDS = {"s0-10": (0, 10), "s10-40": (10, 40), "s40+": (40, np.inf)}  # px of the label
FL_PIXELS, FL_SHARE = 3.0, 0.05  # an outlier of KITTI is above both
UNKNOWN_ABOVE = 1e9  # px, what a .flo file holds where there is no label
POOLED = ".pooled"
# Measures of an image as a whole, which have a mean over images and none over pixels.
WHOLE = ("ause_confidence", "ause_mask", "ap_confidence", "ap_mask")


def end_point_error(flow: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Length of the difference: (H, W, 2) px twice -> (H, W) px, float64."""
    difference = flow.astype(np.float64) - label
    return np.sqrt(np.square(difference).sum(axis=-1))


def sum_and_count(values: np.ndarray, where: np.ndarray) -> tuple[float, int]:
    """A measure of those pixels of (H, W) at which a bool array is true."""
    return float(values[where].sum()), int(where.sum())


def whole(value: float) -> tuple[float, int]:
    """A measure of an image as a whole, see `WHOLE`; NaN = the image has none."""
    return (0.0, 0) if np.isnan(value) else (value, 1)


def valid_pixels(label: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Where a label (H, W, 2) counts: (H, W) bool. See `measure`."""
    valid = np.ones(label.shape[:2], bool) if mask is None else plane(mask)
    return valid & (np.abs(label) <= UNKNOWN_ABOVE).all(axis=-1)  # false for NaN, too


def measure(flow, label, mask=None, occlusion=None, noc=None) -> dict[str, tuple[float, int]]:
    """All measures of one image, each as (sum, number of pixels).

    Parameters
    ----------
    flow, label : (H, W, 2) arrays, px
    mask : (H, W, 1) or (H, W) array, optional
        Above 0 where the label is valid; all of it without. A label that is not finite or above
        1e9 px is never valid.
    occlusion : (H, W, 1) or (H, W) array, optional
        Above 0 where the pixel is not visible in the second image; adds `matched`, `unmatched`.
    noc : (H, W, 1) or (H, W) array, optional
        Above 0 where the pixel is visible in both images (KITTI); adds `epe_noc` and `fl_noc`.

    Returns
    -------
    dict
        `epe` (px); `fl` (share of outliers: error above 3 px and above 5 % of the label); `1px`,
        `3px`, `5px` (share of errors below); `s0-10`, `s10-40`, `s40+` (EPE by the label's length);
        `matched`, `unmatched` (EPE); `epe_noc`, `fl_noc`. Only valid pixels count in any of them.
    """
    valid = valid_pixels(label, mask)
    label = np.where(valid[..., None], label, 0)
    error = end_point_error(flow, label)
    speed = np.sqrt(np.square(label.astype(np.float64)).sum(axis=-1))
    # So written that a prediction that is not a number is an outlier.
    outlier = ~((error <= FL_PIXELS) | (error <= FL_SHARE * speed))
    result = {"epe": sum_and_count(error, valid), "fl": sum_and_count(outlier, valid)}
    for limit in (1, 3, 5):
        result[f"{limit}px"] = sum_and_count(error < limit, valid)
    for name, (low, high) in SPEEDS.items():
        result[name] = sum_and_count(error, valid & (speed >= low) & (speed < high))
    if occlusion is not None:
        occluded = plane(occlusion)
        result["matched"] = sum_and_count(error, valid & ~occluded)
        result["unmatched"] = sum_and_count(error, valid & occluded)
    if noc is not None:
        visible = valid & plane(noc)
        result["epe_noc"] = sum_and_count(error, visible)
        result["fl_noc"] = sum_and_count(outlier, visible)
    return result


def plane(mask) -> np.ndarray:
    """(H, W) bool of a mask (H, W, 1) or (H, W): true above 0."""
    mask = np.asarray(mask)
    return (mask[..., 0] if mask.ndim == 3 else mask) > 0


def means(measures: dict[str, tuple[float, int]]) -> dict[str, float]:
    """Mean of every measure of one image; NaN where it has no such pixel."""
    return {name: s / n if n else float("nan") for name, (s, n) in measures.items()}


@dataclass
class Totals:
    """Measures of many images."""

    images: list = field(default_factory=list)

    def add(self, measures: dict[str, tuple[float, int]]) -> None:
        self.images.append(measures)

    def names(self) -> list[str]:
        return list(dict.fromkeys(name for image in self.images for name in image))

    def pixels(self) -> int:
        """Number of valid pixels."""
        return sum(image["epe"][1] for image in self.images)

    def per_image(self) -> dict[str, float]:
        """Mean over the images that have such pixels of each image's mean; NaN without any."""
        result = {}
        for name in self.names():
            ratios = [s / n for s, n in (i[name] for i in self.images if name in i) if n]
            result[name] = float(np.mean(ratios)) if ratios else float("nan")
        return result

    def pooled(self) -> dict[str, float]:
        """Mean over all pixels of all images; NaN without any. None of what is in `WHOLE`."""
        result = {}
        for name in self.names():
            if name in WHOLE:
                continue
            sums, counts = zip(*(image[name] for image in self.images if name in image))
            result[name] = sum(sums) / sum(counts) if sum(counts) else float("nan")
        return result

    def summary(self) -> dict[str, float]:
        """Number of `images` and `pixels`, and both means of every measure: `epe`, `epe.pooled`."""
        result = {"images": len(self.images), "pixels": self.pixels()}
        per_image, pooled = self.per_image(), self.pooled()
        for name in self.names():
            result[name] = per_image[name]
            if name in pooled:
                result[name + POOLED] = pooled[name]
        return result


# The measures that the log's line holds.
HEADLINES = ("epe", "fl", "epe_noc", "fl_noc", "consistent", *WHOLE)


class ImageResult(NamedTuple):
    """The measures of one image, each as (sum, number of pixels)."""

    name: str
    height: int
    width: int
    measures: dict[str, tuple[float, int]]


def log_line(steps: int, totals: Mapping[str, Mapping[str, float]]) -> str:
    """Format `steps=S, SET:epe=..., SET:epe.pooled=..., SET:fl=...` and so on for every set."""
    parts = [f"steps={steps}"]
    for name, summary in totals.items():
        for measure in HEADLINES:
            for key in (measure, measure + POOLED):
                if key in summary:
                    parts.append(f"{name}:{key}={summary[key]:.4f}")
    return ", ".join(parts)


def append_log(path: Path, line: str) -> None:
    """Append `[time] line` to a log, in local time."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"[{stamp}] {line}\n")


def write_csv(path: Path, results: Mapping[str, Sequence[ImageResult]]) -> None:
    """Write a row for every image: set, name, height, width, valid pixels, and every measure.

    A cell is empty where the image has no pixel of that measure.
    """
    everything = [image for images in results.values() for image in images]
    names = list(dict.fromkeys(name for image in everything for name in image.measures))
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "name", "height", "width", "pixels", *names])
        for set_name, images in results.items():
            for image in images:
                values = means(image.measures)
                row = [set_name, image.name, image.height, image.width, image.measures["epe"][1]]
                row += [_or_none(values.get(name, math.nan)) for name in names]
                writer.writerow(row)


def write_json(path: Path, content: Mapping) -> None:
    """Write totals; `content["sets"]` holds numbers by set and measure, NaN becomes null."""
    sets = {name: {key: _or_none(value) for key, value in summary.items()} for name, summary in content["sets"].items()}
    with atomic_path(path) as temporary:
        text = json.dumps({**content, "sets": sets}, indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _or_none(value):
    return value if math.isfinite(value) else None


class Measured(NamedTuple):
    """The measures of a labelled pair, and the prediction that they are of."""

    measures: dict[str, tuple[float, int]]  # as `maskflownet.inference.metrics.measure` gives them
    prediction: Prediction | ConfidentPrediction  # of this pair alone, without batch axis
