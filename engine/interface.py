"""What every engine offers, whatever executes its graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from engine.checkpoint import Checkpoint, save_checkpoint
from engine.metrics import Totals, measure
from engine.records import Record
from engine.sizing import Sizing


class Prediction(NamedTuple):
    """What is predicted for N pairs, at the size of the images; None where it was not asked for."""

    flow: np.ndarray  # (N, H, W, 2) float32, px, (u, v)
    mask: np.ndarray | None  # (N, H, W, 1) float32 in [0, 1], 1 = visible in the second image
    warped: np.ndarray | None  # (N, H, W, 3) float32 in [0, 1], image 2 aligned to image 1


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

    def validate(self, batches, sizing: Sizing = Sizing()) -> Totals:  # noqa: B008 - frozen
        """Measure the flow of labelled pairs.

        Parameters
        ----------
        batches : iterable
            Tuples (image_1, image_2, flow, mask, occlusion) with a leading axis of N; mask and
            occlusion may be None.
        """
        totals = Totals()
        for image_1, image_2, labels, masks, occlusions in batches:
            flows = self.predict(image_1, image_2, sizing, mask=False, warped=False).flow
            for i, (flow, label) in enumerate(zip(flows, labels)):
                mask = None if masks is None else masks[i]
                occlusion = None if occlusions is None else occlusions[i]
                totals.add(measure(flow, label, mask, occlusion))
        return totals
