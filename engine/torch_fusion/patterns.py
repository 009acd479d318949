"""Finding what single kernels compute: convolutions, correlations, warps, upsampling.

Pure data: each function gives fusions whose nodes have the attributes named in its docstring.
"""

from __future__ import annotations

from typing import Callable

from engine.torch_fusion.rewriting import Activated, Fusion, Uses
from engine.torch_graph.symbol import Graph, Node, Output

TAPS = 9  # of a 3x3 kernel: offsets of all of them, tiled from one, are one offset


def find_convolutions(graph: Graph) -> list[Fusion]:
    """3x3 convolutions padded by their dilation, with bias, and their LeakyReLU.

    Kind "convolution": x, weight, bias; stride, dilation, slope (None for none).
    """
    uses, fusions = Uses(graph), []
    for node in graph.nodes:
        found = _square_convolution(node)
        if found is None:
            continue
        stride, dilation = found
        layer = uses.with_activation(node)
        attrs = {"stride": stride, "dilation": dilation, "slope": layer.slope}
        fusions.append(_fusion("convolution", node, attrs, node.inputs, layer))
    return fusions


def _square_convolution(node: Node) -> tuple[int, int] | None:
    """Stride and dilation of a Convolution that the kernels can compute."""
    if node.op != "Convolution" or node.attrs.get("no_bias"):
        return None
    attrs = node.attrs
    stride, dilation = (tuple(attrs.get(name, (1, 1))) for name in ("stride", "dilate"))
    kernel, pad = tuple(attrs["kernel"]), tuple(attrs.get("pad", (0, 0)))
    square = stride[0] == stride[1] and dilation[0] == dilation[1]
    if not square or kernel != (3, 3) or pad != dilation or attrs.get("num_group", 1) != 1:
        return None
    return stride[0], dilation[0]


def find_correlations(graph: Graph) -> list[Fusion]:
    """Correlations and their LeakyReLU. Kind "correlation": a, b; radius, slope."""
    uses, fusions = Uses(graph), []
    for node in graph.nodes:
        if node.op == "Correlation":
            radius = node.attrs["max_displacement"]
            plain = {"kernel_size": 1, "stride1": 1, "stride2": 1, "pad_size": radius}
            if all(node.attrs.get(name, 1) == value for name, value in plain.items()):
                layer = uses.with_activation(node)
                attrs = {"radius": radius, "slope": layer.slope}
                fusions.append(_fusion("correlation", node, attrs, node.inputs, layer))
    return fusions


def find_deformables(graph: Graph) -> list[Fusion]:
    """``leaky(deformable(x, tile(offset)) * mask + residual)``, of which the ends may be missing.

    Kind "deformable": x, offset, weight, bias, then mask and residual; masked, residual (whether
    these are there), slope.
    """
    uses, fusions = Uses(graph), []
    for node in graph.nodes:
        if node.op != "_contrib_DeformableConvolution" or len(node.inputs) != 4:
            continue
        x, offsets, *parameters = node.inputs
        tiled = uses.producer(offsets, "tile")
        if tiled is None or tuple(tiled.attrs["reps"]) != (1, TAPS, 1, 1):
            continue
        if uses.only_consumer(offsets, node.op) is None or not _plain_deformable(node):
            continue
        inputs, replaced, end = [x, tiled.inputs[0], *parameters], {tiled.name, node.name}, node
        attrs = {}
        for key, op in (("masked", "broadcast_mul"), ("residual", "elemwise_add")):
            user = uses.only_consumer((end.name, 0), op)
            attrs[key] = user is not None and user.inputs[0] == (end.name, 0)
            if attrs[key]:
                inputs.append(user.inputs[1])
                replaced.add(user.name)
                end = user
        layer = uses.with_activation(end)
        attrs["slope"] = layer.slope
        fusion = _fusion("deformable", node, attrs, inputs, layer)
        fusions.append(Fusion(fusion.node, fusion.replaced | replaced, fusion.outputs))
    return fusions


def _plain_deformable(node: Node) -> bool:
    wanted = {
        "kernel": (3, 3), "pad": (1, 1), "stride": (1, 1), "dilate": (1, 1),
        "num_group": 1, "num_deformable_group": 1, "no_bias": False,
    }  # fmt: skip
    return all(node.attrs.get(name, value) == value for name, value in wanted.items())


def find_upsamplings(graph: Graph, triangular: Callable[[Output, int], bool]) -> list[Fusion]:
    """Linear upsampling by a factor. Kind "upsampling": x; factor.

    Parameters
    ----------
    triangular : callable
        Whether an output is the constant kernel of linear upsampling by a factor.
    """
    uses, fusions = Uses(graph), []
    for node in graph.nodes:
        if node.op != "Deconvolution" or len(node.inputs) != 2:
            continue
        attrs = node.attrs
        factor = attrs["stride"][0]
        shape = (attrs["kernel"], attrs["stride"], attrs.get("pad"), attrs.get("num_group"))
        wanted = ((2 * factor,) * 2, (factor,) * 2, (factor,) * 2, attrs["num_filter"])
        padded = uses.producer(node.inputs[0], "Pad")
        if shape != wanted or padded is None or not triangular(node.inputs[1], factor):
            continue
        edge = padded.attrs["mode"] == "edge"
        if edge and tuple(padded.attrs["pad_width"]) == (0, 0, 0, 0, 0, 1, 0, 1):
            replaced = {node.name}
            if uses.only_consumer((padded.name, 0), "Deconvolution") is node:
                replaced.add(padded.name)
            new = Node(node.name, "upsampling", {"factor": factor}, padded.inputs)
            fusions.append(Fusion(new, frozenset(replaced), ((node.name, 0),)))
    return fusions


def _fusion(op: str, node: Node, attrs, inputs, layer: Activated) -> Fusion:
    new = Node(node.name, op, attrs, tuple(inputs))
    return Fusion(new, frozenset({node.name, *layer.names}), (layer.output,))
