"""Training with MXNet: augmentation, loss and Adam on one or several contexts."""

import numpy as np
from maskflownet.engine.contract import Losses, NotFinite, Training, TrainingSettings, check_state, shares
from maskflownet.network.architecture import HEAD
from maskflownet.network.augmentation import ColourAugmentation, GeometryAugmentation
from maskflownet.network.compat import mx
from maskflownet.network.draws import Draws, draw_noise, draw_step
from maskflownet.network.losses import EndPointError, MultiscaleEPE

nd = mx.nd


def channels_first(x):
    """(N, H, W, C) -> (N, C, H, W) float32."""
    return x.transpose((0, 3, 1, 2)).astype("float32")


def centred(images: list, colour: str) -> list:
    """RGB images (N, 3, H, W) in the network's channel order, minus the mean of both."""
    if colour == "BGR":
        images = [image.flip(axis=1) for image in images]
    mean = nd.concat(*images, dim=2).mean(axis=(2, 3), keepdims=True)
    return [nd.broadcast_sub(image, mean) for image in images]


class MXNetTraining(Training):
    """See `maskflownet.engine.contract.Training`; `engine` is an MXNetEngine."""

    def __init__(self, engine, settings: TrainingSettings):
        self.contexts, self.processes = engine.contexts, engine.processes
        self.network, self.colour_order = engine.network, engine.record.colour
        self.settings, optimizer = settings, settings.optimizer
        structural = self.network._collect_params_with_prefix()
        # The head of a MaskFlownet stays as it is.
        chosen = optimizer.chosen(n for n in structural if not n.startswith(HEAD))
        for name, parameter in structural.items():
            parameter.grad_req = "write" if name in chosen else "null"
            parameter.wd_mult = 0.0 if name.endswith("bias") else 1.0
        self.trained = {n: p for n, p in structural.items() if n in chosen}
        self.loss = MultiscaleEPE(settings.loss_weights, optimizer.q)
        self.metric = EndPointError(4)
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
                begin_num_update=steps,
            ),
            kvstore=self.processes.kvstore if self.processes.world_size > 1 else "device",
            # The state stays here, where it can be saved as arrays.
            update_on_kvstore=False,
        )

    def train_batch(self, batch, step: int, learning_rate: float) -> Losses:
        count, processes = len(batch.names), self.processes
        draws = draw_step(self.settings, count, step, processes.rank, processes.world_size)
        losses, errors = [], []
        for context, part in zip(self.contexts, shares(count, len(self.contexts))):
            images, label, mask = self._prepare(batch, draws, part, context)
            with mx.autograd.record():
                flows = self.network(*images)[0]
                losses.append(self.loss(label, mask, *flows))
            errors.append(self.metric(flows[-1], label, mask))
        values, epes = (np.concatenate([part.asnumpy() for part in parts]) for parts in (losses, errors))
        means = nd.array([values.mean() / processes.world_size, epes.mean() / processes.world_size])
        processes.all_reduce(means)
        loss, epe = (float(mean) for mean in means.asnumpy())
        if self._failed is None and not np.isfinite(loss):
            names = [name for name, value in zip(batch.names, values) if not np.isfinite(value)]
            where = f"for the samples {', '.join(names)}" if names else "for samples of another process"
            self._failed = NotFinite(f"the loss is not finite at step {step + 1}, {where}")
        if self._failed is None:  # a backward pass over flows that are NaN has crashed MXNet
            mx.autograd.backward(losses)
            self.trainer.set_learning_rate(learning_rate)
            self.trainer.step(count * processes.world_size)
        failed = self._failed

        def read() -> tuple[float, float]:
            if failed is not None:
                raise failed
            return loss, epe

        return Losses(read)

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
        check_state(state, self.trained)
        self._make_trainer(step)
        for context, updater in zip(self.contexts, self.trainer._updaters):
            for index, name in enumerate(self.trained):
                updater.states[index] = tuple(nd.array(state[f"{kind}.{name}"], context) for kind in ("mean", "var"))
                updater.states_synced[index] = True
