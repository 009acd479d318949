"""Measures of a confidence against the true error and the true occlusion."""

from __future__ import annotations

from typing import Mapping

import numpy as np

from engine.metrics import end_point_error, plane, sum_and_count, valid_pixels, whole

CONSISTENT_ABOVE = 0.5  # what `engine.confidence` gives to an error at the tolerance


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the curve of precision over recall.

    The sum of (R_n - R_(n-1)) P_n over all thresholds n on the score, of the precision P and the
    recall R of what is above (Manning et al., Introduction to Information Retrieval, 2008, section
    8.4). Equal scores are one threshold. A score without any knowledge has the share of the
    positives.

    Parameters
    ----------
    score : array
        The larger, the sooner positive.
    positive : bool array of the same shape

    Returns
    -------
    float
        In [0, 1]; NaN where nothing is positive.
    """
    if not positive.any():
        return float("nan")
    score, positive = score.ravel(), positive.ravel()
    order = np.argsort(-score)
    ends = _group_starts(score[order])[1:] - 1  # of equal scores, the last
    hits = np.cumsum(positive[order])[ends]
    recall = hits / hits[-1]
    return float((np.diff(recall, prepend=0) * hits / (ends + 1)).sum())


def sparsification_error(confidence: np.ndarray, error: np.ndarray) -> float:
    """Area under the sparsification error curve (AUSE).

    The mean error of the pixels that remain when the least confident are taken away, less that when
    the pixels with the largest error are taken away, both relative to the mean error of all pixels
    and averaged over all numbers of remaining pixels (Ilg et al., Uncertainty Estimates and
    Multi-Hypotheses Networks for Optical Flow, ECCV 2018). Equal confidences are taken away in
    random order, of which this is the expectation.

    Parameters
    ----------
    confidence : array
    error : array of the same shape, px

    Returns
    -------
    float
        0 = the order of the true errors; NaN without pixels.
    """
    confidence, error = confidence.ravel(), error.ravel().astype(np.float64)
    if not error.size:
        return float("nan")
    if not error.any():
        return 0.0
    order = np.argsort(-confidence)
    starts = _group_starts(confidence[order])
    sizes = np.diff(starts)
    expected = np.repeat(np.add.reduceat(error[order], starts[:-1]) / sizes, sizes)
    excess = np.cumsum(expected) - np.cumsum(np.sort(error))
    remaining = np.arange(1, error.size + 1)
    return float((excess / remaining).mean() / error.mean())


def _group_starts(ordered: np.ndarray) -> np.ndarray:
    """Where runs of equal values begin, and the length of the whole at the end."""
    return np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1, [len(ordered)]])


def measure_confidence(
    prediction, label, mask=None, occlusion=None, noc=None
) -> dict[str, tuple[float, int]]:
    """Measure the confidence of one image, and the learned mask as if it were one.

    Parameters
    ----------
    prediction : ConfidentPrediction
        Of one image, with its mask.
    label, mask, occlusion, noc
        As `engine.metrics.measure` takes them. Occluded is what `occlusion` says or, without it,
        what is valid and not in `noc`.

    Returns
    -------
    dict
        As (sum, number of pixels): `consistent`, the share of consistent pixels, `epe_consistent`
        and `epe_inconsistent`, the EPE of these and of the others, and, where occlusion is known,
        `occluded`, the share of occluded pixels. As measures of the whole image: `ause_confidence`
        and `ause_mask` (`sparsification_error`), and, where occlusion is known, `ap_confidence` and
        `ap_mask`, the average precision with which 1 - confidence and 1 - mask find the occluded
        pixels; none where nothing is occluded. Only valid pixels count.
    """
    valid = valid_pixels(label, mask)
    error = end_point_error(prediction.flow, np.where(valid[..., None], label, 0))
    consistent = prediction.confidence[..., 0] > CONSISTENT_ABOVE
    result = {
        "consistent": sum_and_count(consistent, valid),
        "epe_consistent": sum_and_count(error, valid & consistent),
        "epe_inconsistent": sum_and_count(error, valid & ~consistent),
    }
    scores = {
        "confidence": prediction.confidence[..., 0][valid],
        "mask": prediction.mask[..., 0][valid],
    }
    for name, score in scores.items():
        result[f"ause_{name}"] = whole(sparsification_error(score, error[valid]))
    if occlusion is None and noc is None:
        return result
    occluded = plane(occlusion) if occlusion is not None else ~plane(noc)
    result["occluded"] = sum_and_count(occluded, valid)
    for name, score in scores.items():
        result[f"ap_{name}"] = whole(average_precision(-score, occluded[valid]))
    return result


def describe_confidence(total: Mapping[str, float]) -> str:
    """One line about a set's totals, as `engine.metrics.Totals.summary` gives them."""
    parts = [
        f"{100 * total['consistent']:.1f} % of a picture consistent, epe there "
        f"{total['epe_consistent']:.3f} px, elsewhere {total['epe_inconsistent']:.3f}",
        f"AUSE {total['ause_confidence']:.3f} (mask {total['ause_mask']:.3f})",
    ]
    if "ap_confidence" in total:
        parts.append(
            f"average precision for occlusion {total['ap_confidence']:.3f} "
            f"(mask {total['ap_mask']:.3f}, occluded {total['occluded']:.3f})"
        )
    return "; ".join(parts)
