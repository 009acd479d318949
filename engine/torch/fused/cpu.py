"""Executes a network's graph on a CPU, for prediction several times faster than node by node."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from maskflownet.engine.symbol import Graph
from maskflownet.engine.torch.fused.cpu_chain import pack_chain, run_chain
from maskflownet.engine.torch.fused.cpu_deformable import deform, pack_deformable
from maskflownet.engine.torch.fused.cpu_dense_block import pack_block, run_block
from maskflownet.engine.torch.fused.patterns import (
    Fusion,
    find_convolution_chains,
    find_correlations,
    find_deformables,
    find_dense_blocks,
    fuse,
)
from maskflownet.engine.torch.kernels.correlation_cpu import correlate
from maskflownet.engine.torch.kernels.threads import Threads
from maskflownet.engine.torch.module import GraphModule
from maskflownet.engine.torch.operators import OPERATORS
from torch import Tensor


def fused_graph(graph: Graph) -> Graph:
    """The graph with nodes of the kinds in `FusedOperators`; what no pass finds stays as it is."""
    graph = fuse(graph, [block.fusion("dense_block") for block in find_dense_blocks(graph)])
    graph = fuse(graph, [chain.fusion("chain") for chain in find_convolution_chains(graph)])
    return fuse(graph, find_correlations(graph) + [*map(_named, find_deformables(graph))])


def _named(fusion: Fusion) -> Fusion:
    """With the name of the node among its attributes, under which its parameters are kept."""
    node = fusion.node
    return replace(fusion, node=replace(node, attrs={**node.attrs, "name": node.name}))


class FusedOperators:
    """The functions of the fused nodes, with the parameters as these use them."""

    def __init__(self):
        self.threads = Threads()
        self._packed: dict[str, tuple[list, object]] = {}

    def table(self) -> dict[str, Callable]:
        return {
            **OPERATORS,
            "dense_block": self._dense_block,
            "chain": self._chain,
            "correlation": self._correlation,
            "deformable": self._deformable,
        }

    def forget(self) -> None:
        self._packed.clear()

    def _dense_block(self, inputs: list[Tensor], attrs) -> tuple[Tensor, ...]:
        block = attrs["block"]
        parts, parameters = inputs[: len(block.parts)], inputs[len(block.parts) :]
        packed = self._parameters(block.name, parameters, partial(pack_block, block))
        return tuple(run_block(packed, parts, self.threads))

    def _chain(self, inputs: list[Tensor], attrs) -> Tensor:
        chain = attrs["chain"]
        layers = self._parameters(chain.name, inputs[1:], partial(pack_chain, chain))
        return run_chain(layers, inputs[0], self.threads)

    def _correlation(self, inputs: list[Tensor], attrs) -> Tensor:
        return correlate(*inputs, attrs["radius"], attrs["slope"], self.threads)

    def _deformable(self, inputs: list[Tensor], attrs) -> Tensor:
        x, offset, *parameters = inputs[:4]
        others = inputs[4:]
        mask = others.pop(0) if attrs["masked"] else None
        residual = others.pop(0) if attrs["residual"] else None
        packed = self._parameters(attrs["name"], parameters, pack_deformable)
        return deform(packed, x, offset, mask, residual, attrs["slope"], self.threads)

    def _parameters(self, name: str, parameters: list[Tensor], pack: Callable):
        """What `pack` made of the parameters, anew if they have changed."""
        state = [(v.data_ptr(), None if v.is_inference() else v._version) for v in parameters]
        known, packed = self._packed.get(name, (None, None))
        if known != state:
            # Not inference tensors, which a later call without inference mode could not use.
            with torch.inference_mode(False), torch.no_grad():
                packed = pack(parameters)
            self._packed[name] = state, packed
        return packed


class CPUNetwork(GraphModule):
    """A graph as a module with `GraphModule`'s parameters and results.

    Without gradients it computes fused nodes; where a gradient may be asked for, and for anything
    but float32 on a CPU, it is `GraphModule`. Transformed parameters and intermediate memory are
    kept from call to call.
    """

    def __init__(self, graph: Graph):
        fused = FusedOperators()
        super().__init__(fused_graph(graph), fused.table())
        self._fused, self._lock = fused, threading.Lock()
        self.plain = GraphModule(graph)
        # It computes with the parameters of this module instead of its own.
        self.plain._modules.clear()
        self.plain._leaves = self._leaves

    def parameters_changed(self) -> None:
        """To be called after a change that PyTorch does not count, such as through ``.data``."""
        self._fused.forget()

    def release(self) -> None:
        """Give back the memory that is kept from call to call."""
        with self._lock:
            self._fused.forget()
            self._fused.threads.release()

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        if torch.is_grad_enabled() or not self._all_float32_on_cpu(inputs):
            return self.plain(*inputs)
        with self._lock, self._fused.threads:
            return super().forward(*inputs)

    def _all_float32_on_cpu(self, inputs) -> bool:
        parameters = (getattr(owner, leaf) for owner, leaf in self._leaves.values())
        return all(value.dtype == torch.float32 and value.device.type == "cpu" for value in (*inputs, *parameters))
