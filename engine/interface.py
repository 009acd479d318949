"""What every engine offers, whatever executes its graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Sequence

import numpy as np

from engine.checkpoint import Checkpoint, save_checkpoint
from engine.metrics import measure
from engine.records import Record
from engine.sizing import Sizing
from reader.sample import Sample


class Prediction(NamedTuple):
    """What is predicted for N pairs, at the size of the images; None where it was not asked for."""

    flow: np.ndarray  # (N, H, W, 2) float32, px, (u, v)
    mask: np.ndarray | None  # (N, H, W, 1) float32 in [0, 1], 1 = visible in the second image
    warped: np.ndarray | None  # (N, H, W, 3) float32 in [0, 1], image 2 aligned to image 1


class Labelled(NamedTuple):
    """A sample whose flow is to be measured; None where its data set has no such array."""

    sample: Sample
    occlusion: np.ndarray | None = None  # (H, W, 1) uint8, above 0 = not visible in image 2
    noc: np.ndarray | None = None  # (H, W, 1) uint8, above 0 = valid and visible in image 2


class Engine(ABC):
    """A network on its devices.

    Attributes
    ----------
    record : Record
        Of the checkpoint that was loaded last.
    """

    record: Record

    @abstractmethod
    def load(self, checkpoint: Checkpoint) -> None:
        """Take over the parameters of a checkpoint, or those of its head."""

    @abstractmethod
    def parameters(self) -> dict[str, np.ndarray]:
        """The network's parameters by structural name."""

    @abstractmethod
    def predict(
        self,
        image_1: np.ndarray,
        image_2: np.ndarray,
        sizing: Sizing = Sizing(),  # noqa: B008 - frozen
        mask: bool = True,
        warped: bool = True,
    ) -> Prediction:
        """Predict the flow of N pairs of equal size.

        Parameters
        ----------
        image_1, image_2 : (N, H, W, 3) uint8 arrays, RGB
        sizing : Sizing
            The size at which the network sees them.
        mask, warped : bool
            Whether to compute these outputs.
        """

    def save(self, path, record: Record, dtype: str = "float32") -> None:
        """Write the parameters and their record; float16 halves the file."""
        save_checkpoint(path, self.parameters(), record, dtype)

    def validate(
        self,
        batch: Sequence[Labelled],
        sizing: Sizing = Sizing(),  # noqa: B008 - frozen
    ) -> list[dict[str, tuple[float, int]]]:
        """Measure the flow of labelled pairs of equal size, predicted at once.

        Parameters
        ----------
        batch : sequence of Labelled
        sizing : Sizing
            The size at which the network sees them.

        Returns
        -------
        list of dict
            The measures of each pair as `engine.metrics.measure` gives them.
        """
        images_1 = np.stack([pair.sample.img1 for pair in batch])
        images_2 = np.stack([pair.sample.img2 for pair in batch])
        flows = self.predict(images_1, images_2, sizing, mask=False, warped=False).flow
        return [
            measure(flow, pair.sample.flow, pair.sample.mask, pair.occlusion, pair.noc)
            for flow, pair in zip(flows, batch)
        ]
