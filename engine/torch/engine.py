"""The engine that executes the networks' graphs with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from maskflownet.checkpoints.records import Record
from maskflownet.engine.contract import Engine, Prediction, Sizing, TrainingSettings, Workers
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.fused import executor
from maskflownet.engine.torch.prediction import CPURunner, CUDARunner, FlowComputation
from maskflownet.engine.torch.training import TorchTraining
from maskflownet.errors import UserError
from maskflownet.settings.configs import NetworkConfig


class TorchEngine(Engine):
    """A network on one or several PyTorch devices of this process.

    Parameters
    ----------
    config : NetworkConfig
    devices : sequence of torch.device
        A batch of predictions is split evenly over them; training takes one, see
        `maskflownet.engine.torch.distributed` for more.
    seed : int
        Of the initial parameters.
    precision : {"float32", "tf32", "bf16"}
        Of the network's matrix products on GPUs; everything else is float32.
    workers : Workers
        The processes that train together.
    """

    name = "torch"

    def __init__(
        self,
        config: NetworkConfig,
        devices: Sequence[torch.device],
        seed: int = 0,
        precision: str = "float32",
        workers: Workers = Workers(),  # noqa: B008 - frozen
    ):
        self.config, self.precision, self.workers = config, precision, workers
        self.torch_devices = [torch.device(device) for device in devices]
        self.devices = len(self.torch_devices)
        self.ahead = 1 if self.torch_devices[0].type == "cuda" else 0
        self._seed = seed
        settings = config.network
        self.rebuild(Record(settings.class_, settings.pyramid, flow_multiplier=settings.flow_multiplier))

    def rebuild(self, record: Record) -> None:
        self.record = record
        graph = graph_of(
            "network", network=record.network, flow_multiplier=record.flow_multiplier, pyramid=record.pyramid
        )
        self.networks = [executor(graph, device, self.precision) for device in self.torch_devices]
        for network in self.networks:
            network.initialise(self._seed)
        self._runners: list = []
        self.parameters_changed()

    def parameters_changed(self) -> None:
        """To be called after the parameters got other values."""
        self._changed = True

    def release_predictions(self) -> None:
        """Give back the memory that predictions hold for the next ones of their sizes."""
        self._runners = []
        for network in self.networks:
            getattr(network, "release", lambda: None)()

    def assign(self, parameters) -> None:
        for network in self.networks:
            named = dict(network.named_parameters())
            with torch.no_grad():
                for name, array in parameters.items():
                    named[name].copy_(torch.from_numpy(np.array(array, np.float32)))
        self.parameters_changed()

    def parameters(self) -> dict[str, np.ndarray]:
        return {
            name: parameter.detach().cpu().numpy().copy() for name, parameter in self.networks[0].named_parameters()
        }

    def shapes(self, prefix: str = "") -> dict[str, tuple]:
        named = self.networks[0].named_parameters()
        return {n[len(prefix) :]: tuple(p.shape) for n, p in named if n.startswith(prefix)}

    def predict(self, image_1, image_2, sizing=Sizing(), mask=True, warped=True):  # noqa: B008
        return self.submit(image_1, image_2, sizing, mask, warped)()

    def submit(
        self,
        image_1,
        image_2,
        sizing=Sizing(),  # noqa: B008
        mask=True,
        warped=True,
    ) -> Callable[[], Prediction]:
        if not self._runners:
            self._runners = [self._runner(network) for network in self.networks]
        if self._changed:
            self._tell_networks()
        shares = np.array_split(np.arange(len(image_1)), self.devices)
        with self._errors(image_1):
            parts = []
            for runner, share in zip(self._runners, shares):
                if len(share):
                    part = slice(share[0], share[-1] + 1)
                    images = image_1[part], image_2[part]
                    parts.append(runner.submit(images, sizing, mask, warped))

        def result() -> Prediction:
            with self._errors(image_1):
                arrays = [
                    outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
                    for outputs in zip(*(part() for part in parts))
                ]
            others = iter(arrays[1:])
            return Prediction(arrays[0], next(others) if mask else None, next(others) if warped else None)

        return result

    def _runner(self, network):
        compute = FlowComputation(network, self.precision, self.record.colour)
        device = next(network.parameters()).device
        return CPURunner(compute) if device.type == "cpu" else CUDARunner(compute, device)

    def _tell_networks(self) -> None:
        for network in self.networks:
            getattr(network, "parameters_changed", lambda: None)()
        for device in self.torch_devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # the runners have streams of their own
        self._changed = False

    @contextmanager
    def _errors(self, images) -> Iterator[None]:
        """Turn what PyTorch says about a prediction that it cannot do into one sentence."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            count, height, width = images.shape[:3]
            self.release_predictions()
            raise UserError(
                f"PyTorch cannot predict {count} pairs of {height}x{width}: the memory does not "
                "suffice; a smaller batch or a smaller size needs less"
            ) from error

    def training(self, settings: TrainingSettings) -> TorchTraining:
        if self.devices != 1:
            raise UserError("PyTorch trains on one device per process")
        # Their captured graphs read the parameters where these lie now.
        self.release_predictions()
        training = TorchTraining(self, settings)
        # Frozen parameters are not packed anew in each step.
        self._tell_networks()
        return training

    def close(self) -> None:
        self.workers.close()


def lacks_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
