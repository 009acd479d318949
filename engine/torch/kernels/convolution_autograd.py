"""Differentiable convolutions on channels-last memory: single ones, and dense blocks as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from maskflownet.engine.torch.kernels.convolution import as_map, convolve_into, new_map, padded, weight_gradients
from torch import Tensor


class Arithmetic(NamedTuple):
    """In which type maps are kept and multiplied."""

    dtype: torch.dtype  # float32 or bfloat16
    precision: str = "tf32"  # or "ieee": of float32 products

    @property
    def half(self) -> bool:
        return self.dtype != torch.float32


def pack(weight: Tensor, into: Tensor) -> None:
    """Copy (K, C, 3, 3) to a range (9, K, C) of packed weights."""
    into.unflatten(0, (3, 3)).copy_(weight.permute(2, 3, 0, 1))


class ConvolutionSpec(NamedTuple):
    stride: int
    dilation: int
    slope: float | None
    arithmetic: Arithmetic


def convolve_map(spec: ConvolutionSpec, packed: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """LeakyReLU of a 3x3 convolution with packed weights (9, K, C), as a new map."""
    n, _, h, w = x.shape
    size = -(-h // spec.stride), -(-w // spec.stride)
    y = new_map(n, packed.shape[1], *size, spec.arithmetic.dtype, x.device)
    return convolve_into(
        as_map(x), packed, y, bias, slope=spec.slope, stride=spec.stride, dilation=spec.dilation,
        precision=spec.arithmetic.precision,
    )  # fmt: skip


class Convolution(torch.autograd.Function):
    """`convolve_map` with gradients; `packed` holds what `weight` (K, C, 3, 3) says."""

    @staticmethod
    def forward(ctx, spec: ConvolutionSpec, packed, x, weight, bias):
        x = as_map(x)
        y = convolve_map(spec, packed, x, bias)
        ctx.spec = spec
        ctx.save_for_backward(packed, x, weight, y if spec.slope is not None else None)
        return y

    @staticmethod
    def backward(ctx, gradient):
        spec, (packed, x, weight, y) = ctx.spec, ctx.saved_tensors
        dtype, precision = spec.arithmetic
        gradient = behind_activation(gradient, y, spec.slope, dtype)
        dx = dw = db = None
        if ctx.needs_input_grad[2]:
            if spec.stride == 1:
                dx = new_map(*x.shape, dtype, x.device)
                convolve_into(
                    gradient, packed.transpose(1, 2), dx, dilation=spec.dilation, flip=True,
                    precision=precision,
                )  # fmt: skip
            else:
                dx = strided_input_gradient(gradient, x, weight, spec)
        if ctx.needs_input_grad[3]:
            dw, db = weight_gradients(x, gradient, spec.stride, spec.dilation)
        return None, None, dx, dw, db


def behind_activation(gradient, y, slope, dtype) -> Tensor:
    """The gradient before a LeakyReLU with output `y` (or none), as a map of type `dtype`."""
    if y is not None:
        gradient = torch.ops.aten.leaky_relu_backward(gradient.to(y.dtype), y, slope, True)
    return as_map(gradient, dtype)


def strided_input_gradient(gradient, x, weight, spec: ConvolutionSpec) -> Tensor:
    """Of a convolution with a stride, by the library."""
    last = {"memory_format": torch.channels_last}
    pair = [spec.dilation] * 2
    return torch.ops.aten.convolution_backward(
        gradient.contiguous(**last), x.to(gradient.dtype).contiguous(**last),
        weight.to(gradient.dtype).contiguous(**last), None,
        [spec.stride] * 2, pair, pair, False, [0, 0], 1, [True, False, False],
    )[0]  # fmt: skip


class Head(NamedTuple):
    """A convolution that reads the whole output of a dense block."""

    channels: int
    slope: float | None
    dtype: torch.dtype  # of its output


class BlockSpec(NamedTuple):
    """A dense block: every convolution reads all before it, and new features come first.

    One map holds them all: [last features, ..., first features, input], each convolution's input
    being a suffix. Another has the gradients before the activations: [heads, last, ..., first], so
    that what a part's gradient is computed from is a prefix. Packed weights have the rows of the
    second one and the columns of the first.
    """

    parts: tuple[int, ...]  # channels of what the input is concatenated from
    dense: tuple[int, ...]  # channels of the convolutions, first to last
    heads: tuple[Head, ...]
    slope: float
    arithmetic: Arithmetic

    @property
    def inputs(self) -> int:
        return sum(self.parts)

    @property
    def columns(self) -> int:
        return sum(self.dense) + padded(self.inputs)

    @property
    def rows(self) -> int:
        return self.head_rows[-1] + sum(self.dense)

    @property
    def head_rows(self) -> list[int]:
        """First row of each head, and the end of the last one."""
        return [0, *accumulate(padded(head.channels) for head in self.heads)]

    def column(self, i: int) -> int:
        """First column of the features of convolution i."""
        return sum(self.dense[i + 1 :])

    def suffix(self, i: int) -> int:
        """First column of what convolution i reads; `len(dense)` stands for the heads."""
        return sum(self.dense[i:])

    def row(self, i: int) -> int:
        return self.head_rows[-1] + self.column(i)

    def pack(self, packed: Tensor, weights: Sequence[Tensor]) -> None:
        """Fill (9, rows, columns), zero before, with the weights of the convolutions and heads."""
        count = len(self.dense)
        for i, weight in enumerate(weights[:count]):
            at = packed[:, self.row(i) : self.row(i) + self.dense[i]]
            pack(weight, at[:, :, self.suffix(i) : self.suffix(i) + weight.shape[1]])
        for row, head, weight in zip(self.head_rows, self.heads, weights[count:]):
            pack(weight, packed[:, row : row + head.channels, : weight.shape[1]])

    def unpack(self, weight: Tensor, bias: Tensor) -> list[Tensor]:
        """Weights and biases of the layers in turn, of (rows, columns, 3, 3) and (rows,)."""
        end, arrays = self.suffix(0) + self.inputs, []
        reads = [(self.row(i), c, self.suffix(i)) for i, c in enumerate(self.dense)]
        reads += [(row, head.channels, 0) for row, head in zip(self.head_rows, self.heads)]
        for row, channels, begin in reads:
            rows = slice(row, row + channels)
            arrays += [weight[rows, begin:end], bias[rows]]
        return arrays


def run_block(spec: BlockSpec, packed, parts, biases) -> tuple[Tensor, list[Tensor]]:
    """All features of a dense block (N, columns, H, W), and its heads' outputs."""
    n, _, h, w = parts[0].shape
    dtype, precision = spec.arithmetic
    features = new_map(n, spec.columns, h, w, dtype, parts[0].device)
    column = spec.suffix(0)
    for part in parts:
        features[:, column : column + part.shape[1]].copy_(part)
        column += part.shape[1]
    features[:, column:].zero_()
    for i, channels in enumerate(spec.dense):
        row, begin = spec.row(i), spec.suffix(i)
        convolve_into(
            features[:, begin:],
            packed[:, row : row + channels, begin:],
            features[:, spec.column(i) : begin],
            biases[i],
            slope=spec.slope,
            precision=precision,
        )
    outputs = []
    for row, head, bias in zip(spec.head_rows, spec.heads, biases[len(spec.dense) :]):
        y = new_map(n, head.channels, h, w, head.dtype, features.device)
        weight = packed[:, row : row + head.channels]
        convolve_into(features, weight, y, bias, slope=head.slope, precision=precision)
        outputs.append(y)
    return features, outputs


class DenseBlock(torch.autograd.Function):
    """`run_block` with gradients; returns the heads' outputs.

    Tensors: the parts of the input, the weights and biases of the dense convolutions in turn, then
    those of the heads.
    """

    @staticmethod
    def forward(ctx, spec: BlockSpec, packed, *tensors):
        count = len(spec.parts)
        features, outputs = run_block(spec, packed, tensors[:count], tensors[count + 1 :: 2])
        ctx.spec = spec
        kept = [y if head.slope is not None else None for y, head in zip(outputs, spec.heads)]
        ctx.save_for_backward(packed, features, *kept)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *gradients):
        spec, (packed, features, *outputs) = ctx.spec, ctx.saved_tensors
        dtype, precision = spec.arithmetic
        n, _, h, w = features.shape
        total = new_map(n, spec.rows, h, w, dtype, features.device)
        rows = spec.head_rows
        for row, end, head, gradient, y in zip(rows, rows[1:], spec.heads, gradients, outputs):
            before = gradient
            if y is not None:
                before = behind_activation(gradient, y, head.slope, dtype)
            total[:, row : row + head.channels].copy_(before)
            total[:, row + head.channels : end].zero_()
        for i in reversed(range(len(spec.dense))):
            row, column, channels = spec.row(i), spec.column(i), spec.dense[i]
            own = slice(column, column + channels)
            convolve_into(
                total[:, :row],
                packed[:, :row, own].transpose(1, 2),
                total[:, row : row + channels],
                gate=features[:, own],
                slope=spec.slope,
                flip=True,
                precision=precision,
            )
        begin = spec.suffix(0)
        dx = None
        if any(ctx.needs_input_grad[2 : 2 + len(spec.parts)]):
            dx = new_map(n, spec.inputs, h, w, dtype, features.device)
            weight = packed[:, :, begin : begin + spec.inputs].transpose(1, 2)
            convolve_into(total, weight, dx, flip=True, precision=precision)
            dx = dx.split(spec.parts, dim=1)
        results = list(dx or [None] * len(spec.parts))
        if any(ctx.needs_input_grad[2 + len(spec.parts) :]):
            results += spec.unpack(*weight_gradients(features, total))
        else:
            results += [None] * 2 * (len(spec.dense) + len(spec.heads))
        return (None, None, *results)
