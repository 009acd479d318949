"""The engine that executes and trains the networks with MXNet, on one or several contexts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from maskflownet.checkpoints.checkpoint import Record
from maskflownet.engine import contract
from maskflownet.engine.contract import ALONE, Engine, Losses, NotFinite, Prediction, Processes, Sizing, Training
from maskflownet.errors import UserError
from maskflownet.network.architecture import HEAD, STRIDES, initial_deviation
from maskflownet.network.augmentation import ColourAugmentation, GeometryAugmentation
from maskflownet.network.compat import mx
from maskflownet.network.draws import Draws, draw_noise, draw_step
from maskflownet.network.layers import Upsample, Warp
from maskflownet.network.losses import EndPointError, MultiscaleEPE
from maskflownet.network.maskflownet import MaskFlownet, MaskFlownet_S
from maskflownet.settings.configs import NetworkConfig

nd = mx.nd
SUMS = 1_000_000  # key of what is summed beside the gradients, whose keys are 0, 1, ...


def contexts(gpus: str) -> list:
    """MXNet contexts of comma-separated device ids; the CPU without any."""
    cuda = mx.runtime.Features().is_enabled("CUDA")
    ids = contract.device_ids(gpus, "MXNet", lambda: mx.context.num_gpus() if cuda else None)
    return [mx.gpu(i) for i in ids] or [mx.cpu()]


@dataclass(frozen=True)
class Workers(Processes):
    """Those of MXNet's parameter server, each with a batch of its own."""

    kvstore: Any = None

    @classmethod
    def join(cls) -> "Workers":
        """Join the workers that the `DMLC_*` variables name."""
        kvstore = mx.kv.create("dist_sync")
        kvstore.init(SUMS, nd.zeros(2))
        return cls(kvstore.rank, kvstore.num_workers, kvstore.num_workers, kvstore)

    def all_reduce(self, tensor) -> None:  # (2,)
        self.kvstore.push(SUMS, tensor)
        self.kvstore.pull(SUMS, out=tensor)

    def any(self, flag: bool) -> bool:
        flags = nd.array([flag, 0])
        self.all_reduce(flags)
        return bool(flags[0].asscalar())

    def close(self) -> None:
        # Frees it, which tells the servers that this worker has ended; the interpreter's exit
        # would wait for them for ever.
        if self.kvstore.handle is not None:
            self.kvstore.__del__()
            self.kvstore.handle = None


class MXNetEngine(Engine):
    """A network on MXNet contexts, over which a batch is split evenly; `seed` decides the initial parameters."""

    name = "mxnet"

    def __init__(self, config: NetworkConfig, contexts: list, seed: int | None = 0, processes: Processes = ALONE):
        self.config, self.processes = config, processes
        self.contexts, self.devices = contexts, len(contexts)
        self._seed = seed
        settings = config.network
        self.rebuild(Record(settings.class_, settings.pyramid, flow_multiplier=settings.flow_multiplier))
        self._upsample_flow, self._upsample_mask = Upsample(4, channels=2), Upsample(4, channels=1)
        self._warp = Warp(clamp=True)
        for block in (self._upsample_flow, self._upsample_mask, self._warp):
            block.hybridize()

    def rebuild(self, record: Record) -> None:
        self.record = record
        single, scale = record.network == "MaskFlownet_S", record.flow_multiplier
        self.network = MaskFlownet_S(scale) if single else MaskFlownet(scale, record.pyramid)
        mx.random.seed(self._seed or 0)
        self.network.initialize(mx.init.Zero(), ctx=self.contexts)
        for name, parameter in self._structural_parameters().items():
            deviation = initial_deviation(name, parameter.shape, self.config.network.initial)
            if deviation:
                parameter.set_data(nd.random.normal(0, deviation, parameter.shape))
        self.network.hybridize(static_alloc=True)

    def assign(self, parameters) -> None:
        structural = self._structural_parameters()
        for name, array in parameters.items():
            structural[name].set_data(nd.array(array))

    def training(self, settings: contract.TrainingSettings) -> Training:
        return MXNetTraining(self, settings)

    def _structural_parameters(self):
        # Gluon's own way to these names is private; save_parameters writes the same ones.
        return self.network._collect_params_with_prefix()

    def parameters(self) -> dict[str, np.ndarray]:
        return {name: parameter.list_data()[0].asnumpy() for name, parameter in self._structural_parameters().items()}

    def submit(self, image_1, image_2, sizing=None, mask=True, warped=True, drawing=None):
        parts = []
        try:
            for context, part in zip(self.contexts, contract.shares(len(image_1), self.devices)):
                images = (nd.array(image[part], context, np.uint8) for image in (image_1, image_2))
                parts.append(self._predict_on_device(*images, sizing or Sizing(), mask, warped))
            # MXNet computes asynchronously: only here are the devices waited for.
            prediction = Prediction(*(None if outputs[0] is None else to_host(outputs) for outputs in zip(*parts)))
        except mx.MXNetError as error:
            height, width = image_1.shape[1:3]
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"MXNet cannot predict {len(image_1)} pairs of {height}x{width}: {reason}") from error
        return lambda: prediction if drawing is None else contract.draw(prediction, drawing)

    def _predict_on_device(self, image_1, image_2, sizing, with_mask, with_warped):
        """(N, H, W, 3) uint8 on one device -> flow (N, 2, H, W), mask and warped on that device."""
        image_1, image_2 = (channels_first(image) / 255 for image in (image_1, image_2))
        fit, unfit = sizing.fitting(*image_1.shape[2:], pad, resize)
        flows, mask, *_ = self.network(*(fit(image) for image in centred([image_1, image_2], self.record.colour)))
        flow, factors = unfit(self._upsample_flow(flows[-1]))
        flow = nd.broadcast_mul(flow, nd.array(factors, flow.context).reshape((1, 2, 1, 1)))
        visible = unfit(self._upsample_mask(mask))[0] if with_mask else None
        warped = self._warp(image_2, flow) if with_warped else None
        return flow.flip(axis=1), visible, warped


class MXNetTraining(Training):
    """See `maskflownet.engine.contract.Training`; `engine` is an MXNetEngine."""

    def __init__(self, engine, settings: contract.TrainingSettings):
        self.contexts, self.processes = engine.contexts, engine.processes
        self.network, self.colour_order = engine.network, engine.record.colour
        self.settings, optimizer = settings, settings.optimizer
        structural = self.network._collect_params_with_prefix()
        # The head of a MaskFlownet stays as it is.
        self.trained = {name: p for name, p in structural.items() if not name.startswith(HEAD)}
        for name, parameter in structural.items():
            parameter.grad_req = "write" if name in self.trained else "null"
            parameter.wd_mult = 0.0 if name.endswith("bias") else 1.0
        self.loss = MultiscaleEPE(settings.loss_weights, optimizer.q)
        self.metric = EndPointError(STRIDES[-1])
        self.geometry, self.colour = GeometryAugmentation(settings.target), ColourAugmentation()
        for block in (self.loss, self.metric, self.geometry, self.colour):
            block.hybridize()
        self._failed: NotFinite | None = None
        self._make_trainer(steps=0)

    def _make_trainer(self, steps: int) -> None:
        optimizer = self.settings.optimizer
        self.trainer = mx.gluon.Trainer(
            list(self.trained.values()),
            mx.optimizer.Adam(
                learning_rate=1.0,  # set before every step
                beta1=0.9,
                beta2=0.999,
                epsilon=optimizer.epsilon,
                wd=optimizer.wd,
                begin_num_update=steps,  # for the corrections of the moments
            ),
            kvstore=self.processes.kvstore if self.processes.world_size > 1 else "device",
            # The state stays here, where it can be saved as arrays.
            update_on_kvstore=False,
        )

    def train_batch(self, batch, step: int, learning_rate: float) -> Callable[[], Losses]:
        count, processes = len(batch.names), self.processes
        draws = draw_step(self.settings, count, step, processes.rank, processes.world_size)
        losses, errors = [], []
        for context, part in zip(self.contexts, contract.shares(count, len(self.contexts))):
            # mask: where the label is valid. The network's own mask has no label and no loss.
            images, label, mask = self._prepare(batch, draws, part, context)
            with mx.autograd.record():
                flows = self.network(*images)[0]
                losses.append(self.loss(label, mask, *flows))
            errors.append(self.metric(flows[-1], label, mask))
        values, epes = (np.concatenate([part.asnumpy() for part in parts]) for parts in (losses, errors))
        means = nd.array([values.mean() / processes.world_size, epes.mean() / processes.world_size])
        processes.all_reduce(means)
        reported = Losses(*map(float, means.asnumpy()))
        if self._failed is None and not np.isfinite(reported.loss):
            names = [name for name, value in zip(batch.names, values) if not np.isfinite(value)]
            where = f"for the samples {', '.join(names)}" if names else "for samples of another process"
            self._failed = NotFinite(f"the loss is not finite at step {step + 1}, {where}")
        if self._failed is None:  # a backward pass over flows that are NaN has crashed MXNet
            samples, clip = count * processes.world_size, self.settings.optimizer.clip
            mx.autograd.backward(losses)
            self.trainer.allreduce_grads()
            for context in self.contexts if clip else ():
                gradients = [parameter.grad(context) for parameter in self.trained.values()]
                mx.gluon.utils.clip_global_norm(gradients, clip * samples)
            self.trainer.set_learning_rate(learning_rate)
            self.trainer.update(samples)  # by the gradients' sum over them, divided by their number
        failed = self._failed

        def read() -> Losses:
            if failed is not None:
                raise failed
            return reported

        return read

    def _prepare(self, batch, draws: Draws | None, part: slice, context):
        """One device's share: two centred images (n, 3, H, W), label (n, 2, H, W) (y, x), mask."""

        def send(array):
            return nd.array(array[part], context, array.dtype)

        images = [channels_first(send(image)) / 255 for image in (batch.img1, batch.img2)]
        flow, mask = channels_first(send(batch.flow)), channels_first(send(batch.mask)) / 255  # (u, v)
        if draws:
            *images, flow, mask = self.geometry(*images, flow, mask, send(draws.geometry))
            if draws.noise_seeds:
                noise = nd.array(draw_noise(draws.noise_seeds[part], self.settings.target), context)
                noises = [noise[:, i] for i in range(2)]  # (n, 3, H, W)
            else:
                noises = [nd.zeros_like(image) for image in images]
            images = self.colour(*images, *noises, send(draws.colour))
        return centred(images, self.colour_order), flow.flip(axis=1), mask

    def state(self) -> dict[str, np.ndarray]:
        arrays = {}
        for index, moments in self.trainer._updaters[0].states.items():
            for kind, moment in zip(("mean", "var"), moments):
                arrays[f"{kind}.{list(self.trained)[index]}"] = moment.asnumpy()
        return arrays

    def load_state(self, state: dict[str, np.ndarray], step: int) -> None:
        contract.check_state(state, self.trained)
        self._make_trainer(step)
        for context, updater in zip(self.contexts, self.trainer._updaters):
            for index, name in enumerate(self.trained):
                updater.states[index] = tuple(nd.array(state[f"{kind}.{name}"], context) for kind in ("mean", "var"))
                updater.states_synced[index] = True


def channels_first(x):
    """(N, H, W, C) -> (N, C, H, W) float32."""
    return x.transpose((0, 3, 1, 2)).astype("float32")


def centred(images: list, colour: str) -> list:
    """RGB images (N, 3, H, W) in the network's channel order, minus the mean of both."""
    if colour == "BGR":
        images = [image.flip(axis=1) for image in images]
    mean = nd.concat(*images, dim=2).mean(axis=(2, 3), keepdims=True)
    return [nd.broadcast_sub(image, mean) for image in images]


def pad(x, top: int, bottom: int, left: int, right: int):
    return nd.pad(x, mode="edge", pad_width=(0, 0, 0, 0, top, bottom, left, right))


def resize(x, height: int, width: int):
    """Bilinear, corners aligned: (N, C, h, w) -> (N, C, height, width)."""
    if x.shape[2:] == (height, width):
        return x
    return nd.contrib.BilinearResize2D(x, height=height, width=width)


def to_host(parts) -> np.ndarray:
    """Arrays (n, C, H, W) on their devices -> one (N, H, W, C) in host memory."""
    return np.concatenate([part.transpose((0, 2, 3, 1)).asnumpy() for part in parts])
