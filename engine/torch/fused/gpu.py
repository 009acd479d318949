"""Executes a network's graph on an NVIDIA GPU: fused nodes on channels-last maps, in bfloat16 or float32.

The weights of a node are packed once for inference; in training, as a part of each step.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from maskflownet.engine.symbol import Graph
from maskflownet.engine.torch.fused.plan import Piece, fused_graph
from maskflownet.engine.torch.kernels.convolution import (
    CHANNEL_UNIT,
    Arithmetic,
    BlockSpec,
    Chain,
    ConvolutionSpec,
    DenseBlock,
    Head,
    convolve_map,
    new_packed,
    pack,
    padded,
    phase_weight,
    phases,
    run_block,
)
from maskflownet.engine.torch.kernels.correlation import correlation
from maskflownet.engine.torch.kernels.deformable import deformable, pack_weight
from maskflownet.engine.torch.kernels.layout import as_convolution
from maskflownet.engine.torch.module import GraphModule, with_fast_upsampling
from torch import Tensor

ARITHMETIC = {"tf32": Arithmetic(torch.float32, "tf32"), "bf16": Arithmetic(torch.bfloat16)}


class GPUNetwork(GraphModule):
    """A network's graph for inference and training, its features in "tf32" or "bf16"; flows, masks and sums in float32.

    Raises ValueError if the graph is not wired as the names of its layers say.
    """

    def __init__(self, graph: Graph, precision: str):
        self._arithmetic = ARITHMETIC[precision]
        self._operators: dict[str, PackedOperator] = {}  # by the node's name: its parameters are always the same
        fused, operators = with_fast_upsampling(fused_graph(graph))
        kinds = {
            "dense_block": self._dense_block,
            "chain": self._chain,
            "correlation": self._correlation,
            "deformable": self._deformable,
        }
        super().__init__(fused, {**operators, **kinds})

    def parameters_changed(self) -> None:
        """Pack the weights anew, in place: after parameters were assigned or trained."""
        for operator in self._operators.values():
            operator.refresh()

    def _dense_block(self, inputs: list[Tensor], attrs) -> tuple[Tensor, ...]:
        if attrs["name"] not in self._operators:
            self._operators[attrs["name"]] = DenseBlockOperator(attrs["piece"], self._arithmetic)
        return self._operators[attrs["name"]](inputs)

    def _chain(self, inputs: list[Tensor], attrs) -> Tensor:
        if attrs["name"] not in self._operators:
            self._operators[attrs["name"]] = ChainOperator(attrs["piece"], self._arithmetic)
        return self._operators[attrs["name"]](inputs)

    def _correlation(self, inputs: list[Tensor], attrs) -> Tensor:
        a, b = (x.to(self._arithmetic.dtype) for x in inputs)
        return correlation(a, b, attrs["radius"], attrs["slope"], self._arithmetic.precision)

    def _deformable(self, inputs: list[Tensor], attrs) -> Tensor:
        if attrs["name"] not in self._operators:
            self._operators[attrs["name"]] = DeformableOperator(attrs, self._arithmetic)
        return self._operators[attrs["name"]](inputs)


def shuffled(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`F.pixel_shuffle` to twice the size, (N, 4 C, H, W) -> (N, C, 2 H, 2 W), in channels-last memory."""
    x = x.unflatten(1, (-1, 2, 2)).permute(0, 4, 2, 5, 3, 1).to(dtype, memory_format=torch.contiguous_format)
    return x.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def differentiable(inputs: list[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


class PackedOperator(ABC):
    """An operator with tensors that are derived from its parameters.

    Subclasses say from which arrays, allocate and write them.
    """

    def __init__(self):
        self._parameters: list[Tensor] | None = None
        self._derived: list[Tensor] = []

    def derived(self, parameters: list[Tensor], grad: bool) -> tuple[list[Tensor], list[Tensor]]:
        """The derived tensors, and with `grad` the arrays that they come from."""
        if not grad and self._parameters is not None:
            return self._derived, []
        self._parameters = parameters
        arrays = self._arrays(parameters)
        self._write(arrays)
        return self._derived, arrays

    def refresh(self) -> None:
        """Derive anew, in place, from the parameters of the last call."""
        if self._parameters is not None:
            self._write(self._arrays(self._parameters))

    def _write(self, arrays: list[Tensor]) -> None:
        # What inference mode makes could not be written to in training.
        with torch.inference_mode(False), torch.no_grad():
            if not self._derived:
                self._derived = self._allocate(arrays)
            self._derive(arrays, self._derived)

    @abstractmethod
    def _arrays(self, parameters: list[Tensor]) -> list[Tensor]:
        """What gradients are computed for: parameters, or functions of them."""

    @abstractmethod
    def _allocate(self, arrays: list[Tensor]) -> list[Tensor]:
        """Memory for the derived tensors."""

    @abstractmethod
    def _derive(self, arrays: list[Tensor], derived: list[Tensor]) -> None:
        """Write the derived tensors."""


class ChainOperator(PackedOperator):
    """Inputs: parts of a batch, then weight and bias of each layer.

    A first one of at most 4 channels with a stride of 2 is computed as one of their four phases side by side with a
    stride of 1, for channels are read in vectors. Height and width are even then.
    """

    def __init__(self, piece: Piece, arithmetic: Arithmetic):
        super().__init__()
        self.parts, self.layers, self.arithmetic = piece.parts, piece.layers, arithmetic

    def __call__(self, inputs):
        parts, parameters = inputs[: self.parts], inputs[self.parts :]
        grad = differentiable(inputs)
        packed, weights = self.derived(parameters, grad)
        biases = parameters[1::2]
        specs = [ConvolutionSpec(layer.stride, layer.dilation, layer.slope, self.arithmetic) for layer in self.layers]
        if self._phased(parameters):
            x, specs[0] = phases(parts, self.arithmetic.dtype), specs[0]._replace(stride=1)
        else:
            x = torch.cat(parts) if len(parts) > 1 else parts[0]
        if grad:
            return Chain.apply(specs, packed, x, *weights, *biases)
        for spec, values, bias in zip(specs, packed, biases):
            x = convolve_map(spec, values, x, bias)
        return x

    def _phased(self, parameters) -> bool:
        first = self.layers[0]
        return (first.stride, first.dilation) == (2, 1) and 4 * parameters[0].shape[1] <= CHANNEL_UNIT

    def _arrays(self, parameters):
        first, *others = parameters[::2]
        return [phase_weight(first) if self._phased(parameters) else first, *others]

    def _allocate(self, arrays):
        shapes = [weight.shape[:2] for weight in arrays]
        return [new_packed(arrays[0], k, padded(c), self.arithmetic.dtype) for k, c in shapes]

    def _derive(self, arrays, derived):
        for weight, values in zip(arrays, derived):
            pack(weight, values[:, :, : weight.shape[1]])


class DeformableOperator(PackedOperator):
    """Inputs: x, offset, weight, bias, then mask and residual where the attributes say so."""

    def __init__(self, attrs, arithmetic: Arithmetic):
        super().__init__()
        self.attrs, self.arithmetic = attrs, arithmetic

    def __call__(self, inputs):
        x, offset, weight, bias, *rest = inputs
        mask = rest.pop(0) if self.attrs["masked"] else None
        residual = rest.pop(0) if self.attrs["residual"] else None
        if not differentiable(inputs):
            (weight,), _ = self.derived([weight], False)
        return deformable(x, offset, weight, bias, mask, residual, self.attrs["slope"], self.arithmetic.precision)

    def _arrays(self, parameters):
        return parameters

    def _allocate(self, arrays):
        return [pack_weight(arrays[0], self.arithmetic.dtype)]

    def _derive(self, arrays, derived):
        derived[0].copy_(pack_weight(arrays[0], self.arithmetic.dtype))


class DenseBlockOperator(PackedOperator):
    """Inputs: the parts, then weight and bias of each layer; outputs: the heads.

    The heads without activation, and the transposed convolutions written as convolutions to four
    times the channels, are computed together as one.
    """

    def __init__(self, piece: Piece, arithmetic: Arithmetic):
        super().__init__()
        self.piece, self.arithmetic = piece, arithmetic
        heads = range(len(piece.heads))
        self.widths = [head.channels * (4 if head.doubles else 1) for head in piece.heads]
        self.linear = [i for i in heads if piece.heads[i].doubles or piece.heads[i].slope is None]
        self.active = [i for i in heads if i not in self.linear]

    def _spec(self, parts) -> BlockSpec:
        heads = [Head(sum(self.widths[i] for i in self.linear), None, torch.float32)] if self.linear else []
        heads += [Head(self.widths[i], self.piece.heads[i].slope, self.arithmetic.dtype) for i in self.active]
        return BlockSpec(
            tuple(part.shape[1] for part in parts),
            tuple(layer.channels for layer in self.piece.layers),
            tuple(heads),
            self.piece.layers[0].slope,
            self.arithmetic,
        )

    def _arrays(self, parameters):
        """Weights and biases in turn, of the convolutions as they are and of the joined heads."""
        count = 2 * len(self.piece.layers)
        pairs = [
            as_convolution(*pair) if head.doubles else pair
            for head, pair in zip(self.piece.heads, zip(parameters[count::2], parameters[count + 1 :: 2]))
        ]
        arrays = list(parameters[:count])
        if self.linear:
            arrays += [torch.cat([pairs[i][k] for i in self.linear]) for k in (0, 1)]
        for i in self.active:
            arrays += pairs[i]
        return arrays

    def __call__(self, inputs):
        parts, parameters = inputs[: self.piece.parts], inputs[self.piece.parts :]
        self.spec = self._spec(parts)
        grad = differentiable(inputs)
        (packed, *biases), arrays = self.derived(parameters, grad)
        if grad:
            outputs = DenseBlock.apply(self.spec, packed, *parts, *arrays)
        else:
            outputs = run_block(self.spec, packed, parts, biases)[1]
        return self._heads(list(outputs))

    def _heads(self, outputs) -> tuple[Tensor, ...]:
        results = {}
        if self.linear:
            joined = outputs.pop(0).split([self.widths[i] for i in self.linear], dim=1)
            for i, result in zip(self.linear, joined):
                head = self.piece.heads[i]
                if head.doubles:
                    result = shuffled(result, self.arithmetic.dtype)  # noqa: PLW2901
                    if head.slope is not None:
                        result = F.leaky_relu(result, head.slope)  # noqa: PLW2901
                results[i] = result
        results.update(zip(self.active, outputs))
        return tuple(results[i] for i in range(len(results)))

    def _allocate(self, arrays):
        spec, like = self.spec, arrays[0]
        packed = new_packed(like, spec.rows, spec.columns, self.arithmetic.dtype)
        channels = (*spec.dense, *(head.channels for head in spec.heads))
        return [packed, *(like.new_empty(count) for count in channels)]

    def _derive(self, arrays, derived):
        packed, *biases = derived
        self.spec.pack(packed, arrays[::2])
        torch._foreach_copy_(biases, arrays[1::2])
