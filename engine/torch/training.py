"""Adam as MXNet computes it, over all parameters at once.

From a batch as the loader gives it to the gradients of all parameters, on one device.

A training step as CUDA graphs, which launch its thousands of kernels at once.

Training with PyTorch on one device: augmentation, loss, gradients and Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from maskflownet.engine.contract import NotFinite, PeerLost, Step, StepResult, Training, TrainingSettings
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.fused import computing, module_of
from maskflownet.engine.torch.prediction import Download, centred, page_locked, to_float, upload
from maskflownet.errors import UserError
from maskflownet.network.architecture import HEAD
from maskflownet.network.draws import draw_noise, draw_step

BETA_1, BETA_2 = 0.9, 0.999
ALIGNMENT = 64  # floats: every parameter begins where kernels read fastest


class FlatAdam:
    """Adam (Kingma and Ba, ICLR 2015) on one flat tensor each of values, gradients and moments.

    The parameters become views of the values, so that an update is a handful of kernels and a sum
    over processes one call. As in MXNet, epsilon is added to the root of the uncorrected variance:
    ``w -= rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)``.

    Parameters
    ----------
    parameters : mapping of str to torch.nn.Parameter
        All on one device.
    decay : float
        Weight decay, of weights and not of biases: this times the weight is added to its gradient.
    extra : int
        Numbers behind the gradients that are summed over the processes with them.
    epsilon : float
        Gradients that are not far above it move a parameter less than others do.
    """

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], decay: float = 0.0, extra: int = 0, epsilon: float = 1e-8
    ):
        self.epsilon = epsilon
        # Weights first, so that those that decay are one stretch.
        ordered = sorted(parameters, key=lambda name: name.endswith("bias"))
        self.decay, self.parameters = decay, {name: parameters[name] for name in ordered}
        self.starts, size, self.decayed = {}, 0, 0
        for name in ordered:
            self.starts[name] = size
            size += -(-parameters[name].numel() // ALIGNMENT) * ALIGNMENT
            if not name.endswith("bias"):
                self.decayed = size
        device = parameters[ordered[0]].device
        self.values, self.means, self.variances = (torch.zeros(size, device=device) for _ in "123")
        self.summed = torch.zeros(size + extra, device=device)
        self.gradients, self.extra = self.summed[:size], self.summed[size:]
        self._padding = torch.zeros(ALIGNMENT, device=device)
        for name, parameter in self.parameters.items():
            view = self._view(self.values, name)
            view.copy_(parameter.detach())
            parameter.data = view

    def _view(self, flat: torch.Tensor, name: str) -> torch.Tensor:
        parameter, start = self.parameters[name], self.starts[name]
        return flat[start : start + parameter.numel()].view(parameter.shape)

    @torch.no_grad()
    def set_gradients(self, gradients: Sequence[torch.Tensor]) -> None:
        """Take the gradients, in the order of `parameters`."""
        pieces = []
        for gradient in gradients:
            pieces.append(gradient.reshape(-1))
            gap = -gradient.numel() % ALIGNMENT
            if gap:
                pieces.append(self._padding[:gap])
        torch.cat(pieces, out=self.gradients)

    @torch.no_grad()
    def update(self, rate: torch.Tensor, wanted: torch.Tensor) -> None:
        """Update the parameters, or leave everything as it is.

        Parameters
        ----------
        rate : () float32 tensor
            See `corrected_rate`.
        wanted : () bool tensor
            On the device like the rate: the host does not wait for either.
        """
        gradients = self.gradients
        if self.decay:
            weights = slice(self.decayed)
            gradients[weights].add_(self.values[weights], alpha=self.decay)
        gradients.masked_fill_(~wanted, 0.0)
        self.means.mul_(torch.where(wanted, BETA_1, 1.0)).add_(gradients, alpha=1 - BETA_1)
        self.variances.mul_(torch.where(wanted, BETA_2, 1.0))
        self.variances.addcmul_(gradients, gradients, value=1 - BETA_2)
        change = self.variances.sqrt().add_(self.epsilon)
        torch.div(self.means, change, out=change)
        self.values.sub_(change.mul_(torch.where(wanted, rate, 0.0)))

    def state(self) -> dict[str, np.ndarray]:
        """`mean.NAME` and `var.NAME` of every parameter, copies on the host."""
        return {
            f"{kind}.{name}": self._view(flat, name).cpu().numpy().copy()
            for name in self.parameters
            for kind, flat in (("mean", self.means), ("var", self.variances))
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        for name in self.parameters:
            for kind, flat in (("mean", self.means), ("var", self.variances)):
                self._view(flat, name).copy_(torch.from_numpy(np.array(state[f"{kind}.{name}"])))


def corrected_rate(rate: float, step: int) -> float:
    """The learning rate with the corrections for the moments' start at 0, after `step` steps."""
    t = step + 1
    return rate * math.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)


METRIC_STRIDE = 4  # of the finest prediction


class Inputs(NamedTuple):
    """A batch of N samples on the device, and its draws; None without augmentation or noise."""

    img1: torch.Tensor  # (N, H, W, 3) uint8, RGB
    img2: torch.Tensor
    flow: torch.Tensor  # (N, H, W, 2) float32, px, (u, v)
    mask: torch.Tensor  # (N, H, W, 1) uint8, 255 = valid
    geometry: torch.Tensor | None = None  # (N, 22) float32
    colour: torch.Tensor | None = None  # (N, 18) float32
    noise: torch.Tensor | None = None  # (N, 2, 3, target H, target W) float32, standard normal


class Gradients:
    """Computes the gradients of the mean loss, and means of loss and end-point error.

    All is float32 save the network, forward and backward. The means are over the samples of all
    processes: each contributes its part, and a sum over the processes makes them whole.

    Parameters
    ----------
    network : torch.nn.Module
    adam : FlatAdam
        Takes the gradients; its two extra numbers take the means.
    settings : TrainingSettings
    precision : {"float32", "tf32", "bf16"}
    colour : {"RGB", "BGR"}
    """

    def __init__(
        self, network: torch.nn.Module, adam: FlatAdam, settings: TrainingSettings, precision: str, colour: str
    ):
        self.network, self.adam, self.settings = network, adam, settings
        self.precision, self.colour_order = precision, colour
        self.trained = list(adam.parameters.values())
        device = self.trained[0].device
        graphs = {
            "loss": {"weights": settings.loss_weights, "q": settings.optimizer.q},
            "metric": {"stride": METRIC_STRIDE},
        }
        if settings.augmentation is not None:
            graphs.update(geometry={"target": settings.target}, colour={})
        self.modules = {kind: module_of(graph_of(kind, **options), device) for kind, options in graphs.items()}

    def __call__(self, inputs: Inputs) -> torch.Tensor:
        """Put gradients and means into `adam`; the loss of each sample, (N,)."""
        with computing("float32"):
            with torch.no_grad():
                images, label, mask = self._prepare(inputs)
            with computing(self.precision, search=True):
                *flows, _ = self.network(*images)
            # Cut in two, so that the loss is differentiated in float32, too.
            leaves = [flow.detach().float().requires_grad_() for flow in flows]
            (losses,) = self.modules["loss"](label, mask, *leaves)
            parts = self.settings.world * self.settings.share[1]
            loss = losses.sum() / (len(losses) * parts)
            towards = torch.autograd.grad(loss, leaves)
            towards = [part.to(flow.dtype) for part, flow in zip(towards, flows)]
            with computing(self.precision, search=True):
                gradients = torch.autograd.grad(flows, self.trained, towards)
            self.adam.set_gradients(gradients)
            with torch.no_grad():
                (errors,) = self.modules["metric"](leaves[-1], label, mask)
                self.adam.extra[0] = loss.detach()
                self.adam.extra[1] = errors.mean() / parts
            return losses.detach()

    def _prepare(self, inputs: Inputs):
        """Two centred images (N, 3, H, W), label (N, 2, H, W) (y, x), px, and mask."""
        images = [to_float(image) for image in (inputs.img1, inputs.img2)]
        flow = inputs.flow.permute(0, 3, 1, 2).contiguous()  # (u, v)
        mask = to_float(inputs.mask)
        if inputs.geometry is not None:
            geometry, colour = self.modules["geometry"], self.modules["colour"]
            *images, flow, mask = geometry(*images, flow, mask, inputs.geometry)
            if inputs.noise is None:
                noises = [torch.zeros_like(image) for image in images]
            else:
                noises = [inputs.noise[:, i] for i in range(2)]
            images = colour(*images, *noises, inputs.colour)
        return centred(images, self.colour_order), flow.flip(1), mask


WARM_UP = 2  # steps before a capture: cuDNN times its algorithms, kernels are compiled


class CapturedStep:
    """The two halves of a step, captured when the first batch is there.

    Between them gradients may be summed over processes, on the same stream.

    Parameters
    ----------
    gradients : Gradients
    update : callable
        Changes the parameters by the gradients, but nothing where the mean loss is no number.
    device : torch.device
    stream : torch.cuda.Stream
        On which all methods are called.
    """

    def __init__(
        self, gradients: Gradients, update: Callable[[], None], device: torch.device, stream: torch.cuda.Stream
    ):
        self._gradients, self._update = gradients, update
        self.device, self.stream = device, stream
        self._generator = torch.Generator(device)
        self._inputs: Inputs | None = None

    def compute_gradients(self, sent: Sequence[torch.Tensor], seeds) -> torch.Tensor:
        """Queue the gradients of a batch; its losses (N,), overwritten by the next call.

        Parameters
        ----------
        sent : sequence of tensors
            The fields of `Inputs` but for the noise, on the device.
        seeds : list
            Of each sample's noise, none for no noise.
        """
        if self._inputs is None:
            self._capture(sent, seeds)
        self._fill(sent, seeds)
        self._gradient_graph.replay()
        return self._losses

    def update(self) -> None:
        """Queue the update."""
        self._update_graph.replay()

    def _fill(self, sent, seeds) -> None:
        for static, given in zip(self._inputs, sent):
            static.copy_(given)
        for row, seed in enumerate(seeds):
            self._generator.manual_seed(_seed_of(seed))
            self._inputs.noise[row].normal_(generator=self._generator)

    def _capture(self, sent, seeds) -> None:
        fields = [torch.empty_like(given) for given in sent]
        if seeds:
            shape = (len(seeds), 2, 3, *self._gradients.settings.target)
            fields.append(torch.empty(shape, device=self.device))
        self._inputs = Inputs(*fields)
        self._fill(sent, seeds)
        for _ in range(WARM_UP):
            self._gradients(self._inputs)
        self._gradient_graph = torch.cuda.CUDAGraph()
        # Thread by thread, because NCCL's own thread asks the device for its state meanwhile.
        with torch.cuda.graph(self._gradient_graph, stream=self.stream, capture_error_mode="thread_local"):
            self._losses = self._gradients(self._inputs)
        # The same for the update, with a loss that makes it change nothing.
        extra = self._gradients.adam.extra
        extra.fill_(float("nan"))
        self._update()
        self._update_graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._update_graph, stream=self.stream, capture_error_mode="thread_local"):
            self._update()


def _seed_of(entropy: list[int]) -> int:
    """A seed of 63 bits for a device's generator."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


PATIENCE = 5.0  # s that a step may still take after another process has ended
REPORTED = 2  # numbers summed with the gradients: loss and end-point error


class TorchTraining(Training):
    """See `maskflownet.engine.contract.Training`.

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
        self.gradients = Gradients(self.network, self.adam, settings, engine.precision, engine.record.colour)
        self.rate = torch.zeros((), device=self.device)
        self.workers.copy_first(self.adam.values)
        self._streams = None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the steps have streams of their own
            self._streams = [torch.cuda.Stream(self.device) for _ in range(3)]
            self._captured = CapturedStep(self.gradients, self.update, self.device, self._streams[0])

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
            raise NotFinite(f"the loss is not finite at step {step + 1}, for the samples {', '.join(bad)}")
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
            raise UserError("the optimiser's state does not fit the network: it belongs to another checkpoint")
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
