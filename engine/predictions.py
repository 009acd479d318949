"""What passes between an engine and those who use its flow: predictions, labels, measures."""

from __future__ import annotations

from typing import Iterator, NamedTuple

import numpy as np

from reader.sample import Sample


class Prediction(NamedTuple):
    """What is predicted for N pairs, at the size of the images; None where it was not asked for."""

    flow: np.ndarray  # (N, H, W, 2) float32, px, (u, v)
    mask: np.ndarray | None  # (N, H, W, 1) float32 in [0, 1], 1 = visible in the second image
    warped: np.ndarray | None  # (N, H, W, 3) float32 in [0, 1], image 2 aligned to image 1


class ConfidentPrediction(NamedTuple):
    """A Prediction, and how far its flow agrees with that of the opposite direction."""

    flow: np.ndarray  # as in Prediction, like the next two
    mask: np.ndarray | None
    warped: np.ndarray | None
    confidence: np.ndarray  # (N, H, W, 1) float32 in [0, 1], above 1/2 = consistent


class Labelled(NamedTuple):
    """A sample whose flow is to be measured; None where its data set has no such array."""

    sample: Sample
    occlusion: np.ndarray | None = None  # (H, W, 1) uint8, above 0 = not visible in image 2
    noc: np.ndarray | None = None  # (H, W, 1) uint8, above 0 = valid and visible in image 2


class Measured(NamedTuple):
    """The measures of a labelled pair, and the prediction that they are of."""

    measures: dict[str, tuple[float, int]]  # as `engine.metrics.measure` gives them
    prediction: Prediction | ConfidentPrediction  # of this pair alone, without batch axis


def singles(prediction: Prediction) -> Iterator[Prediction]:
    """The predictions of N pairs one by one, without batch axis."""
    for i in range(len(prediction.flow)):
        yield type(prediction)(*(None if array is None else array[i] for array in prediction))
