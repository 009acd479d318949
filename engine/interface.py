"""What every engine offers, whatever executes its graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Callable, NamedTuple, Sequence

import numpy as np

from engine.both_ways import submit_both_ways
from engine.checkpoint import (
    HEAD,
    Checkpoint,
    check_multiplier,
    match_network,
    save_checkpoint,
)
from engine.confidence_measures import measure_confidence
from engine.config import NetworkConfig, Optimizer
from engine.errors import UserError
from engine.metrics import measure
from engine.predictions import ConfidentPrediction, Labelled, Measured, Prediction, singles
from engine.records import Record
from engine.sizing import Sizing
from network.augmentation_ranges import AugmentationRanges


class TrainingSettings(NamedTuple):
    """What a training step depends on beside the parameters and the batch.

    `rank` of `world` workers, each with a batch of its own, of which this process has the part
    `share`, (i, n) = the i-th of n equal slices.
    """

    optimizer: Optimizer
    loss_weights: tuple
    original: tuple[int, int]  # (H, W) px of the batch's arrays
    target: tuple[int, int]  # (H, W) px that the network sees
    augmentation: AugmentationRanges | None
    seed: int
    rank: int = 0
    world: int = 1
    share: tuple[int, int] = (0, 1)


class StepResult(NamedTuple):
    """What a training step reports: means over the batch, before the update."""

    loss: float
    epe: float  # px, of the finest prediction


class Step(ABC):
    """A training step that was started: its parts in the order of their calls.

    What an engine can leave to its device it does not wait for before `result`, so that the next
    batch can be loaded, and the next step started, meanwhile.
    """

    @abstractmethod
    def finish(self, learning_rate: float) -> None:
        """Update the parameters, which are untouched until then."""

    @abstractmethod
    def result(self) -> StepResult:
        """Wait for the update.

        Raises
        ------
        NotFinite
            The loss is NaN or infinite; the parameters are those from before the step.
        """


class WholeStep(Step):
    """A step that is done as a whole when it is finished."""

    def __init__(self, compute: Callable[[float], StepResult]):
        self._compute = compute

    def finish(self, learning_rate: float) -> None:
        self._result = self._compute(learning_rate)

    def result(self) -> StepResult:
        return self._result


class Training(ABC):
    """An engine's network in training: its loss, augmentation and optimiser."""

    def host_memory(self, size: int) -> np.ndarray:
        """Return (size,) bytes of memory, from which batches reach the device most quickly."""
        return np.empty(size, np.uint8)

    def start(self, batch, step: int) -> Step:
        """Begin to train on one batch; the step before must have been finished.

        Parameters
        ----------
        batch : reader.loader.Batch
            Its arrays must stay as they are until the result is there.
        step : int
            Steps done before; with the seed it decides all random draws.
        """
        return WholeStep(lambda learning_rate: self.step(batch, step, learning_rate))

    @abstractmethod
    def step(self, batch, step: int, learning_rate: float) -> StepResult:
        """Train on one batch.

        Parameters
        ----------
        batch : reader.loader.Batch
        step : int
            Steps done before; with the seed it decides all random draws.
        learning_rate : float

        Raises
        ------
        NotFinite
            The loss is NaN or infinite; the parameters are those from before the step.
        """

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """The optimiser's state: `mean.NAME` and `var.NAME` of every trained parameter."""

    @abstractmethod
    def load_state(self, state: dict[str, np.ndarray], step: int) -> None:
        """Take over the optimiser's state after `step` steps."""


class NotFinite(UserError):
    """The loss became NaN or infinite."""


class PeerLost(UserError):
    """Another process of this training ended before its time; the parameters are still good.

    Attributes
    ----------
    advice : str
        How to go on, from the process that saves.
    """

    def __init__(self, advice: str = ""):
        ended = "another process of this training ended"
        super().__init__(f"{ended}: {advice}" if advice else ended)
        self.advice = advice


class Engine(ABC):
    """A network on its devices.

    Attributes
    ----------
    name : str
        Of what executes the graph, as records say it.
    devices : int
        That share a batch evenly.
    precision : str
        Of the network's matrix products: float32, tf32 or bf16.
    ahead : int
        Batches that are worth submitting before the first one's result is asked for.
    config : NetworkConfig
    record : Record
        Of the checkpoint that was loaded last.
    """

    name: str
    devices: int
    record: Record
    config: NetworkConfig
    precision = "float32"
    ahead = 0

    @abstractmethod
    def rebuild(self, record: Record) -> None:
        """Make the network that a record asks for, with fresh parameters, and keep the record."""

    @abstractmethod
    def parameters(self) -> dict[str, np.ndarray]:
        """The network's parameters by structural name, float32."""

    @abstractmethod
    def assign(self, parameters: dict[str, np.ndarray]) -> None:
        """Overwrite the parameters of these names."""

    def shapes(self, prefix: str = "") -> dict[str, tuple]:
        """Shapes of the parameters whose names begin with `prefix`, by the rest of the name."""
        arrays = self.parameters().items()
        return {n[len(prefix) :]: array.shape for n, array in arrays if n.startswith(prefix)}

    def load(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint, or the head of one where this is the head's network.

        Raises
        ------
        UserError
            It is of the other network, or was trained with another flow_multiplier.
        """
        network = self.config.network.class_
        checkpoint = match_network(checkpoint, network, self.shapes())
        check_multiplier(checkpoint, self.config)
        self.rebuild(checkpoint.record)
        self.assign(checkpoint.parameters)

    def load_for_training(self, checkpoint: Checkpoint) -> None:
        """As `load`, but a MaskFlownet_S checkpoint becomes the head of a MaskFlownet."""
        networks = checkpoint.record.network, self.config.network.class_
        if networks != ("MaskFlownet_S", "MaskFlownet"):
            self.load(checkpoint)
            return
        checkpoint = match_network(checkpoint, "MaskFlownet_S", self.shapes(HEAD))
        check_multiplier(checkpoint, self.config)
        self.rebuild(replace(self.record, colour=checkpoint.record.colour))
        self.assign({HEAD + name: array for name, array in checkpoint.parameters.items()})

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

    def submit(
        self,
        image_1: np.ndarray,
        image_2: np.ndarray,
        sizing: Sizing = Sizing(),  # noqa: B008 - frozen
        mask: bool = True,
        warped: bool = True,
    ) -> Callable[[], Prediction]:
        """As `predict`, but gives a function that waits for the prediction, to be called once."""
        prediction = self.predict(image_1, image_2, sizing, mask, warped)
        return lambda: prediction

    @abstractmethod
    def training(self, settings: TrainingSettings) -> Training:
        """Begin to train; the first stage inside MaskFlownet stays frozen."""

    def close(self) -> None:  # noqa: B027 - most engines have nothing to do
        """Part from the other worker processes."""

    def save(self, path, record: Record, dtype: str = "float32") -> None:
        """Write the parameters and their record; float16 halves the file."""
        save_checkpoint(path, self.parameters(), record, dtype)

    def validate(
        self,
        batch: Sequence[Labelled],
        sizing: Sizing = Sizing(),  # noqa: B008 - frozen
        mask: bool = False,
        confidence: bool = False,
    ) -> list[Measured]:
        """Measure the flow of labelled pairs of equal size, predicted at once.

        Parameters
        ----------
        batch : sequence of Labelled
        sizing : Sizing
            The size at which the network sees them.
        mask : bool
            Whether to predict the mask, too.
        confidence : bool
            Whether to predict the opposite direction and the mask, too, and to measure the
            confidence: the predictions are ConfidentPredictions.
        """
        images_1 = np.stack([pair.sample.img1 for pair in batch])
        images_2 = np.stack([pair.sample.img2 for pair in batch])
        if confidence:
            prediction = submit_both_ways(self, images_1, images_2, sizing, warped=False)()
        else:
            prediction = self.predict(images_1, images_2, sizing, mask=mask, warped=False)
        return [_measured(single, pair) for single, pair in zip(singles(prediction), batch)]


def _measured(prediction: Prediction | ConfidentPrediction, pair: Labelled) -> Measured:
    truth = pair.sample.flow, pair.sample.mask, pair.occlusion, pair.noc
    measures = measure(prediction.flow, *truth)
    if isinstance(prediction, ConfidentPrediction):
        measures.update(measure_confidence(prediction, *truth))
    return Measured(measures, prediction)
