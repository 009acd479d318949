"""Training with PyTorch on one device: augmentation, loss, gradients and Adam."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from maskflownet.engine.contract import Losses, NotFinite, PeerLost, Training, TrainingSettings, check_state
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.devices import Download, Streams, enough_memory
from maskflownet.engine.torch.kernels.layout import triton_runs
from maskflownet.engine.torch.module import centred, computing, module_of, to_float
from maskflownet.network.architecture import HEAD
from maskflownet.network.draws import draw_noise, draw_step
from torch.optim.adam import adam as adam_step

BETA_1, BETA_2 = 0.9, 0.999
ALIGNMENT = 64  # floats: every parameter begins where kernels read fastest
WARM_UP = 2  # steps before a capture: cuDNN times its algorithms, kernels are compiled
PATIENCE = 5.0  # s that a step may still take after another process has ended


class FlatAdam:
    """Adam (Kingma and Ba, ICLR 2015) on one flat tensor each of values, gradients and moments.

    The parameters become views of the values, so that an update is a handful of kernels and a sum
    over processes one call. As in MXNet, epsilon is added to the root of the uncorrected variance:
    ``w -= rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)``.

    A gradient whose norm over all parameters exceeds `clip` is scaled down to it. `decay` times a weight is added to
    its gradient; biases do not decay. Behind the gradients lie `extra` numbers that are summed over the processes with
    them.
    """

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], decay: float, extra: int, epsilon: float, clip: float | None
    ):
        self.epsilon, self.clip = epsilon, clip
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
        self._steps = torch.full((), 1e9, device=device)  # one more is as many; PyTorch then corrects nothing
        for name, parameter in self.parameters.items():
            view = self._view(self.values, name)
            view.copy_(parameter.detach())
            parameter.data = view

    def _view(self, flat: torch.Tensor, name: str) -> torch.Tensor:
        parameter = self.parameters[name]
        return flat.as_strided(parameter.shape, parameter.stride(), self.starts[name])

    @torch.no_grad()
    def set_gradients(self, gradients: Sequence[torch.Tensor]) -> None:
        """Take the gradients, in the order of `parameters`."""
        views = [self._view(self.gradients, name) for name in self.parameters]
        same = [g if g.stride() == v.stride() else torch.empty_like(v).copy_(g) for g, v in zip(gradients, views)]
        torch._foreach_copy_(views, same)  # one kernel, as all lie in memory alike

    @torch.no_grad()
    def update(self, rate: torch.Tensor, wanted: torch.Tensor) -> None:
        """Update at a rate () float32, see `corrected_rate`; leave everything where `wanted` () is False.

        Both are on the device, so that the host waits for neither.
        """
        gradients = self.gradients
        if self.clip is not None:
            gradients.mul_((self.clip / gradients.norm()).clamp(max=1))
        unwanted = (~wanted).float()  # where it is 1 PyTorch leaves all as it is
        for part, decay in ((slice(self.decayed), self.decay), (slice(self.decayed, None), 0.0)):
            adam_step(
                [self.values[part]], [gradients[part]], [self.means[part]], [self.variances[part]], [], [self._steps],
                fused=True, found_inf=unwanted, amsgrad=False, beta1=BETA_1, beta2=BETA_2, lr=rate,
                weight_decay=decay, eps=self.epsilon, maximize=False,
            )  # fmt: skip

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


class Inputs(NamedTuple):
    """A batch of N samples on the device, and its draws; None without augmentation or noise."""

    img1: torch.Tensor  # (N, H, W, 3) uint8, RGB
    img2: torch.Tensor
    flow: torch.Tensor  # (N, H, W, 2) float32, px, (u, v)
    mask: torch.Tensor  # (N, H, W, 1) uint8, 255 = valid
    geometry: torch.Tensor | None = None  # (N, 22) float32
    colour: torch.Tensor | None = None  # (N, 18) float32
    noise: torch.Tensor | None = None  # (N, 2, 3, target H, target W) float32, standard normal


class TorchTraining(Training):
    """See `maskflownet.engine.contract.Training`; `engine` is a TorchEngine.

    On a GPU a step is two CUDA graphs, gradients and update, and the host waits for the step before
    only: the device itself decides by the loss whether the update changes anything.

    The draws are those of every other engine. Only the pixels' noise is drawn on the GPU itself,
    by a generator seeded for each sample: other numbers of the same distribution, for at 0.3 ms a
    sample the host would draw them more slowly than the GPU trains.
    """

    def __init__(self, engine, settings: TrainingSettings):
        self.engine, self.settings, self.processes = engine, settings, engine.processes
        (self.network,) = engine.networks
        self.device = engine.torch_devices[0]
        optimizer, parameters = settings.optimizer, dict(self.network.named_parameters())
        # The head of a MaskFlownet stays as it is.
        trained = {name: p for name, p in parameters.items() if not name.startswith(HEAD)}
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in trained)
        # The two extra numbers are the means of loss and end-point error.
        self.adam = FlatAdam(trained, optimizer.wd, extra=2, epsilon=optimizer.epsilon, clip=optimizer.clip)
        graphs = {"geometry": {"target": settings.target}, "colour": {}} if settings.augmentation is not None else {}
        self.modules = {kind: module_of(graph_of(kind, **options), self.device) for kind, options in graphs.items()}
        self._losses, self._errors = self._measures()
        self.rate = torch.zeros((), device=self.device)
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)  # as all losses so far
        self.processes.broadcast(self.adam.values)
        self._streams = Streams(self.device) if self.device.type == "cuda" else None
        self._captured: CapturedStep | None = None
        self._before: Download | None = None

    def train_batch(self, batch, step: int, learning_rate: float) -> Callable[[], Losses]:
        names, processes = batch.names, self.processes
        arrays, seeds = [batch.img1, batch.img2, batch.flow, batch.mask], []
        draws = draw_step(self.settings, len(names), step, processes.rank, processes.world_size)
        if draws is not None:
            arrays += [draws.geometry, draws.colour]
            seeds = draws.noise_seeds
        with enough_memory(
            f"train on {len(names)} samples at a time on {self.device}",
            "lower batch_size in the dataset config, or share it by more GPUs",
        ):
            train = self._train_on_gpu if self._streams else self._train_on_cpu
            read = train(arrays, seeds, corrected_rate(learning_rate, step))
        self.engine.parameters_changed()
        return lambda: self._report(names, step, *read())

    def _train_on_cpu(self, arrays, seeds, rate: float):
        if seeds:
            arrays = [*arrays, draw_noise(seeds, self.settings.target)]
        losses = self.gradients(Inputs(*map(torch.as_tensor, arrays)))
        self.processes.all_reduce(self.adam.summed)
        self.rate.fill_(rate)
        self.update()
        reported = losses.numpy(), self.adam.extra.numpy().copy()
        return lambda: reported

    def _train_on_gpu(self, arrays, seeds, rate: float):
        sent = self._streams.upload(arrays)
        with self._streams():
            if self._captured is None:
                self._captured = CapturedStep(self, self._streams, sent, seeds)
            losses = self._captured.gradients(sent, seeds)
            self.processes.all_reduce(self.adam.summed)
            self.rate.fill_(rate)
            self._captured.update()
            # Copies, as the next step writes to the same places.
            download = self._streams.download([losses.clone(), self.adam.extra.clone()])
        before, self._before = self._before, download
        if before is not None:
            self._wait(before)
        return lambda: self._wait(download)

    def _wait(self, download: Download) -> list[np.ndarray]:
        if not download.wait_unless(self.processes.lost, PATIENCE):
            raise PeerLost
        return download.arrays()

    def _report(self, names, step: int, losses: np.ndarray, means: np.ndarray) -> Losses:
        reported = Losses(*map(float, means))
        if not math.isfinite(reported.loss):
            bad = [name for name, value in zip(names, losses) if not np.isfinite(value)]
            bad = self.processes.all_gather(bad)
            raise NotFinite(f"the loss is not finite at step {step + 1}, for the samples {', '.join(bad)}")
        return reported

    def gradients(self, inputs: Inputs) -> torch.Tensor:
        """Put the gradients of the mean loss, and the means, into `adam`; the loss of each sample, (N,).

        All is float32 save the network, forward and backward. The means are over the samples of all
        processes: each contributes its part, and the all-reduce makes them whole.
        """
        adam, precision = self.adam, self.engine.precision
        with computing("float32"):
            with torch.no_grad():
                images, label, mask = self._prepare(inputs)
            with computing(precision, search=True):
                *flows, _ = self.network(*images)
            # Cut in two, so that the loss is differentiated in float32, too.
            leaves = [flow.detach().float().requires_grad_() for flow in flows]
            losses = self._losses(label, mask, *leaves)
            loss = losses.sum() / (len(losses) * self.processes.world_size)
            towards = torch.autograd.grad(loss, leaves)
            towards = [part.to(flow.dtype) for part, flow in zip(towards, flows)]
            with computing(precision, search=True):
                gradients = torch.autograd.grad(flows, list(adam.parameters.values()), towards)
            adam.set_gradients(gradients)
            with torch.no_grad():
                errors = self._errors(label, mask, leaves[-1].detach())
                adam.extra[0] = loss.detach()
                adam.extra[1] = errors.mean() / self.processes.world_size
            return losses.detach()

    def _measures(self):
        """Functions for the loss, and for the end-point error of the finest flow: (N,) of label, mask and flows."""
        weights, q = self.settings.loss_weights, self.settings.optimizer.q
        if triton_runs(self.device):
            from maskflownet.engine.torch.kernels.upsampling import multiscale_epe  # noqa: PLC0415 - needs Triton

            return partial(multiscale_epe, weights, q), partial(multiscale_epe, (1.0,), None)
        loss = module_of(graph_of("loss", weights=weights, q=q), self.device)
        metric = module_of(graph_of("metric"), self.device)
        return lambda *inputs: loss(*inputs)[0], lambda label, mask, flow: metric(flow, label, mask)[0]

    def _prepare(self, inputs: Inputs):
        """Two centred images (N, 3, H, W), label (N, 2, H, W) (y, x), px, and mask."""
        images = [to_float(image) for image in (inputs.img1, inputs.img2)]
        flow = inputs.flow.permute(0, 3, 1, 2).contiguous()  # (u, v)
        mask = to_float(inputs.mask)
        if inputs.geometry is not None:
            *images, flow, mask = self.modules["geometry"](*images, flow, mask, inputs.geometry)
            if inputs.noise is None:
                noises = [torch.zeros_like(image) for image in images]
            else:
                noises = [inputs.noise[:, i] for i in range(2)]
            images = self.modules["colour"](*images, *noises, inputs.colour)
        return centred(images, self.engine.record.colour), flow.flip(1), mask

    def update(self) -> None:
        """Update the parameters at `rate` if this mean loss, and all before it, are finite."""
        self.finite.logical_and_(self.adam.extra[0].isfinite())
        self.adam.update(self.rate, self.finite)

    def state(self) -> dict[str, np.ndarray]:
        return self.adam.state()

    def load_state(self, state: dict[str, np.ndarray], step: int) -> None:
        check_state(state, self.adam.parameters)
        self.adam.load_state(state)
        if self._streams:
            torch.cuda.synchronize(self.device)


class CapturedStep:
    """The two halves of a training step as CUDA graphs, captured on the current stream for a first batch.

    `sent` are the fields of `Inputs` but for the noise, on the device; `seeds` those of each
    sample's noise, none for no noise.
    """

    def __init__(self, training: TorchTraining, streams: Streams, sent: Sequence[torch.Tensor], seeds):
        fields = [torch.empty_like(given) for given in sent]
        if seeds:
            fields.append(torch.empty((len(seeds), 2, 3, *training.settings.target), device=training.device))
        self.inputs = Inputs(*fields)
        self._generator = torch.Generator(training.device)
        self._fill(sent, seeds)
        for _ in range(WARM_UP):
            training.gradients(self.inputs)
        self._gradients, self._losses = streams.capture(lambda: training.gradients(self.inputs))
        # The same for the update, with a loss that makes it change nothing.
        training.adam.extra.fill_(float("nan"))
        training.update()
        training.finite.fill_(True)
        self._update, _ = streams.capture(training.update)

    def _fill(self, sent: Sequence[torch.Tensor], seeds) -> None:
        for static, given in zip(self.inputs, sent):
            static.copy_(given)
        for row, entropy in enumerate(seeds):
            seed = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1)
            self._generator.manual_seed(int(seed))
            self.inputs.noise[row].normal_(generator=self._generator)

    def gradients(self, sent: Sequence[torch.Tensor], seeds) -> torch.Tensor:
        """Queue the gradients of a batch; its losses (N,), overwritten by the next call."""
        self._fill(sent, seeds)
        self._gradients.replay()
        return self._losses

    def update(self) -> None:
        """Queue the update."""
        self._update.replay()

    def replay(self) -> None:
        """Queue both for the last batch once more, without what comes from the host."""
        self._gradients.replay()
        self._update.replay()
