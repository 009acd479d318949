"""Training with PyTorch on one device: augmentation, loss, gradients and Adam."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import numpy as np
import torch

from engine.checkpoint import HEAD
from engine.errors import UserError
from engine.interface import NotFinite, PeerLost, Step, StepResult, Training, TrainingSettings
from engine.torch_adam import FlatAdam, corrected_rate
from engine.torch_gradients import Gradients, Inputs
from engine.torch_step import CapturedStep
from engine.torch_transfer import Download, page_locked, upload
from engine.training_draws import draw_noise, draw_step

PATIENCE = 5.0  # s that a step may still take after another process has ended
REPORTED = 2  # numbers summed with the gradients: loss and end-point error


class TorchTraining(Training):
    """See `engine.interface.Training`.

    On a GPU a step is two CUDA graphs, gradients and update, and nothing is waited for before its
    result: whether the loss is finite decides on the device if the update changes anything.

    The draws are those of every other engine. Only the pixels' noise is drawn on the GPU itself,
    by a generator seeded for each sample: other numbers of the same distribution, for at 0.3 ms a
    sample the host would draw them more slowly than the GPU trains.

    Parameters
    ----------
    engine : TorchEngine
    settings : TrainingSettings
    """

    def __init__(self, engine, settings: TrainingSettings):
        self.engine, self.settings, self.workers = engine, settings, engine.workers
        (self.network,) = engine.networks
        self.device = engine.torch_devices[0]
        optimizer, parameters = settings.optimizer, dict(self.network.named_parameters())
        # The head of a MaskFlownet stays as it is.
        chosen = optimizer.chosen(name for name in parameters if not name.startswith(HEAD))
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in chosen)
        trained = {name: p for name, p in parameters.items() if name in chosen}
        self.adam = FlatAdam(trained, optimizer.wd, REPORTED, optimizer.epsilon)
        self.gradients = Gradients(
            self.network, self.adam, settings, engine.precision, engine.record.colour
        )
        self.rate = torch.zeros((), device=self.device)
        self.workers.copy_first(self.adam.values)
        self._streams = None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the steps have streams of their own
            self._streams = [torch.cuda.Stream(self.device) for _ in range(3)]
            self._captured = CapturedStep(
                self.gradients, self.update, self.device, self._streams[0]
            )

    def host_memory(self, size: int) -> np.ndarray:
        return page_locked(size) if self._streams else super().host_memory(size)

    def start(self, batch, step: int) -> Step:
        draws = draw_step(self.settings, len(batch.names), step)
        drawn, seeds = [], []
        if draws is not None:
            drawn = [draws.geometry, draws.colour]
            seeds = draws.noise_seeds
        with self.errors(batch.names):
            if self._streams:
                return _CUDAStep(self, batch, step, drawn, seeds)
            if seeds:
                drawn.append(draw_noise(seeds, self.settings.target))
            return _CPUStep(self, batch, step, drawn)

    def step(self, batch, step: int, learning_rate: float) -> StepResult:
        started = self.start(batch, step)
        started.finish(learning_rate)
        return started.result()

    def update(self) -> None:
        """Update the parameters at `rate` if the loss, the mean over all samples, is finite."""
        self.adam.update(self.rate, self.adam.extra[0].isfinite())

    def report(self, names, step: int, losses: np.ndarray, means: np.ndarray) -> StepResult:
        """Make the result of a step out of the losses of its samples and the means over all."""
        self.engine.parameters_changed()
        loss, epe = (float(value) for value in means)
        if not np.isfinite(loss):
            bad = [name for name, value in zip(names, losses) if not np.isfinite(value)]
            bad = self.workers.gather(bad)
            raise NotFinite(
                f"the loss is not finite at step {step + 1}, for the samples {', '.join(bad)}"
            )
        return StepResult(loss, epe)

    @contextmanager
    def errors(self, names) -> Iterator[None]:
        """Turn a lack of memory into one sentence."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the memory of {self.device} does not suffice to train on {len(names)} samples "
                "at a time: lower batch_size in the dataset config, or share it by more GPUs"
            ) from error

    def state(self) -> dict[str, np.ndarray]:
        return self.adam.state()

    def load_state(self, state, step: int) -> None:
        if set(state) != {f"{kind}.{n}" for n in self.adam.parameters for kind in ("mean", "var")}:
            raise UserError(
                "the optimiser's state does not fit the network: it belongs to another checkpoint"
            )
        self.adam.load_state(state)
        if self._streams:
            torch.cuda.synchronize(self.device)


def _samples(batch) -> list[np.ndarray]:
    return [batch.img1, batch.img2, batch.flow, batch.mask]


class _CPUStep(Step):
    """A step that is computed when it is finished."""

    def __init__(self, training: TorchTraining, batch, step: int, drawn: list[np.ndarray]):
        self.training, self.names, self.step = training, batch.names, step
        arrays = [*_samples(batch), *drawn]
        self.inputs = Inputs(*(torch.from_numpy(array) for array in arrays))

    def finish(self, learning_rate: float) -> None:
        training = self.training
        with training.errors(self.names):
            self.losses = training.gradients(self.inputs)
        training.workers.sum(training.adam.summed)
        training.rate.fill_(corrected_rate(learning_rate, self.step))
        training.update()

    def result(self) -> StepResult:
        means = self.training.adam.extra.numpy()
        return self.training.report(self.names, self.step, self.losses.numpy(), means)


class _CUDAStep(Step):
    """A step that is queued on the device: its gradients at once, its update by `finish`."""

    def __init__(self, training: TorchTraining, batch, step: int, drawn, seeds):
        self.training, self.names, self.step = training, batch.names, step
        with torch.cuda.device(training.device):
            computing, uploads, _ = training._streams
            sent = upload([*_samples(batch), *drawn], uploads, computing)
            with torch.cuda.stream(computing):
                self.losses = training._captured.compute_gradients(sent, seeds)

    def finish(self, learning_rate: float) -> None:
        training = self.training
        with torch.cuda.device(training.device):
            computing, _, downloads = training._streams
            with torch.cuda.stream(computing):
                training.workers.sum(training.adam.summed)
                training.rate.fill_(corrected_rate(learning_rate, self.step))
                training._captured.update()
                # Copies, as the next step writes to the same places.
                reported = [self.losses.clone(), training.adam.extra.clone()]
            self._download = Download(reported, computing, downloads)

    def result(self) -> StepResult:
        arrays = self._download.arrays_unless(self.training.workers.lost, PATIENCE)
        if arrays is None:
            raise PeerLost
        return self.training.report(self.names, self.step, *arrays)
