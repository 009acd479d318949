"""What the nodes of a graph that was fused for GPUs do: convolutions and whole dense blocks.

Their weights are packed once for inference; in training, as a part of each step. An operator here
belongs to one node of one module, whose parameters it is always called with.

Graphs rewritten for GPUs: fused nodes on channels-last maps, in bfloat16 or float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
import torch.nn.functional as F
from maskflownet.engine.symbol import Graph, Output
from maskflownet.engine.torch.fused.patterns import DenseBlock as FoundBlock
from maskflownet.engine.torch.fused.patterns import (
    find_convolutions,
    find_correlations,
    find_deformables,
    find_dense_blocks,
    find_upsamplings,
    fuse,
)
from maskflownet.engine.torch.kernels.convolution import CHANNEL_UNIT, padded
from maskflownet.engine.torch.kernels.convolution_autograd import (
    Arithmetic,
    BlockSpec,
    Convolution,
    ConvolutionSpec,
    DenseBlock,
    Head,
    convolve_map,
    pack,
    run_block,
)
from maskflownet.engine.torch.kernels.correlation import correlation
from maskflownet.engine.torch.kernels.deformable import deformable, pack_weight
from maskflownet.engine.torch.kernels.upsampling import upsample
from maskflownet.engine.torch.module import GraphModule
from maskflownet.engine.torch.operators import OPERATORS
from torch import Tensor

# The taps of a 4x4 transposed convolution of stride 2 by which output row 2 i + a takes rows i - 1,
# i, i + 1 of the input; the fifth one is zero.
DOUBLING_TAPS = (3, 1, 4, 4, 2, 0)


class PackedOperator(ABC):
    """An operator with tensors that are derived from its parameters.

    Subclasses allocate and write them.
    """

    def __init__(self):
        self._parameters: list[Tensor] | None = None
        self._derived: list[Tensor] = []

    def derived(self, parameters: list[Tensor]) -> tuple[list[Tensor], bool]:
        """The derived tensors, and whether gradients of the parameters are wanted."""
        wanted = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
        if wanted or self._parameters is None:
            self._parameters = parameters
            self.refresh()
        return self._derived, wanted

    def refresh(self) -> None:
        """Derive anew, in place, from the parameters of the last call."""
        if self._parameters is None:
            return
        # What inference mode makes could not be written to in training.
        with torch.inference_mode(False), torch.no_grad():
            if not self._derived:
                self._derived = self._allocate(self._parameters)
            self._derive(self._parameters, self._derived)

    @abstractmethod
    def _allocate(self, parameters: list[Tensor]) -> list[Tensor]:
        """Memory for the derived tensors."""

    @abstractmethod
    def _derive(self, parameters: list[Tensor], derived: list[Tensor]) -> None:
        """Write the derived tensors."""


class ConvolutionOperator(PackedOperator):
    """Inputs: x, weight, bias. Attributes: stride, dilation, slope."""

    def __init__(self, arithmetic: Arithmetic):
        super().__init__()
        self.arithmetic = arithmetic

    def __call__(self, inputs, attrs):
        x, weight, bias = inputs
        (packed,), wanted = self.derived([weight])
        k, c = weight.shape[:2]
        spec = ConvolutionSpec(attrs["stride"], attrs["dilation"], attrs["slope"], self.arithmetic)
        packed = packed[:, :k, :c]
        if wanted or (torch.is_grad_enabled() and x.requires_grad):
            return Convolution.apply(spec, packed, x, weight, bias)
        return convolve_map(spec, packed, x, bias)

    def _allocate(self, parameters):
        k, c = map(padded, parameters[0].shape[:2])
        return [parameters[0].new_zeros((9, k, c), dtype=self.arithmetic.dtype)]

    def _derive(self, parameters, derived):
        k, c = parameters[0].shape[:2]
        pack(parameters[0], derived[0][:, :k, :c])


class DeformableOperator(PackedOperator):
    """Inputs: x, offset, weight, bias, then mask and residual where the attributes say so."""

    def __init__(self, arithmetic: Arithmetic):
        super().__init__()
        self.arithmetic = arithmetic

    def __call__(self, inputs, attrs):
        x, offset, weight, bias, *rest = inputs
        mask = rest.pop(0) if attrs["masked"] else None
        residual = rest.pop(0) if attrs["residual"] else None
        differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
        if not differentiable:
            (weight,), _ = self.derived([weight])
        return deformable(
            x, offset, weight, bias, mask, residual, attrs["slope"],
            precision=self.arithmetic.precision,
        )  # fmt: skip

    def _allocate(self, parameters):
        return [pack_weight(parameters[0], self.arithmetic.dtype)]

    def _derive(self, parameters, derived):
        derived[0].copy_(pack_weight(parameters[0], self.arithmetic.dtype))


class DenseBlockOperator(PackedOperator):
    """Inputs: the parts, then weight and bias of each layer; outputs: the heads.

    The heads without activation, and the transposed convolutions written as convolutions to four
    times the channels, are computed together as one.
    """

    def __init__(self, block: FoundBlock, arithmetic: Arithmetic):
        super().__init__()
        self.block, self.arithmetic = block, arithmetic
        self._taps: Tensor | None = None
        heads = range(len(block.heads))
        self.linear = [i for i in heads if self._doubles(i) or block.heads[i].slope is None]
        self.active = [i for i in heads if i not in self.linear]

    def _doubles(self, i: int) -> bool:
        return self.block.heads[i].node.op == "Deconvolution"

    def _spec(self, parts) -> BlockSpec:
        block = self.block
        widths = [head.channels * (4 if self._doubles(i) else 1)
                  for i, head in enumerate(block.heads)]  # fmt: skip
        heads = []
        if self.linear:
            heads.append(Head(sum(widths[i] for i in self.linear), None, torch.float32))
        for i in self.active:
            heads.append(Head(widths[i], block.heads[i].slope, self.arithmetic.dtype))
        return BlockSpec(
            tuple(part.shape[1] for part in parts),
            tuple(layer.channels for layer in block.convolutions),
            tuple(heads),
            block.convolutions[0].slope,
            self.arithmetic,
        )

    def _arrays(self, parameters) -> list[Tensor]:
        """Weights and biases in turn, of the convolutions as they are and of the joined heads."""
        count = 2 * len(self.block.convolutions)
        pairs = list(zip(parameters[count::2], parameters[count + 1 :: 2]))
        if self._taps is None:  # made once, not within a captured step
            self._taps = torch.tensor(DOUBLING_TAPS, device=parameters[0].device)
        pairs = [as_convolution(*pair, self._taps) if self._doubles(i) else pair for i, pair in enumerate(pairs)]
        arrays = list(parameters[:count])
        if self.linear:
            arrays += [torch.cat([pairs[i][k] for i in self.linear]) for k in (0, 1)]
        for i in self.active:
            arrays += pairs[i]
        return arrays

    def __call__(self, inputs, attrs):
        count = len(self.block.parts)
        parts, parameters = inputs[:count], inputs[count:]
        self.spec = self._spec(parts)
        (packed, *biases), wanted = self.derived(parameters)
        if wanted or (torch.is_grad_enabled() and any(p.requires_grad for p in parts)):
            outputs = DenseBlock.apply(self.spec, packed, *parts, *self._arrays(parameters))
        else:
            outputs = run_block(self.spec, packed, parts, biases)[1]
        return self._heads(list(outputs))

    def _heads(self, outputs) -> tuple[Tensor, ...]:
        results = {}
        if self.linear:
            joined, begin = outputs.pop(0), 0
            for i in self.linear:
                head = self.block.heads[i]
                width = head.channels * (4 if self._doubles(i) else 1)
                result = joined[:, begin : begin + width]
                begin += width
                if self._doubles(i):
                    result = F.pixel_shuffle(result, 2)
                    if head.slope is not None:
                        result = F.leaky_relu(result, head.slope)
                results[i] = result
        results.update(zip(self.active, outputs))
        return tuple(results[i] for i in range(len(results)))

    def _allocate(self, parameters):
        spec, like = self.spec, parameters[0]
        packed = like.new_zeros((9, spec.rows, spec.columns), dtype=self.arithmetic.dtype)
        channels = (*spec.dense, *(head.channels for head in spec.heads))
        return [packed, *(like.new_empty(count) for count in channels)]

    def _derive(self, parameters, derived):
        packed, *biases = derived
        arrays = self._arrays(parameters)
        self.spec.pack(packed, arrays[::2])
        for bias, value in zip(biases, arrays[1::2]):
            bias.copy_(value)


def as_convolution(weight: Tensor, bias: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """A 4x4 transposed convolution of stride 2 and padding 1 as a 3x3 one before a pixel shuffle.

    (C, K, 4, 4), (K,), DOUBLING_TAPS -> (4 K, C, 3, 3), (4 K,)
    """
    inputs, outputs = weight.shape[:2]
    weight = F.pad(weight, (0, 1, 0, 1)).index_select(2, taps).index_select(3, taps)
    weight = weight.reshape(inputs, outputs, 2, 3, 2, 3).permute(1, 2, 4, 0, 3, 5)
    return weight.reshape(4 * outputs, inputs, 3, 3), bias.repeat_interleave(4)


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
        operators = {f"block {block.name}": self._keep(DenseBlockOperator(block, arithmetic)) for block in blocks}
        for find, make in ((find_convolutions, ConvolutionOperator), (find_deformables, DeformableOperator)):
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
        return bool(torch.allclose(constants[ref], torch.outer(ramp, ramp).expand_as(constants[ref])))

    return triangular


def _correlate(arithmetic: Arithmetic):
    def correlate(inputs, attrs):
        a, b = (x.to(arithmetic.dtype) for x in inputs)
        return correlation(a, b, attrs["radius"], attrs["slope"], precision=arithmetic.precision)

    return correlate
