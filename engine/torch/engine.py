"""The engine that executes the networks' graphs with PyTorch, and how it predicts."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from maskflownet.checkpoints.checkpoint import Record
from maskflownet.engine import contract
from maskflownet.engine.contract import ALONE, Drawing, Drawn, Engine, Prediction, Processes, Sizing, TrainingSettings
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.devices import Streams, enough_memory
from maskflownet.engine.torch.fused import executor
from maskflownet.engine.torch.module import computing, to_float
from maskflownet.engine.torch.network import estimate, warp
from maskflownet.engine.torch.training import TorchTraining
from maskflownet.errors import UserError
from maskflownet.reader.colour import colour_table, largest_motion, scale_of_flow_vis, table_places
from maskflownet.settings.configs import NetworkConfig

GRAPHS = 4  # sizes that are kept as CUDA graphs; each holds the memory of one forward pass
UNCAPTURED = 2  # batches of a size before its graph is made
SEEN = 16 * GRAPHS  # sizes that are remembered
BATCH_PIXELS = 8 * 720 * 1280  # of a batch for each GPU; larger ones gain nothing
Arrays = Callable[[], dict[str, np.ndarray]]  # waits for what is predicted: by the names of `Drawn`, what is asked for


class TorchEngine(Engine):
    """A network on one or several PyTorch devices of this process.

    A batch of predictions is split evenly over them; training takes one device a process. `seed` decides the initial
    parameters; None leaves them 0: all are going to be assigned. `precision`, "float32", "tf32" or "bf16", is that of
    the network's matrix products on GPUs; everything else is float32.
    """

    name = "torch"

    def __init__(
        self,
        config: NetworkConfig,
        devices: Sequence[torch.device],
        seed: int | None = 0,
        precision: str = "float32",
        processes: Processes = ALONE,
    ):
        self.config, self.precision, self.processes = config, precision, processes
        self.torch_devices = [torch.device(device) for device in devices]
        self.devices = len(self.torch_devices)
        if self.torch_devices[0].type == "cuda":
            self.ahead, self.batch_pixels = 1, BATCH_PIXELS * self.devices
        self._seed, self._built = seed, None
        settings = config.network
        self.rebuild(Record(settings.class_, settings.pyramid, flow_multiplier=settings.flow_multiplier))

    def rebuild(self, record: Record) -> None:
        self.record = record
        settings = {name: getattr(record, name) for name in ("network", "flow_multiplier", "pyramid")}
        if settings != self._built:
            graph = graph_of("network", **settings)
            self.networks = [executor(graph, device, self.precision) for device in self.torch_devices]
            self._built = settings
        if self._seed is not None:
            for network in self.networks:
                network.initialise(self._seed, self.config.network.initial)
        self._runners: list = []
        self.parameters_changed()

    def parameters_changed(self) -> None:
        """To be called after the parameters got other values."""
        self._changed = True

    def assign(self, parameters: dict[str, np.ndarray]) -> None:
        for network in self.networks:
            named = dict(network.named_parameters())
            with torch.no_grad():
                for name, array in parameters.items():
                    named[name].copy_(torch.from_numpy(np.require(array, np.float32, "W")))
        self.parameters_changed()

    def parameters(self) -> dict[str, np.ndarray]:
        return {
            name: parameter.detach().cpu().numpy().copy() for name, parameter in self.networks[0].named_parameters()
        }

    def submit(self, image_1, image_2, sizing=None, mask=True, warped=True, drawing=None):
        if not self._runners:
            self._runners = [self._runner(network) for network in self.networks]
        if self._changed:
            self._tell_networks()
        wanted = (sizing or Sizing(), mask, warped, drawing)
        parts = contract.shares(len(image_1), self.devices)

        def submit_parts() -> list[Arrays]:
            return [runner((image_1[part], image_2[part]), *wanted) for runner, part in zip(self._runners, parts)]

        submitted = self._with_memory(image_1.shape, submit_parts)

        def result() -> Prediction | Drawn:
            first, *others = self._with_memory(image_1.shape, lambda: [arrays() for arrays in submitted])
            if others:
                first = {name: np.concatenate([first[name], *(other[name] for other in others)]) for name in first}
            kind = Prediction if drawing is None else Drawn
            return kind(**dict.fromkeys(kind._fields) | first)

        return result

    def _runner(self, network: torch.nn.Module) -> Callable[..., Arrays]:
        compute = FlowComputation(network, self.precision, self.record.colour)
        device = next(network.parameters()).device
        return partial(run_on_cpu, compute) if device.type == "cpu" else CUDARunner(compute, device)

    def _tell_networks(self) -> None:
        for network in self.networks:
            getattr(network, "parameters_changed", lambda: None)()
        for device in self.torch_devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # the runners have streams of their own
        self._changed = False

    def _with_memory(self, shape: tuple, compute: Callable):
        count, height, width, _ = shape
        try:
            with enough_memory(
                f"predict {count} pairs of {height}x{width}", "a smaller batch or a smaller size needs less"
            ):
                return compute()
        except UserError:
            self._release_predictions()
            raise

    def _release_predictions(self) -> None:
        """Give back the memory that predictions hold for the next ones of their sizes."""
        self._runners = []
        for network in self.networks:
            getattr(network, "release", lambda: None)()

    def training(self, settings: TrainingSettings) -> TorchTraining:
        if self.devices != 1:
            raise UserError("PyTorch trains on one device per process")
        # Their captured graphs read the parameters where these lie now.
        self._release_predictions()
        training = TorchTraining(self, settings)
        # Frozen parameters are not packed anew in each step.
        self._tell_networks()
        return training


class FlowComputation:
    """From uint8 images to flow: centring, fitting to the network's size, the network, the way back.

    `precision` is that of the network alone; `colour`, "RGB" or "BGR", the order of its channels.
    """

    def __init__(self, network: torch.nn.Module, precision: str, colour: str):
        self.network, self.precision, self.colour = network, precision, colour
        self._colours: torch.Tensor | None = None  # made in the first drawing, which is not captured

    @torch.no_grad()
    def __call__(
        self, images, sizing: Sizing, mask: bool, warped: bool, drawing: Drawing | None, search: bool = False
    ) -> dict[str, torch.Tensor]:
        """Two (N, H, W, 3) uint8 on the device -> what is asked for, by the names of `Drawn`."""

        def network(*inputs):
            with computing(self.precision, search):
                return self.network(*inputs)

        with computing("float32"):
            images = [to_float(image) for image in images]
            flow, visible, _ = estimate(network, images, self.colour, sizing)
            outputs = {"flow": flow.flip(1)}
            if mask:
                outputs["mask"] = visible()
            if warped:
                outputs["warped"] = warp(images[1], flow.flip(1))
            outputs = {name: output.permute(0, 2, 3, 1).contiguous() for name, output in outputs.items()}
            return outputs if drawing is None else self._drawn(outputs, drawing)

    def _drawn(self, outputs: dict[str, torch.Tensor], drawing: Drawing) -> dict[str, torch.Tensor]:
        flow = outputs["flow"] if drawing.vectors else outputs.pop("flow")
        outputs["largest"] = largest_motion(flow, torch)
        if drawing.max_flow is not None:
            if self._colours is None:
                self._colours = torch.from_numpy(colour_table()).to(flow.device)
            scale = torch.full((), float(scale_of_flow_vis(drawing.max_flow)), device=flow.device)
            outputs["colours"] = colours_of(flow, scale, self._colours)
        return outputs


def colours_of(flow: torch.Tensor, scale: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """`flow_to_colour` of flows (..., 2) float32 for a scale () and the `colour_table`, all on a device."""
    row, column = table_places(flow, scale, torch)
    cell = (row.round() * table.shape[1] + column.round()).nan_to_num(0).long()
    return torch.nn.functional.embedding(cell, table.flatten(0, 1))  # on a CPU faster than an index


def run_on_cpu(compute: FlowComputation, images, *wanted) -> Arrays:
    """Two (N, H, W, 3) uint8 arrays -> function that gives the outputs of `FlowComputation`."""
    images = [torch.from_numpy(np.array(image, order="C")) for image in images]
    outputs = {name: output.numpy() for name, output in compute(images, *wanted).items()}
    return lambda: outputs


class CUDARunner:
    """As `run_on_cpu`, on streams of its own: copies of one batch overlap another's computing.

    The first two batches of a size are computed operation by operation, the third is captured as a
    CUDA graph, which later ones replay. A capture takes as long as two such batches: sizes that do
    not return often enough cost none. The graphs share one pool of memory, as they run one after the
    other.
    """

    def __init__(self, compute: FlowComputation, device: torch.device):
        self.compute, self.streams = compute, Streams(device)
        self.graphs: OrderedDict = OrderedDict()  # by shape and what is wanted, the latest last
        self._seen: OrderedDict = OrderedDict()
        self._pool = None

    def __call__(self, images, *wanted) -> Arrays:
        inputs = self.streams.upload(images)
        with self.streams():
            outputs = self._compute(inputs, wanted)
            download = self.streams.download(outputs.values())
        return lambda: dict(zip(outputs, download.arrays()))

    def _compute(self, inputs: list[torch.Tensor], wanted: tuple) -> dict[str, torch.Tensor]:
        key = (inputs[0].shape, *wanted)
        if key not in self.graphs:
            self._seen[key] = self._seen.get(key, 0) + 1
            if len(self._seen) > SEEN:
                self._seen.popitem(last=False)
            if self._seen[key] <= UNCAPTURED:
                return self.compute(inputs, *wanted)
            self.streams.computing.synchronize()  # the graph that makes room may still be at work
            while len(self.graphs) >= GRAPHS:
                self.graphs.popitem(last=False)
            self.graphs[key] = self._capture(inputs, wanted)
        self.graphs.move_to_end(key)
        graph, static, outputs = self.graphs[key]
        for place, given in zip(static, inputs):
            place.copy_(given)
        graph.replay()
        return {name: output.clone() for name, output in outputs.items()}

    def _capture(self, inputs: list[torch.Tensor], wanted: tuple):
        static = [given.clone() for given in inputs]
        # Once more outside of the capture, in which cuDNN cannot time its algorithms.
        self.compute(static, *wanted, search=True)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph, outputs = self.streams.capture(lambda: self.compute(static, *wanted, search=True), self._pool)
        return graph, static, outputs
