"""What every engine offers, whatever executes its graph, and what passes between it and its users."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice, repeat
from typing import Any, NamedTuple

import numpy as np
from maskflownet.errors import UserError
from maskflownet.network.architecture import MULTIPLE
from maskflownet.processes import ENDED
from maskflownet.reader.colour import flow_to_colour, largest_motion

# Sundaram, Brox and Keutzer (ECCV 2010), equation 5: consistent where |f + b|^2 < SHARE (|f|^2 + |b|^2) + SLACK.
SHARE = 0.01
SLACK = 0.5  # px^2
BORDER = 0.5  # px; pixels are squares, so the picture reaches this far beyond their centres
LARGEST = 16384  # px a side of the network's input
# Of what `torchrun` sets, the names that say where a process stands.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


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


class Drawing(NamedTuple):
    """What a program that writes files asks of a flow."""

    max_flow: float | None  # px, drawn in full colour; None = no colours
    vectors: bool  # whether the flow itself is asked for


class Drawn(NamedTuple):
    """As a Prediction, of whose flow is told what a `Drawing` asks for; None where it was not asked for."""

    flow: np.ndarray | None
    mask: np.ndarray | None
    warped: np.ndarray | None
    confidence: np.ndarray | None
    largest: np.ndarray  # (N,) float32, px, the largest motion; not finite if a value of the flow is not
    colours: np.ndarray | None  # (N, H, W, 3) uint8 RGB


def draw(prediction: Prediction | ConfidentPrediction, drawing: Drawing) -> Drawn:
    """Draw flows that are on the host."""
    flow, mask, warped, *confidence = prediction
    return Drawn(
        flow if drawing.vectors else None,
        mask,
        warped,
        confidence[0] if confidence else None,
        np.stack([largest_motion(each, np) for each in flow]),
        None if drawing.max_flow is None else np.stack([flow_to_colour(each, drawing.max_flow) for each in flow]),
    )


def equal_sizes(items: Iterable, most: Callable, shape: Callable) -> Iterator[list]:
    """Consecutive items of equal shape, at most `most(shape)` at a time: what an engine takes as one batch."""
    for equal, group in groupby(items, shape):
        while batch := list(islice(group, most(equal))):
            yield batch


def singles(prediction: Prediction | ConfidentPrediction | Drawn) -> Iterator:
    """The predictions of N pairs one by one, without batch axis."""
    for arrays in zip(*(repeat(None) if array is None else array for array in prediction)):
        yield type(prediction)(*arrays)


def shares(count: int, devices: int) -> list[slice]:
    """Which of N pairs each device predicts; fewer shares where there are fewer pairs."""
    bounds = [round(i * count / devices) for i in range(devices + 1)]
    return [slice(a, b) for a, b in zip(bounds, bounds[1:]) if a < b]


def _round_up(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE


@dataclass(frozen=True)
class Sizing:
    """The size of the network's input: by default the next multiples of 64."""

    resize: tuple[int, int] | None = None  # (H, W) instead of them
    pad: bool = False  # reach them by repeating the edges, equally on both sides, not by scaling

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

    def fitting(self, height: int, width: int, pad: Callable, resize: Callable) -> tuple[Callable, Callable]:
        """Two functions: images (N, C, H, W) to the network's size, and outputs back.

        The second one returns the outputs and the factors (y, x) from network to image pixels.
        `pad(x, top, bottom, left, right)` repeats edges, `resize(x, height, width)` is bilinear with
        aligned corners; both are the engine's own.
        """
        if self.pad:
            more_h, more_w = _round_up(height) - height, _round_up(width) - width
            top, left = more_h // 2, more_w // 2
            sides = top, more_h - top, left, more_w - left
            rows, columns = slice(top, top + height), slice(left, left + width)
            return lambda x: pad(x, *sides), lambda x: (x[:, :, rows, columns], (1, 1))
        size = self.network_size(height, width)
        factors = height / size[0], width / size[1]
        return lambda x: resize(x, *size), lambda x: (resize(x, height, width), factors)


def device_ids(gpus: str, library: str, count: Callable[[], int | None]) -> list[int]:
    """The numbers in `-g 0,1`; none for the CPU.

    `count` says how many GPUs the library finds, None where it was built without CUDA. It is a UserError if the numbers
    are malformed or repeated, or there is no such GPU.
    """
    if not gpus.strip():
        return []
    try:
        ids = [int(part) for part in gpus.split(",")]
    except ValueError:
        ids = [-1]
    if min(ids) < 0 or len(set(ids)) != len(ids):
        raise UserError(f"-g {gpus} is no list of different device ids: write them as in -g 0,1")
    found = count()
    if found is None:
        raise UserError(
            f"-g {gpus} needs CUDA, for which this {library} was not built: install one that was "
            "(docs/install.md), or leave out -g to use the CPU"
        )
    if max(ids) >= found:
        raise UserError(f"there is no GPU {max(ids)}: {library} finds {found}, numbered from 0")
    return ids


def under_torchrun() -> bool:
    return all(name in os.environ for name in TORCHRUN)


def refuse_torchrun(what: str) -> None:
    if under_torchrun():
        raise UserError(f"{what} is not for torchrun, which is for training with main.py")


@dataclass(frozen=True)
class Processes:
    """The place of this process among those that train together; by itself it is the only one.

    They are numbered machine by machine, as `torchrun` does. Each machine has a batch of its own,
    which its processes split evenly. The collective calls below must be made by all processes, in
    the same order. They raise PeerLost if another process has ended.
    """

    rank: int = 0
    world_size: int = 1
    machines: int = 1

    @property
    def local_size(self) -> int:
        """Number of processes on each machine."""
        return self.world_size // self.machines

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, logs and saves."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """All-reduce: whether the flag is set in one of the processes."""
        return flag

    def all_gather(self, names: list[str]) -> list[str]:
        """The names that all processes give, in the order of the ranks."""
        return names

    def all_reduce(self, tensor) -> None:
        """Overwrite a tensor of the engine with its sum over all processes."""

    def broadcast(self, tensor) -> None:
        """Overwrite a tensor of the engine with that of the first process."""

    def lost(self) -> bool:
        """Whether it is known that another process has ended."""
        return False

    def close(self) -> None:
        """Part from the others."""


ALONE = Processes()


class TrainingSettings(NamedTuple):
    """What a training step depends on beside the parameters and the batch."""

    optimizer: Any  # settings.configs.Optimizer
    loss_weights: tuple  # of the five flows, coarse to fine
    original: tuple[int, int]  # (H, W) px of the batch's arrays: orig_shape, the crop
    target: tuple[int, int]  # (H, W) px that the network sees
    augmentation: Any  # settings.configs.AugmentationRanges or None
    seed: int


class NotFinite(UserError):
    """The loss became NaN or infinite."""


class OutOfMemory(UserError):
    """The memory of a device, or the host's, does not suffice; less at a time may fit."""


class PeerLost(UserError):
    """Another process of this training ended before its time; the parameters are still good.

    `advice`, from the process that saves, says how to go on.
    """

    def __init__(self, advice: str = ""):
        super().__init__(f"{ENDED}: {advice}" if advice else ENDED)
        self.advice = advice


class Losses(NamedTuple):
    """What a training step reports: means over the batch of all processes, before the update."""

    loss: float
    epe: float  # px, of the finest prediction


class Training(ABC):
    """An engine's network in training: its loss, augmentation and optimiser."""

    @abstractmethod
    def train_batch(self, batch, step: int, learning_rate: float) -> Callable[[], Losses]:
        """Train on one batch; it may return before the device is done, at most two steps ahead of it.

        The arrays of `batch`, a reader.loader.Batch, may be overwritten when this returns. They may
        be PyTorch tensors on the torch engine's device, too. `step`, the number of steps done
        before, decides with the seed about all random draws.

        It raises PeerLost if another process has ended; reading the losses tells which steps are done.

        The function reads them: it waits until they are known, and raises

        * NotFinite if the loss is NaN or infinite: the parameters are those from before the step, and
          stay so whatever is trained afterwards;
        * PeerLost if the step will never be done: the parameters are those from before it.

        Read them in the order of the steps, in all processes for the same steps.
        """

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """The optimiser's state: `mean.NAME` and `var.NAME` of every trained parameter.

        Like `Engine.parameters` it holds the steps whose losses were read; later ones may be
        half done.
        """

    @abstractmethod
    def load_state(self, state: dict[str, np.ndarray], step: int) -> None:
        """Take over the optimiser's state after `step` steps."""


def check_state(state: dict[str, np.ndarray], parameters: Mapping[str, Any]) -> None:
    """Refuse an optimiser's state that is not of these arrays, by name, or cannot be one."""
    shapes = {f"{kind}.{name}": tuple(array.shape) for name, array in parameters.items() for kind in ("mean", "var")}
    if shapes != {name: array.shape for name, array in state.items()}:
        raise UserError("the optimiser's state does not fit the network: it belongs to another checkpoint")
    for name, array in state.items():
        if array.dtype != np.float32 or not np.isfinite(array).all() or (name.startswith("var.") and array.min() < 0):
            raise UserError(f"the optimiser's state is damaged: {name} holds values that it cannot have")


class Engine(ABC):
    """A network on its devices."""

    name: str  # of the executor, as records say it: mxnet or torch
    place = "the CPU (no -g)"  # its devices, in words
    devices: int  # of this process, which share a batch evenly
    config: Any  # settings.configs.NetworkConfig
    record: Any  # checkpoints.checkpoint.Record, of the checkpoint that was loaded last
    precision = "float32"  # of the network's matrix products: float32, tf32 or bf16
    ahead = 0  # batches worth submitting before the first one's result is asked for
    batch_pixels = 0  # of the pairs of a batch that pays; 0 = one pair at a time is fastest
    processes = ALONE  # that train together

    def __str__(self) -> str:
        return f"{self.name} on {self.place}, {self.precision}"

    @abstractmethod
    def rebuild(self, record) -> None:
        """Make the network that a record asks for, with fresh parameters, and keep the record."""

    @abstractmethod
    def parameters(self) -> dict[str, np.ndarray]:
        """The network's parameters, float32, by structural name, the path of attributes: `conv1a.0.weight`."""

    @abstractmethod
    def assign(self, parameters: dict[str, np.ndarray]) -> None:
        """Overwrite the parameters of these names."""

    @abstractmethod
    def submit(
        self,
        image_1: np.ndarray,
        image_2: np.ndarray,
        sizing: Sizing | None = None,
        mask: bool = True,
        warped: bool = True,
        drawing: Drawing | None = None,
    ) -> Callable[[], Prediction | Drawn]:
        """Begin to predict N pairs (N, H, W, 3) uint8, RGB; the function waits for it, and is called once.

        With a drawing only what it asks for leaves the device, as Drawn.
        """

    def predict(self, image_1, image_2, sizing: Sizing | None = None, mask=True, warped=True) -> Prediction:
        """As `submit`, at once."""
        return self.submit(image_1, image_2, sizing, mask, warped)()

    @abstractmethod
    def training(self, settings: TrainingSettings) -> Training:
        """Begin to train; the first stage inside MaskFlownet stays frozen."""
