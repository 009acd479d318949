"""Confidence of a flow by its consistency with the flow of the opposite direction.

A pixel of image 1 that is visible in image 2 is led there by the forward flow f and back by the backward flow b:
f(x) + b(x + f(x)) is about zero. Where it is occluded, leaves the picture or was matched wrongly, the way back
usually ends elsewhere.
"""

from collections.abc import Callable, Mapping

import numpy as np
from maskflownet.engine.contract import BORDER, SHARE, SLACK, ConfidentPrediction, Drawing, Drawn, Engine, Sizing, draw
from maskflownet.inference.metrics import COUNTED, Measures, end_point_error, plane, sum_and_count

HUGE = np.float32(1e30)  # px, whose square is infinite
CONSISTENT_ABOVE = 0.5  # the confidence of an error at the tolerance


def submit_both_ways(
    engine: Engine,
    image_1: np.ndarray,
    image_2: np.ndarray,
    sizing: Sizing,
    mask: bool = True,
    warped: bool = True,
    drawing: Drawing | None = None,
) -> Callable[[], ConfidentPrediction | Drawn]:
    """As `Engine.submit`, with the confidence beside the prediction; drawn where a drawing is asked for.

    The N pairs and their swaps go to the engine as one batch of 2N.
    """
    count = len(image_1)
    there_and_back = np.concatenate([image_1, image_2]), np.concatenate([image_2, image_1])
    prediction = engine.submit(*there_and_back, sizing, mask, warped)

    def result() -> ConfidentPrediction | Drawn:
        arrays = prediction()
        flow, *others = (None if array is None else array[:count] for array in arrays)
        confidences = [consistency(*flows) for flows in zip(flow, arrays.flow[count:])]
        confident = ConfidentPrediction(flow, *others, np.stack(confidences)[..., None])
        return confident if drawing is None else draw(confident, drawing)

    return result


def consistency(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Confidence of the flow from image 1 to image 2, given the one back, (H, W, 2) float32 px each: (H, W) float32.

    1 / (1 + |f(x) + b(x + f(x))|^2 / (0.01 (|f|^2 + |b|^2) + 0.5)): 1 where the way back ends where it began, 1/2 at
    the tolerance, 0 where the flow leaves the picture or one of the two is no number.
    """
    forward = np.asarray(forward, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a way back that is no number is none
        back, inside = look_up(backward, forward)
        tolerance = SHARE * (_squares(forward) + _squares(back)) + np.float32(SLACK)  # px^2
        confidence = 1 / (1 + _squares(forward + back) / tolerance)
    return np.where(inside & np.isfinite(confidence), confidence, np.float32(0))


def look_up(field: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A field of image 2, (H, W, 2) float32, at the points x + flow(x), and where these are inside, (H, W) bool.

    The picture ends half a pixel beyond the centres of its outermost pixels, where the nearest one counts. The values
    are 0 outside, as where the flow is no number, and huge where the field is none. They are interpolated bilinearly,
    by SciPy, since `cv2.remap` rounds the points to 1/32 px.
    """
    from scipy.ndimage import map_coordinates  # noqa: PLC0415 - slow, and most predictions do without

    height, width = flow.shape[:2]
    y, x = np.indices((height, width), np.float32) + np.moveaxis(flow[..., ::-1], -1, 0)
    # So written that what is no number lies outside.
    inside = (x >= -BORDER) & (x <= width - 1 + BORDER) & (y >= -BORDER) & (y <= height - 1 + BORDER)
    points = np.where(inside, (y, x), 0)
    # At a pixel's centre the next one has the weight 0, and 0 x infinity would be no number.
    field = np.nan_to_num(field, nan=HUGE, posinf=HUGE, neginf=-HUGE)
    values = [map_coordinates(field[..., i], points, np.float32, order=1, mode="nearest") for i in (0, 1)]
    return np.where(inside, values, np.float32(0)).transpose(1, 2, 0), inside


def _squares(flow: np.ndarray) -> np.ndarray:
    return np.square(flow[..., 0]) + np.square(flow[..., 1])


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the curve of precision over recall, in [0, 1]; NaN where nothing of the bool array is positive.

    The sum of (R_n - R_(n-1)) P_n over all thresholds n on the score, of the precision P and the recall R of what is
    above (Manning et al., Introduction to Information Retrieval, 2008, section 8.4). Equal scores are one threshold:
    a constant score gives the share of the positives.
    """
    if not positive.any():
        return float("nan")
    _, group, sizes = np.unique(-score.ravel(), return_inverse=True, return_counts=True)
    found = np.bincount(group, positive.ravel())
    precision = found.cumsum() / sizes.cumsum()
    return float((found / found.sum() * precision).sum())


def sparsification_error(confidence: np.ndarray, error: np.ndarray) -> float:
    """Area under the sparsification error curve (AUSE); 0 = the order of the true errors (px), NaN without pixels.

    The mean error of the pixels that remain when the least confident are taken away, less that when the pixels with
    the largest error are taken away, both relative to the mean error of all pixels and averaged over all numbers of
    remaining pixels (Ilg et al., Uncertainty Estimates and Multi-Hypotheses Networks for Optical Flow, ECCV 2018).
    Equal confidences are taken away in random order, of which this is the expectation.
    """
    confidence, error = confidence.ravel(), error.ravel().astype(np.float64)
    if not error.size:
        return float("nan")
    if not error.any():
        return 0.0
    _, group, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    expected = np.repeat(np.bincount(group, error) / sizes, sizes)
    excess = np.cumsum(expected) - np.cumsum(np.sort(error))
    remaining = np.arange(1, error.size + 1)
    return float((excess / remaining).mean() / error.mean())


def measure_confidence(prediction: ConfidentPrediction, label, valid, occlusion=None, noc=None) -> Measures:
    """Measure the confidence of one image, and the learned mask as if it were one.

    Label and masks are those of `metrics.measure`. Occluded is what `occlusion` says or, without it, what is valid
    and not in `noc`. Only valid pixels count.

    `consistent` is the share of consistent pixels, `epe_consistent` and `epe_inconsistent` are the EPE of these and of
    the others, `ause_confidence` and `ause_mask` the `sparsification_error`. Where occlusion is known, `occluded` is
    the share of occluded pixels; `ap_confidence` and `ap_mask` are the average precision with which 1 - confidence and
    1 - mask find them.
    """
    valid = plane(valid)
    error = end_point_error(prediction.flow, label)
    consistent = prediction.confidence[..., 0] > CONSISTENT_ABOVE
    result = {
        "consistent": sum_and_count(consistent, valid),
        "epe_consistent": sum_and_count(error, valid & consistent),
        "epe_inconsistent": sum_and_count(error, valid & ~consistent),
    }
    scores = {name: getattr(prediction, name) for name in ("confidence", "mask")}
    scores = {name: score[..., 0][valid] for name, score in scores.items() if score is not None}
    for name, score in scores.items():
        result[f"ause_{name}"] = _of_image(sparsification_error(score, error[valid]))
    if occlusion is None and noc is None:
        return result
    occluded = plane(occlusion) if occlusion is not None else ~plane(noc)
    result["occluded"] = sum_and_count(occluded, valid)
    for name, score in scores.items():
        result[f"ap_{name}"] = _of_image(average_precision(-score, occluded[valid]))
    return result


def _of_image(value: float) -> tuple[float, int]:
    """A measure of an image as a whole; NaN = the image has none."""
    return (0.0, 0) if np.isnan(value) else (value, 1)


def describe_confidence(total: Mapping[str, float]) -> str:
    """One line about a set's totals, as `metrics.summarise` gives them."""
    parts = [
        f"{100 * total['consistent']:.1f} % of a picture consistent, epe there "
        f"{total['epe_consistent']:.3f} px, elsewhere {total['epe_inconsistent']:.3f}",
        f"AUSE {total['ause_confidence']:.3f} (mask {total['ause_mask']:.3f})",
    ]
    if "ap_confidence" in total:
        count = total[f"ap_confidence{COUNTED}"]
        parts.append(
            f"average precision for occlusion {total['ap_confidence']:.3f} "
            f"(mask {total['ap_mask']:.3f}, occluded {total['occluded']:.3f}), "
            f"over {count} image{'' if count == 1 else 's'} with occluded pixels"
        )
    return "; ".join(parts)
