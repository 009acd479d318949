"""Multiply-accumulates of a network, counted while its graph is executed."""

from __future__ import annotations

import math

import torch
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.module import GraphModule
from maskflownet.engine.torch.operators import OPERATORS

SIDE = 64  # px, the smallest image; the arithmetic is proportional to the number of pixels


def multiply_accumulates(network: str, height: int, width: int) -> dict[str, float]:
    """Multiply-accumulates of one pair by operator kind; operators without products are left out.

    A deformable convolution counts its products with the weights, not its sampling.
    """
    counts: dict[str, float] = {}

    def counting(kind: str, products):
        def call(inputs, attrs):
            result = OPERATORS[kind](inputs, attrs)
            counts[kind] = counts.get(kind, 0) + products(inputs, result)
            return result

        return call

    def of_output(inputs, result):  # each output value: one product for each weight that it takes
        weight = next(x for x in inputs[1:] if x.dim() == 4 and x.shape[0] == result.shape[1])
        return result.numel() * math.prod(weight.shape[1:])

    def of_input(inputs, result):
        return inputs[0].numel() * math.prod(inputs[1].shape[1:])

    def of_matches(inputs, result):
        return result.numel() * inputs[0].shape[1]

    kinds = {
        "Convolution": of_output,
        "Deconvolution": of_input,
        "Correlation": of_matches,
        "_contrib_DeformableConvolution": lambda inputs, result: of_output([inputs[0], inputs[2]], result),
    }
    graph = graph_of("network", network=network, flow_multiplier=1.0, pyramid="paper")
    module = GraphModule(graph, {**OPERATORS, **{k: counting(k, p) for k, p in kinds.items()}})
    counts.clear()  # of what was folded
    images = [torch.rand(1, 3, SIDE, SIDE) for _ in range(2)]
    with torch.no_grad():
        module(*images)
    return {kind: count * height * width / SIDE**2 for kind, count in counts.items()}
