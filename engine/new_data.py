"""Flow for a user's own images and videos, from files to files."""

from __future__ import annotations

import time
from contextlib import ExitStack
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from engine.errors import UserError
from engine.outputs import FIRST_NUMBER, Output, check_output, writing
from engine.predictor import Predictor

SCALE_PAIRS = 5  # of a sequence, looked at before it to choose one colour scale for all its frames
SCALE_PERCENTILE = 99  # of their motions: a few wild pixels shall not make the whole video pale


class Summary(NamedTuple):
    """What a call of `predict_files` did."""

    pairs: int
    height: int
    width: int
    seconds: float
    largest: float  # px, the largest motion predicted
    max_flow: float | None  # px, the scale of the colours


def check_outputs(
    source, flow, mask=None, warped=None, also=None, kitti=False, confidence=None
) -> list[Output]:
    """Check all names at once; `also` is a second name for the flow."""
    wanted = [(flow, "flow", kitti), (also, "flow", False)]
    wanted += [(mask, "mask", False), (warped, "warped", False), (confidence, "confidence", False)]
    outputs = [
        check_output(path, role, source.is_sequence, in_kitti)
        for path, role, in_kitti in wanted
        if path is not None
    ]
    taken = {path.resolve() for path in source.paths}
    for output in outputs:
        numbers = range(FIRST_NUMBER, FIRST_NUMBER + source.count)
        paths = {output.path_of(number, source.is_sequence).resolve() for number in numbers}
        if paths & taken:
            raise UserError(f"{output.path} is named twice, or is one of the inputs")
        taken |= paths
    return outputs


def predict_files(
    predictor: Predictor,
    source,
    outputs: list[Output],
    max_flow: float | None = None,
    rate: Fraction | None = None,
) -> Summary:
    """Predict every pair of a source and write the outputs as a stream.

    Parameters
    ----------
    predictor : Predictor
    source : Pair, Folder or Video
    outputs : list of Output
    max_flow : float, optional
        Motion in px that is drawn with full colour. Without it the largest motion of the pair; of
        a sequence the 99th percentile in that of five pairs spread over it which moves most.
    rate : Fraction, optional
        Frames per second of written videos; those of the source without it.
    """
    started = time.perf_counter()
    roles = {output.role for output in outputs}
    if max_flow is None and source.is_sequence and any(o.needs_scale for o in outputs):
        max_flow = _usual_motion(predictor, source.sample(SCALE_PAIRS))
    stream = predictor.stream(
        source.pairs(), **{role: role in roles for role in ("mask", "warped", "confidence")}
    )
    largest = 0.0
    with ExitStack() as stack:
        size = (source.height, source.width)
        writers = [
            stack.enter_context(
                writing(output, source.is_sequence, rate or source.rate, size, max_flow)
            )
            for output in outputs
        ]
        bar = stack.enter_context(
            tqdm(total=source.count, unit="pair", disable=None if source.is_sequence else True)
        )
        for prediction in stream:
            if not np.isfinite(prediction.flow).all():
                raise UserError("the network predicts values that are no numbers")
            largest = max(largest, float(_lengths(prediction.flow).max()))
            for write in writers:
                write(prediction)
            bar.update()
    seconds = time.perf_counter() - started
    return Summary(source.count, *size, seconds, largest, max_flow or largest)


def _lengths(flow: np.ndarray) -> np.ndarray:
    """Motion of each pixel of a flow (H, W, 2): (H, W), px."""
    return np.hypot(flow[..., 0], flow[..., 1])


def _usual_motion(predictor: Predictor, pairs) -> float:
    stream = predictor.stream(pairs, mask=False, warped=False)
    return max(float(np.percentile(_lengths(p.flow), SCALE_PERCENTILE)) for p in stream)
