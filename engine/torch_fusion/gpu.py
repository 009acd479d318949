"""Graphs rewritten for GPUs: fused nodes on channels-last maps, in bfloat16 or float32."""

from __future__ import annotations

from dataclasses import replace

import torch

from engine.kernels.convolution import CHANNEL_UNIT
from engine.kernels.convolution_autograd import Arithmetic
from engine.kernels.correlation import correlation
from engine.kernels.upsampling import upsample
from engine.torch_fusion.dense_block import find_dense_blocks
from engine.torch_fusion.gpu_operators import (
    ConvolutionOperator,
    DeformableOperator,
    DenseBlockOperator,
    PackedOperator,
)
from engine.torch_fusion.patterns import (
    find_convolutions,
    find_correlations,
    find_deformables,
    find_upsamplings,
)
from engine.torch_fusion.rewriting import fuse
from engine.torch_graph.module import GraphModule
from engine.torch_graph.operators import OPERATORS
from engine.torch_graph.symbol import Graph, Output

ARITHMETIC = {
    "float32": Arithmetic(torch.float32, "ieee"),
    "tf32": Arithmetic(torch.float32, "tf32"),
    "bf16": Arithmetic(torch.bfloat16),
}


def _upsample(inputs, attrs):
    return upsample(inputs[0], attrs["factor"])


UPSAMPLING = {**OPERATORS, "upsampling": _upsample}


class GPUNetwork(GraphModule):
    """A network's graph on an NVIDIA GPU, for inference and training.

    Parameters
    ----------
    graph : Graph
    precision : {"float32", "tf32", "bf16"}
        Of the features; flows, masks and sums are float32.
    """

    def __init__(self, graph: Graph, precision: str):
        self._packed: list[PackedOperator] = []
        arithmetic = ARITHMETIC[precision]
        fused, operators = self._fuse(graph, arithmetic)
        super().__init__(fused, {**UPSAMPLING, **operators})

    def _fuse(self, graph: Graph, arithmetic: Arithmetic):
        blocks = [block for block in find_dense_blocks(graph) if _fits(block)]
        fusions = [block.fusion(f"block {block.name}") for block in blocks]
        taken = {name for fusion in fusions for name in fusion.replaced}
        operators = {
            f"block {block.name}": self._keep(DenseBlockOperator(block, arithmetic))
            for block in blocks
        }
        for find, make in (
            (find_convolutions, ConvolutionOperator),
            (find_deformables, DeformableOperator),
        ):
            for fusion in find(graph):
                if taken.isdisjoint(fusion.replaced):
                    node = fusion.node
                    op = f"{node.op} {node.name}"
                    operators[op] = self._keep(make(arithmetic))
                    node = replace(node, op=op)
                    fusions.append(replace(fusion, node=node))
                    taken |= fusion.replaced
        fusions += find_correlations(graph) + find_upsamplings(graph, triangular_in(graph))
        operators["correlation"] = _correlate(arithmetic)
        return fuse(graph, fusions), operators

    def _keep(self, operator: PackedOperator) -> PackedOperator:
        self._packed.append(operator)
        return operator

    def parameters_changed(self) -> None:
        """Pack the weights anew, in place: after parameters were assigned or trained."""
        for operator in self._packed:
            operator.refresh()


def _fits(block) -> bool:
    """Whether the kernels can lay the features of a block side by side, all with one activation."""
    slopes = {layer.slope for layer in block.convolutions}
    return (
        all(layer.channels % CHANNEL_UNIT == 0 for layer in block.convolutions)
        and all(len(layer.parameters) == 2 for layer in block.layers)
        and len(slopes) == 1
        and None not in slopes
    )


def with_fast_upsampling(graph: Graph) -> GraphModule:
    """Any graph, of which only the upsampling is fused."""
    return GraphModule(fuse(graph, find_upsamplings(graph, triangular_in(graph))), UPSAMPLING)


def triangular_in(graph: Graph):
    """The test of `find_upsamplings` for a graph: its constants, computed and looked at."""
    _, constants = GraphModule._fold(graph, OPERATORS)

    def triangular(ref: Output, factor: int) -> bool:
        if ref not in constants:
            return False
        ramp = 1 - (torch.arange(2 * factor) - factor).abs() / factor
        return bool(
            torch.allclose(constants[ref], torch.outer(ramp, ramp).expand_as(constants[ref]))
        )

    return triangular


def _correlate(arithmetic: Arithmetic):
    def correlate(inputs, attrs):
        a, b = (x.to(arithmetic.dtype) for x in inputs)
        return correlation(a, b, attrs["radius"], attrs["slope"], precision=arithmetic.precision)

    return correlate
