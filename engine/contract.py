"""What passes between an engine and those who use its flow: predictions, labels, measures.

At which size the network sees an image, and how its flow gets back to the image's size.

The processes that train together, as each of them sees the others.

What every engine offers, whatever executes its graph.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np
from maskflownet.checkpoints.checkpoint import Checkpoint, check_multiplier, match_network, save_checkpoint
from maskflownet.checkpoints.records import Record
from maskflownet.errors import UserError
from maskflownet.network.architecture import HEAD, MULTIPLE
from maskflownet.network.draws import AugmentationRanges
from maskflownet.reader.sample import Sample
from maskflownet.settings.configs import NetworkConfig, Optimizer


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


def equal_sizes(items: Iterable, most: int, shape: Callable) -> Iterator[list]:
    """Consecutive items of equal shape, at most `most` at a time: what an engine takes as one batch."""
    for _, group in groupby(items, shape):
        while batch := list(islice(group, most)):
            yield batch


def singles(prediction: Prediction) -> Iterator[Prediction]:
    """The predictions of N pairs one by one, without batch axis."""
    for i in range(len(prediction.flow)):
        yield type(prediction)(*(None if array is None else array[i] for array in prediction))


LARGEST = 16384  # px a side


def _round_up(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE


@dataclass(frozen=True)
class Sizing:
    """The size of the network's input.

    Without options the next multiples of 64; `resize` (H, W) instead; or with `pad` the image is
    not scaled but its edges are repeated, the same amount on both sides, to multiples of 64.
    """

    resize: tuple[int, int] | None = None
    pad: bool = False

    def __post_init__(self):
        if self.pad and self.resize:
            raise UserError("--resize and --pad exclude each other")
        if self.resize and max(self.resize) > LARGEST:
            raise UserError(f"--resize is at most {LARGEST} px a side, not {max(self.resize)}")
        if self.resize and any(side < MULTIPLE or side % MULTIPLE for side in self.resize):
            height, width = self.resize
            raise UserError(
                f"--resize {height},{width} is not possible: height and width must be multiples "
                f"of {MULTIPLE}, such as {_round_up(max(height, 1))},{_round_up(max(width, 1))}"
            )

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        return self.resize or (_round_up(height), _round_up(width))

    def padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Pixels to add at the top, bottom, left and right."""
        extra_h, extra_w = _round_up(height) - height, _round_up(width) - width
        return extra_h // 2, extra_h - extra_h // 2, extra_w // 2, extra_w - extra_w // 2

    def fitting(self, height: int, width: int, pad: Callable, resize: Callable):
        """Functions that bring images (N, C, H, W) to the network's size, and its outputs back.

        The second one returns the outputs and the factors (y, x) from network to image pixels.

        Parameters
        ----------
        height, width : int
            Of the images, px.
        pad : callable(x, top, bottom, left, right)
            An engine's repetition of the edges.
        resize : callable(x, height, width)
            An engine's bilinear resizing, corners aligned.
        """
        if self.pad:
            sides = self.padding(height, width)
            top, _, left, _ = sides

            def fit(x):
                return pad(x, *sides)

            def unfit(x):
                return x[:, :, top : top + height, left : left + width], (1, 1)

        else:
            size = self.network_size(height, width)

            def fit(x):
                return resize(x, *size)

            def unfit(x):
                return resize(x, height, width), (height / size[0], width / size[1])

        return fit, unfit


# Of what `torchrun` sets, the names that say where a process stands.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def under_torchrun() -> bool:
    """Whether `torchrun` started this process."""
    return all(name in os.environ for name in TORCHRUN)


def refuse_torchrun(what: str) -> None:
    """Raise a UserError if `torchrun` started what a single process does."""
    if under_torchrun():
        raise UserError(f"{what} is not for torchrun, which is for training with main.py")


@dataclass(frozen=True)
class Workers:
    """This process among those that train together; by itself it is the only one.

    Attributes
    ----------
    rank, world : int
        Number of this worker and of all; each has a batch of its own.
    share : (int, int)
        (i, n): of its worker's batch this process takes the i-th of n equal slices.
    """

    rank: int = 0
    world: int = 1
    share: tuple[int, int] = (0, 1)

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, logs and saves."""
        return self.rank == 0 and self.share[0] == 0

    def agree(self, stop: bool) -> bool:
        """Whether one of the processes wants to stop; all must ask, and get the same answer.

        Raises
        ------
        PeerLost
            Another process has ended.
        """
        return stop

    def gather(self, names: list[str]) -> list[str]:
        """The names that all processes give, in their order; all must ask."""
        return names

    def copy_first(self, tensor) -> None:
        """Overwrite a tensor of the engine with that of the first process; all must ask."""

    def sum(self, tensor) -> None:
        """Overwrite a tensor of the engine with its sum over all processes; all must ask."""

    def lost(self) -> bool:
        """Whether it is known that another process has ended."""
        return False

    def close(self) -> None:
        """Part from the others."""


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
