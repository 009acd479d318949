"""Measures of a flow against its label, their totals over many images, and the files that hold them.

A measure of one image is a pair (sum over pixels, number of pixels). So both customs of averaging follow from it:
over images (each image counts the same, as the released code prints), named `epe`; and pooled over pixels (each
pixel counts the same, as the benchmarks do), named `epe.pooled`.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.engine.contract import ConfidentPrediction, Prediction
from maskflownet.reader.files import atomic_path, write_bytes
from maskflownet.reader.sample import Sample

SPEEDS = {"s0-10": (0, 10), "s10-40": (10, 40), "s40+": (40, np.inf)}  # px of the label
FL_PIXELS, FL_SHARE = 3.0, 0.05  # an outlier of KITTI is above both
POOLED, COUNTED = ".pooled", ".images"
# Measures of an image as a whole: not pooled over pixels, but told with the number of images that have one.
WHOLE = ("ause_confidence", "ause_mask", "ap_confidence", "ap_mask")
HEADLINES = ("epe", "fl", "1px_outliers", "epe_noc", "fl_noc", "consistent", *WHOLE)  # what the log's line holds

Measures = dict[str, tuple[float, int]]


class Measured(NamedTuple):
    """The measures of a labelled pair, and the prediction that they are of."""

    measures: Measures
    prediction: Prediction | ConfidentPrediction  # of this pair alone, without batch axis


class ImageResult(NamedTuple):
    name: str
    height: int
    width: int
    measures: Measures


def end_point_error(flow: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Length of the difference: (H, W, 2) px twice -> (H, W) px, float64."""
    return np.sqrt(np.square(flow.astype(np.float64) - label).sum(axis=-1))


def sum_and_count(values: np.ndarray, where: np.ndarray) -> tuple[float, int]:
    """The measure of those pixels of (H, W) at which a bool array is true."""
    return float(values[where].sum()), int(where.sum())


def plane(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool of a mask (H, W, 1): true above 0."""
    return mask[..., 0] > 0


def measure(flow, label, valid, occlusion=None, noc=None) -> Measures:
    """All measures of one image: flow and label (H, W, 2), px; the others (H, W, 1).

    The label counts where `valid` is above 0: readers leave out what is not finite or too large.
    `occlusion` is above 0 where the second image does not show the pixel, `noc` where both do (KITTI).

    `epe` (px); `fl` (share of outliers: error above 3 px and above 5 % of the label); `1px`, `3px`, `5px` (share of
    errors below); `s0-10`, `s10-40`, `s40+` (EPE by the label's length); with `occlusion` `matched` and `unmatched`
    (EPE); with `noc` `epe_noc` and `fl_noc`. Only valid pixels count in any of them.
    """
    valid = plane(valid)
    error = end_point_error(flow, label)
    speed = end_point_error(label, 0)
    # So written that a prediction that is not a number is an outlier.
    outlier = ~((error <= FL_PIXELS) | (error <= FL_SHARE * speed))
    result = {"epe": sum_and_count(error, valid), "fl": sum_and_count(outlier, valid)}
    for limit in (1, 3, 5):
        result[f"{limit}px"] = sum_and_count(error < limit, valid)
    for name, (low, high) in SPEEDS.items():
        result[name] = sum_and_count(error, valid & (speed >= low) & (speed < high))
    if occlusion is not None:
        result["matched"] = sum_and_count(error, valid & ~plane(occlusion))
        result["unmatched"] = sum_and_count(error, valid & plane(occlusion))
    if noc is not None:
        result["epe_noc"] = sum_and_count(error, valid & plane(noc))
        result["fl_noc"] = sum_and_count(outlier, valid & plane(noc))
    return result


def best_fitting(flow: np.ndarray, sample: Sample) -> Sample:
    """Choose in each pixel the valid value of a label finer than the images that is the closest to a flow (H, W, 2).

    So Spring counts: a pixel's error is that of the best of its values. A pixel is valid where any of them is. The
    flow and mask of the result are those of the choice; a sample without a finer label comes back as it is.
    """
    if sample.fine is None:
        return sample
    scale = sample.fine[0].shape[0] // flow.shape[0]
    places = list(np.ndindex(scale, scale))
    labels, valid = (np.stack([a[i::scale, j::scale] for i, j in places]) for a in sample.fine)  # (k k, H, W, C)
    errors = np.where(valid[..., 0] > 0, end_point_error(flow, labels), np.inf)
    best = errors.argmin(axis=0)[None, ..., None]  # a prediction that is no number stays one
    return sample._replace(flow=np.take_along_axis(labels, best, 0)[0], mask=valid.max(axis=0), fine=None)


def means(measures: Measures) -> dict[str, float]:
    """Mean of every measure of one image; NaN where it has no such pixel."""
    return {name: total / count if count else math.nan for name, (total, count) in measures.items()}


def summarise(images: Sequence[Measures]) -> dict[str, float]:
    """Totals of many images.

    Number of `images` and of valid `pixels`. Of every measure the mean over the images that have such pixels (`epe`)
    and the mean over all pixels (`epe.pooled`), NaN without any. Of those in `WHOLE` the mean over the images that
    have the measure (`ap_mask`) and how many these are (`ap_mask.images`).
    """
    result = {"images": len(images), "pixels": sum(image["epe"][1] for image in images)}
    for name in dict.fromkeys(name for image in images for name in image):
        counted = [image[name] for image in images if name in image and image[name][1]]
        result[name] = float(np.mean([total / count for total, count in counted])) if counted else math.nan
        if name in WHOLE:
            result[name + COUNTED] = len(counted)
        else:
            pixels = sum(count for _, count in counted)
            result[name + POOLED] = sum(total for total, _ in counted) / pixels if pixels else math.nan
    return result


def log_line(steps: int, totals: Mapping[str, Mapping[str, float]]) -> str:
    """Format `steps=S, SET:epe=..., SET:epe.pooled=..., SET:fl=...` and so on for every set."""
    parts = [f"steps={steps}"]
    for name, total in totals.items():
        keys = (key for measure in HEADLINES for key in (measure, measure + POOLED) if key in total)
        parts += [f"{name}:{key}={total[key]:.4f}" for key in keys]
    return ", ".join(parts)


def write_csv(path: Path, results: Mapping[str, Sequence[ImageResult]]) -> None:
    """Write a row for every image: set, name, height, width, valid pixels, and every measure.

    A cell is empty where the image has no such pixel, or the measure is no number.
    """
    names = list(dict.fromkeys(name for images in results.values() for i in images for name in i.measures))
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "name", "height", "width", "pixels", *names])
        for set_name, images in results.items():
            for image in images:
                values = means(image.measures)
                row = [set_name, image.name, image.height, image.width, image.measures["epe"][1]]
                writer.writerow(row + [_or_none(values.get(name, math.nan)) for name in names])


def write_json(path: Path, content: Mapping) -> None:
    """Write totals; `content["sets"]` holds numbers by set and measure, NaN becomes null."""
    sets = {name: {key: _or_none(value) for key, value in total.items()} for name, total in content["sets"].items()}
    write_bytes(path, (json.dumps({**content, "sets": sets}, indent=2, allow_nan=False) + "\n").encode())


def _or_none(value):
    return value if math.isfinite(value) else None
