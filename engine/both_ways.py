"""Flow in both directions, predicted as one batch, and the confidence that follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import numpy as np

from engine.confidence import consistency
from engine.predictions import ConfidentPrediction
from engine.sizing import Sizing

if TYPE_CHECKING:
    from engine.interface import Engine


def submit_both_ways(
    engine: Engine,
    image_1: np.ndarray,
    image_2: np.ndarray,
    sizing: Sizing = Sizing(),  # noqa: B008 - frozen
    mask: bool = True,
    warped: bool = True,
) -> Callable[[], ConfidentPrediction]:
    """As `Engine.submit`, with the confidence of `engine.confidence` beside the prediction.

    The N pairs and their swaps go to the engine as one batch of 2N.
    """
    count = len(image_1)
    there_and_back = np.concatenate([image_1, image_2]), np.concatenate([image_2, image_1])
    prediction = engine.submit(*there_and_back, sizing, mask, warped)

    def result() -> ConfidentPrediction:
        arrays = prediction()
        backward = arrays.flow[count:]
        flow, *others = (None if array is None else array[:count] for array in arrays)
        confidences = [consistency(*flows).confidence for flows in zip(flow, backward)]
        return ConfidentPrediction(flow, *others, np.stack(confidences)[..., None])

    return result
