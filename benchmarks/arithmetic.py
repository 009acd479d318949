"""Multiply-accumulates of a network, counted in its traced graph."""

from __future__ import annotations

import json
from ast import literal_eval

from network.mx import mx


def multiply_accumulates(network, height: int, width: int) -> dict[str, int]:
    """Multiply-accumulates of one pair by operator kind; operators without products are left out.

    A deformable convolution counts its products with the weights, not its sampling.
    """
    outputs = network(mx.sym.var("image_1"), mx.sym.var("image_2"))
    graph = mx.sym.Group([*outputs[0], outputs[1]])
    internals = graph.get_internals()
    size = (1, 3, height, width)
    _, shapes, _ = internals.infer_shape(image_1=size, image_2=size)
    shape_of = dict(zip(internals.list_outputs(), shapes))
    nodes = json.loads(graph.tojson())["nodes"]
    counts: dict[str, int] = {}
    for node in nodes:
        kind, name = node["op"], node["name"]
        inputs = [nodes[i] for i, *_ in node["inputs"]]
        if kind in {"Convolution", "_contrib_DeformableConvolution", "Deconvolution"}:
            out_or_in = f"{name}_output"
            if kind == "Deconvolution":  # its products are those of each input pixel
                out_or_in = _output_name(inputs[0])
            pixels = shape_of[out_or_in][0] * shape_of[out_or_in][2] * shape_of[out_or_in][3]
            weight = shape_of[_output_name(inputs[2 if "Deformable" in kind else 1])]
            products = weight[0] * weight[1] * weight[2] * weight[3] * pixels
        elif kind == "Correlation":
            channels = shape_of[_output_name(inputs[0], node["inputs"][0][1])][1]
            n, displacements, h, w = shape_of[f"{name}_output"]
            products = n * displacements * h * w * channels
            assert literal_eval(node["attrs"]["kernel_size"]) == 1
        else:
            continue
        counts[kind] = counts.get(kind, 0) + products
    return counts


def _output_name(node, index: int = 0) -> str:
    if node["op"] == "null":
        return node["name"]
    return f"{node['name']}_output{index if node['op'] == 'SliceChannel' else ''}"
