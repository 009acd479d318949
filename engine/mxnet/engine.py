"""The engine that executes the networks with MXNet, and the devices of `-g` for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from maskflownet.checkpoints.records import Record
from maskflownet.engine.contract import (
    ALONE,
    Engine,
    Prediction,
    Processes,
    Sizing,
    TrainingSettings,
    device_ids,
    shares,
)
from maskflownet.engine.mxnet.training import MXNetTraining, centred, channels_first
from maskflownet.errors import UserError
from maskflownet.network.architecture import SLOPE
from maskflownet.network.compat import mx
from maskflownet.network.layers import Upsample, Warp
from maskflownet.network.maskflownet import MaskFlownet, MaskFlownet_S
from maskflownet.settings.configs import NetworkConfig

nd = mx.nd


def contexts(gpus: str) -> list:
    """MXNet contexts of comma-separated device ids; the CPU without any.

    It is a UserError if this MXNet has no CUDA, or there is no such device.
    """
    ids = device_ids(gpus)
    if not ids:
        return [mx.cpu()]
    if not mx.runtime.Features().is_enabled("CUDA"):
        raise UserError(
            f"-g {gpus} needs an MXNet with CUDA, but this one ({mx.__version__}) is for CPUs: "
            "install requirements-cu117.txt, or leave out -g to use the CPU"
        )
    count = mx.context.num_gpus()
    if max(ids) >= count:
        raise UserError(f"there is no GPU {max(ids)}: MXNet finds {count}, numbered from 0")
    return [mx.gpu(i) for i in ids]


SUMS = 1_000_000  # key of what is summed beside the gradients, whose keys are 0, 1, ...


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


def build_network(name: str, flow_multiplier: float, pyramid: str):
    """One of the two networks, its parameters without values."""
    return MaskFlownet_S(flow_multiplier) if name == "MaskFlownet_S" else MaskFlownet(flow_multiplier, pyramid)


class MXNetEngine(Engine):
    """A network on one or several MXNet contexts, over which a batch is split evenly.

    `seed` decides the initial parameters.
    """

    name = "mxnet"

    def __init__(self, config: NetworkConfig, contexts: list, seed: int = 0, processes: Processes = ALONE):
        self.config, self.processes = config, processes
        self.contexts, self.devices = contexts, len(contexts)
        self._seed = seed
        settings = config.network
        self.rebuild(Record(settings.class_, settings.pyramid, flow_multiplier=settings.flow_multiplier))
        self._upsample_flow = Upsample(4, channels=2)
        self._upsample_mask = Upsample(4, channels=1)
        self._warp = Warp(clamp=True)
        for block in (self._upsample_flow, self._upsample_mask, self._warp):
            block.hybridize()

    def rebuild(self, record: Record) -> None:
        self.record = record
        self.network = build_network(record.network, record.flow_multiplier, record.pyramid)
        mx.random.seed(self._seed)
        self.network.initialize(mx.init.MSRAPrelu(slope=SLOPE), ctx=self.contexts)
        self.network.hybridize(static_alloc=True)

    def assign(self, parameters) -> None:
        structural = self._structural_parameters()
        for name, array in parameters.items():
            structural[name].set_data(nd.array(array))

    def training(self, settings: TrainingSettings) -> MXNetTraining:
        return MXNetTraining(self, settings)

    def _structural_parameters(self):
        # Gluon's own way to these names is private; save_parameters writes the same ones.
        return self.network._collect_params_with_prefix()

    def parameters(self) -> dict[str, np.ndarray]:
        return {name: parameter.list_data()[0].asnumpy() for name, parameter in self._structural_parameters().items()}

    def submit(self, image_1, image_2, sizing=None, mask=True, warped=True) -> Callable[[], Prediction]:
        try:
            prediction = self._predict(image_1, image_2, sizing or Sizing(), mask, warped)
        except mx.MXNetError as error:
            height, width = image_1.shape[1:3]
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"MXNet cannot predict {len(image_1)} pairs of {height}x{width}: {reason}") from error
        return lambda: prediction

    def _predict(self, image_1, image_2, sizing, mask, warped) -> Prediction:
        parts = []
        for context, part in zip(self.contexts, shares(len(image_1), self.devices)):
            images = (nd.array(image[part], context, np.uint8) for image in (image_1, image_2))
            parts.append(self._predict_on_device(*images, sizing, mask, warped))
        # MXNet computes asynchronously: only here are the devices waited for.
        return Prediction(*(None if outputs[0] is None else to_host(outputs) for outputs in zip(*parts)))

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
