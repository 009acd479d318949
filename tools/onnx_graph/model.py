"""The model that users run: from two RGB images to flow and mask at their size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from maskflownet.checkpoints.records import Record
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.symbol import Graph
from maskflownet.errors import UserError
from maskflownet.tools.onnx_graph.builder import BATCH, Builder, Value
from maskflownet.tools.onnx_graph.operators import OPERATORS

PRODUCER = "MaskFlownet"
DESCRIPTION = "Optical flow with a learnable occlusion mask: MaskFlownet (Zhao et al., CVPR 2020, arXiv 2003.10955)."
INPUT = (
    "(N, 3, H, W) float32, RGB in [0, 1] (8-bit values / 255). Images of another size are resized "
    "to H x W bilinearly with aligned corners; their flow is that of the model resized back, u "
    "times width / W and v times height / H."
)
OUTPUTS = {
    "flow": "(N, 2, H, W) float32, px, (u, v) = (right, down): the content of pixel (x, y) of img1 "
    "is found at (x + u, y + v) in img2.",
    "mask": "(N, 1, H, W) float32 in [0, 1]: 1 = the pixel of img1 is visible in img2, 0 = occluded.",
}


def build_model(
    record: Record,
    parameters: Mapping[str, np.ndarray],
    size: tuple[int, int],
    batch: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """A network with its parameters as an ONNX model, images in RGB in and flow in px out.

    Parameters
    ----------
    record : Record
        What network it is, and the order in which it takes the colours.
    parameters : mapping of str to array
        By structural name.
    size : (int, int)
        Height and width of images and flow, multiples of 64.
    batch : int, optional
        Pairs of each call; by default any number.
    metadata : mapping of str to str, optional
        What is noted in the model beside its own facts.

    Returns
    -------
    onnx.ModelProto
        img1, img2 (N, 3, H, W) -> flow (N, 2, H, W), mask (N, 1, H, W), see `INPUT` and `OUTPUTS`.

    Raises
    ------
    UserError
        The graph has an operator, or an attribute of one, that is not exported.
    """
    build = Builder()
    shape = (batch or BATCH, 3, *size)
    images = [build.input(name, shape, INPUT) for name in ("img1", "img2")]
    network = graph_of(
        "network", network=record.network, flow_multiplier=record.flow_multiplier, pyramid=record.pyramid
    )
    weights = {n: build.constant(a.astype(np.float32), n) for n, a in parameters.items()}
    inputs = _centred(build, images, record.colour)
    *_, flow, mask = add_graph(build, network, inputs, weights)
    outputs = {}
    for name, value, channels in (("flow", flow, 2), ("mask", mask, 1)):
        graph = graph_of("upsample", factor=4, channels=channels)
        (outputs[name],) = add_graph(build, graph, [value], scope=f"upsample_{name}/")
    outputs["flow"] = build("Gather", outputs["flow"], [1, 0], axis=1)  # (y, x) -> (u, v)
    for name, value in outputs.items():
        build.output(name, value, (shape[0], 2 if name == "flow" else 1, *size), OUTPUTS[name])
    model = build.model(record.network, DESCRIPTION, producer_name=PRODUCER, doc_string=DESCRIPTION)
    facts = {
        "network": record.network,
        "pyramid": record.pyramid,
        "flow_multiplier": str(record.flow_multiplier),
        "height": str(size[0]),
        "width": str(size[1]),
        "batch": str(batch or "any"),
        "img1, img2": INPUT,
        **OUTPUTS,
        **(metadata or {}),
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    return model


def add_graph(
    build: Builder, graph: Graph, inputs: list[Value], parameters: Mapping[str, Value] | None = None, scope: str = ""
) -> list[Value]:
    """Add the nodes of a graph; its outputs. `inputs` in the order of ``graph.inputs``."""
    values = {(name, 0): value for name, value in zip(graph.inputs, inputs)}
    values.update({(name, 0): value for name, value in (parameters or {}).items()})
    for node in graph.nodes:
        if node.op not in OPERATORS:
            raise UserError(f"the ONNX export lacks the operator {node.op} of the node {node.name}")
        unknown = sorted(set(node.attrs) - OPERATORS[node.op].attributes)
        if unknown:
            raise UserError(
                f"the ONNX export's operator {node.op} does not know the attribute {unknown[0]} of the node {node.name}"
            )
        build.scope = scope + node.name
        result = OPERATORS[node.op]([build, *(values[ref] for ref in node.inputs)], node.attrs)
        results = (result,) if isinstance(result, Value) else result
        values.update({(node.name, i): value for i, value in enumerate(results)})
    build.scope = scope.strip("/")
    return [values[ref] for ref in graph.outputs]


def _centred(build: Builder, images: list[Value], colour: str) -> list[Value]:
    """Images in the network's channel order, minus the mean of both."""
    build.scope = "centred"
    if colour == "BGR":
        images = [build("Gather", image, [2, 1, 0], axis=1) for image in images]
    # Axis after axis, as one long sum of float32 would be inexact.
    mean = build("Concat", *images, axis=2)
    for axis in (3, 2):
        mean = build("ReduceMean", mean, axes=[axis], keepdims=1)
    return [build("Sub", image, mean) for image in images]
