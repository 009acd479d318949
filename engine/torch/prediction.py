"""Copies between the host and a GPU that overlap what the GPU computes.

What the torch engine computes for a batch of pairs on one device, from uint8 images to flow.

Predictions on one device: at once on the CPU, as CUDA graphs and overlapped copies on a GPU.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from maskflownet.engine.contract import Sizing
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.fused import computing, module_of

TYPES = {np.dtype("uint8"): torch.uint8, np.dtype("float32"): torch.float32}
POLL = 5e-5  # s between two looks at a device, far below a step's time


def upload(arrays: Sequence[np.ndarray], copies: torch.cuda.Stream, user: torch.cuda.Stream) -> list[torch.Tensor]:
    """Bring arrays to the current GPU on the stream `copies`; `user` waits for them, the host not.

    Page-locked host memory is what makes the copy asynchronous. Arrays of `page_locked` must stay
    as they are until `user` has read them; others are copied first, into memory that PyTorch keeps
    until it is sent, and for later use.
    """
    sent = []
    with torch.cuda.stream(copies):
        for array in arrays:
            if _is_page_locked(array):
                host = torch.from_numpy(array)
            else:
                host = torch.empty(array.shape, dtype=TYPES[array.dtype], pin_memory=True)
                host.numpy()[...] = array
            sent.append(host.to(copies.device, non_blocking=True))
    user.wait_stream(copies)
    for tensor in sent:
        tensor.record_stream(user)  # its memory is not given away before `user` has read it
    return sent


def page_locked(size: int) -> np.ndarray:
    """Return (size,) bytes of page-locked host memory, which belongs to the array."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()


def _is_page_locked(array: np.ndarray) -> bool:
    flags = array.flags
    return flags.c_contiguous and flags.writeable and torch.from_numpy(array).is_pinned()


class Download:
    """Tensors on their way to the host.

    Parameters
    ----------
    tensors : list of torch.Tensor
        Made on the stream `maker`.
    maker, copies : torch.cuda.Stream
        The copies run on the second one.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], maker: torch.cuda.Stream, copies: torch.cuda.Stream):
        copies.wait_stream(maker)
        with torch.cuda.stream(copies):
            self._hosts = [_to_pinned(tensor) for tensor in tensors]
            self._done = torch.cuda.Event()
            self._done.record(copies)
        for tensor in tensors:
            tensor.record_stream(copies)

    def arrays(self) -> list[np.ndarray]:
        """Wait for the arrays; they lie in the page-locked memory."""
        self._done.synchronize()
        return [host.numpy() for host in self._hosts]

    def arrays_unless(self, lost: Callable[[], bool], patience: float) -> list[np.ndarray] | None:
        """As `arrays`, but None if they are not there `patience` s after `lost()` became true."""
        since = None
        while not self._done.query():
            if since is None and lost():
                since = time.monotonic()
            if since is not None and time.monotonic() - since > patience:
                return None
            time.sleep(POLL)
        return self.arrays()


def _to_pinned(tensor: torch.Tensor) -> torch.Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


class FlowComputation:
    """Centring, fitting to the network's size, the network, and the way back.

    Parameters
    ----------
    network : torch.nn.Module
        On its device.
    precision : {"float32", "tf32", "bf16"}
        Of the network; everything else is float32.
    colour : {"RGB", "BGR"}
        The order in which the network takes the channels.
    """

    def __init__(self, network: torch.nn.Module, precision: str, colour: str):
        device = next(network.parameters()).device
        self.network, self.precision, self.colour = network, precision, colour
        self.upsample_flow, self.upsample_mask, self.warp = (
            module_of(graph, device)
            for graph in (
                graph_of("upsample", factor=4, channels=2),
                graph_of("upsample", factor=4, channels=1),
                graph_of("warp", clamp=True),
            )
        )

    @torch.no_grad()
    def __call__(
        self,
        image_1: torch.Tensor,
        image_2: torch.Tensor,
        sizing: Sizing,
        with_mask: bool,
        with_warped: bool,
        search: bool = False,
    ) -> list[torch.Tensor]:
        """(N, H, W, 3) uint8 on the device -> flow (N, H, W, 2), then what is asked for."""
        with computing("float32"):
            image_1, image_2 = (to_float(image) for image in (image_1, image_2))
            height, width = image_1.shape[2:]
            fit, unfit = fitting(sizing, height, width)
            inputs = [fit(image) for image in centred([image_1, image_2], self.colour)]
            with computing(self.precision, search):
                *_, flow, mask = self.network(*inputs)
            flow, factors = unfit(self.upsample_flow(flow.float())[0])  # (N, 2, H, W), (y, x)
            # Not as a tensor of factors, which would have to be sent to the device.
            flow = torch.cat([flow[:, i : i + 1] * factors[i] for i in range(2)], dim=1)
            outputs = [flow.flip(1)]
            if with_mask:
                outputs.append(unfit(self.upsample_mask(mask.float())[0])[0])
            if with_warped:
                outputs.append(self.warp(image_2, flow)[0])
            return [output.permute(0, 2, 3, 1).contiguous() for output in outputs]


def to_float(image: torch.Tensor) -> torch.Tensor:
    """(N, H, W, C) uint8 -> (N, C, H, W) float32 in [0, 1]."""
    return image.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255


def centred(images: list[torch.Tensor], colour: str) -> list[torch.Tensor]:
    """RGB images (N, 3, H, W) in the network's channel order, minus the mean of both."""
    if colour == "BGR":
        images = [image.flip(1) for image in images]
    mean = torch.cat(images, dim=2).mean((2, 3), keepdim=True)
    return [image - mean for image in images]


def fitting(sizing: Sizing, height: int, width: int):
    """`Sizing.fitting` for PyTorch's tensors."""
    return sizing.fitting(height, width, pad, resize)


def pad(x: torch.Tensor, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    return F.pad(x, (left, right, top, bottom), mode="replicate")


def resize(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear, corners aligned: (N, C, h, w) -> (N, C, height, width)."""
    if x.shape[2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)


GRAPHS = 4  # sizes that are kept as CUDA graphs; each holds the memory of one forward pass
Outputs = Callable[[], "list[np.ndarray]"]


class CPURunner:
    """Computes when it is asked."""

    def __init__(self, compute: FlowComputation):
        self.compute = compute

    def submit(self, images, sizing: Sizing, mask: bool, warped: bool) -> Outputs:
        """(N, H, W, 3) uint8 arrays -> function that gives the outputs of `FlowComputation`."""
        inputs = (torch.from_numpy(np.array(image, order="C")) for image in images)
        outputs = [output.numpy() for output in self.compute(*inputs, sizing, mask, warped)]
        return lambda: outputs


class CUDARunner:
    """Computes on streams of its own, so that copies of one batch overlap another's computing.

    The first batch of a size is computed operation by operation, the second is captured as a CUDA
    graph, which later ones replay: a size that does not return costs no capture. The graphs share
    one pool of memory, as they run one after the other.

    Parameters
    ----------
    compute : FlowComputation
    device : torch.device
    """

    def __init__(self, compute: FlowComputation, device: torch.device):
        self.compute, self.device = compute, device
        self.stream, self.uploads, self.downloads = (torch.cuda.Stream(device) for _ in range(3))
        self.graphs: OrderedDict = OrderedDict()
        self.seen: OrderedDict = OrderedDict()
        # What was written on other streams, such as the parameters, comes first.
        torch.cuda.synchronize(device)
        self.pool = None

    def submit(self, images, sizing: Sizing, mask: bool, warped: bool) -> Outputs:
        """(N, H, W, 3) uint8 arrays -> function that gives the outputs of `FlowComputation`."""
        with torch.cuda.device(self.device):
            inputs = upload(images, self.uploads, self.stream)
            with torch.cuda.stream(self.stream):
                outputs = self._compute(inputs, (inputs[0].shape, sizing, mask, warped))
            return Download(outputs, self.stream, self.downloads).arrays

    def _compute(self, inputs, key) -> list[torch.Tensor]:
        _, *options = key
        if key not in self.graphs:
            if key not in self.seen:
                _remember(self.seen, key, None, 16 * GRAPHS)
                return self.compute(*inputs, *options)
            self.stream.synchronize()  # the graph that makes room may still be at work
            while len(self.graphs) >= GRAPHS:
                self.graphs.popitem(last=False)
            self.graphs[key] = self._capture(inputs, options)
        self.graphs.move_to_end(key)
        graph, static_inputs, static_outputs = self.graphs[key]
        for static, given in zip(static_inputs, inputs):
            static.copy_(given)
        graph.replay()
        return [output.clone() for output in static_outputs]

    def _capture(self, inputs, options):
        static = [given.clone() for given in inputs]
        # Once more outside of the capture, in which cuDNN cannot time its algorithms.
        self.compute(*static, *options, search=True)
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            outputs = self.compute(*static, *options, search=True)
        return graph, static, outputs

    def forget(self) -> None:
        """Give back the memory of all graphs."""
        self.stream.synchronize()
        self.graphs.clear()
        self.seen.clear()
        self.pool = None
        torch.cuda.empty_cache()


def _remember(known: OrderedDict, key, value, most: int) -> None:
    known[key] = value
    if len(known) > most:
        known.popitem(last=False)
