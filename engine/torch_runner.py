"""Predictions on one device: at once on the CPU, as CUDA graphs and overlapped copies on a GPU."""

from __future__ import annotations

from collections import OrderedDict
from typing import Callable

import numpy as np
import torch

from engine.sizing import Sizing
from engine.torch_prediction import FlowComputation
from engine.torch_transfer import Download, upload

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
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
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
