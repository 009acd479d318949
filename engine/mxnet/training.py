"""Training with MXNet: augmentation, loss and Adam on one or several contexts."""

from __future__ import annotations

import numpy as np
from maskflownet.engine.contract import NotFinite, StepResult, Training, TrainingSettings
from maskflownet.errors import UserError
from maskflownet.network.architecture import HEAD
from maskflownet.network.augmentation import ColourAugmentation, GeometryAugmentation
from maskflownet.network.compat import mx
from maskflownet.network.draws import Draws, draw_noise, draw_step
from maskflownet.network.losses import EndPointError, MultiscaleEPE

nd = mx.nd


class MXNetTraining(Training):
    """See `maskflownet.engine.contract.Training`.

    Parameters
    ----------
    engine : MXNetEngine
    settings : TrainingSettings
    kvstore : mx.kv.KVStore, optional
        Of a run with several worker processes; each has a batch of its own.
    """

    def __init__(self, engine, settings: TrainingSettings, kvstore=None):
        self.contexts = engine.contexts
        self.network = engine.network
        self.settings = settings
        self.colour_order = engine.record.colour
        structural = self.network._collect_params_with_prefix()
        # The head of a MaskFlownet stays as it is.
        chosen = settings.optimizer.chosen(n for n in structural if not n.startswith(HEAD))
        for name, parameter in structural.items():
            parameter.grad_req = "write" if name in chosen else "null"
        self.trained = {n: p for n, p in structural.items() if n in chosen}
        for name, parameter in self.trained.items():
            parameter.wd_mult = 0.0 if name.endswith("bias") else 1.0
        optimizer = settings.optimizer
        self.loss = MultiscaleEPE(settings.loss_weights, optimizer.q)
        self.metric = EndPointError(4)
        self.geometry, self.colour = GeometryAugmentation(settings.target), ColourAugmentation()
        for block in (self.loss, self.metric, self.geometry, self.colour):
            block.hybridize()
        self._make_trainer(kvstore, steps=0)

    def _make_trainer(self, kvstore, steps: int) -> None:
        self.kvstore = kvstore
        self.trainer = mx.gluon.Trainer(
            list(self.trained.values()),
            mx.optimizer.Adam(
                learning_rate=1.0,  # set before every step
                beta1=0.9,
                beta2=0.999,
                epsilon=self.settings.optimizer.epsilon,
                wd=self.settings.optimizer.wd,
                begin_num_update=steps,
            ),
            kvstore=kvstore or "device",
            # The state stays here, where it can be saved as arrays.
            update_on_kvstore=False,
        )

    def step(self, batch, step: int, learning_rate: float) -> StepResult:
        count = len(batch.names)
        draws = draw_step(self.settings, count, step)
        share = count // len(self.contexts)
        losses, errors = [], []
        for i, context in enumerate(self.contexts):
            part = slice(i * share, (i + 1) * share)
            images, label, mask = self._prepare(batch, draws, part, context)
            with mx.autograd.record():
                flows = self.network(*images)[0]
                losses.append(self.loss(label, mask, *flows))
            errors.append(self.metric(flows[-1], label, mask))
        values = np.concatenate([loss.asnumpy() for loss in losses])
        if not np.isfinite(values).all():
            names = [name for name, value in zip(batch.names, values) if not np.isfinite(value)]
            raise NotFinite(f"the loss is not finite at step {step + 1}, for the samples {', '.join(names)}")
        # Only now: a backward pass over flows that are NaN has crashed MXNet.
        mx.autograd.backward(losses)
        self.trainer.set_learning_rate(learning_rate)
        self.trainer.step(count * self.settings.world)
        epe = np.concatenate([error.asnumpy() for error in errors])
        return StepResult(float(values.mean()), float(epe.mean()))

    def _prepare(self, batch, draws: Draws | None, part: slice, context):
        """One device's share: two centred images (n, 3, H, W), label (n, 2, H, W) (y, x), mask."""

        def send(array):
            return nd.array(array[part], context, array.dtype)

        def send_channels_first(array):
            return send(array).transpose((0, 3, 1, 2)).astype("float32")

        images = [send_channels_first(image) / 255 for image in (batch.img1, batch.img2)]
        flow = send_channels_first(batch.flow)  # (u, v)
        mask = send_channels_first(batch.mask) / 255
        if draws:
            *images, flow, mask = self.geometry(*images, flow, mask, send(draws.geometry))
            if draws.noise_seeds:
                noise = draw_noise(draws.noise_seeds[part], self.settings.target)
                noise = nd.array(noise, context)  # (n, 2, 3, H, W)
                noises = [noise[:, 0], noise[:, 1]]
            else:
                noises = [nd.zeros_like(image) for image in images]
            images = self.colour(*images, *noises, send(draws.colour))
        if self.colour_order == "BGR":
            images = [image.flip(axis=1) for image in images]
        mean = nd.concat(*images, dim=2).mean(axis=(2, 3), keepdims=True)
        return [nd.broadcast_sub(image, mean) for image in images], flow.flip(axis=1), mask

    def state(self) -> dict[str, np.ndarray]:
        arrays = {}
        states = self.trainer._updaters[0].states
        for index, parameter in enumerate(self.trainer._params):
            if index in states:
                name = self._name_of(parameter)
                mean, variance = states[index]
                arrays[f"mean.{name}"] = mean.asnumpy()
                arrays[f"var.{name}"] = variance.asnumpy()
        return arrays

    def _name_of(self, parameter) -> str:
        return next(name for name, other in self.trained.items() if other is parameter)

    def load_state(self, state: dict[str, np.ndarray], step: int) -> None:
        expected = {f"{kind}.{name}" for name in self.trained for kind in ("mean", "var")}
        if set(state) != expected:
            raise UserError("the optimiser's state does not fit the network: it belongs to another checkpoint")
        self._make_trainer(self.kvstore, step)
        for context, updater in zip(self.contexts, self.trainer._updaters):
            for index, parameter in enumerate(self.trainer._params):
                name = self._name_of(parameter)
                updater.states[index] = tuple(nd.array(state[f"{kind}.{name}"], context) for kind in ("mean", "var"))
                updater.states_synced[index] = True
