"""The graphs of `network/` as symbol JSON; the only file of the torch engine that imports MXNet.

A graph's text depends on its settings alone: Gluon's global counters do not enter its names.
"""

from __future__ import annotations

import json

from maskflownet.network.augmentation import ColourAugmentation, GeometryAugmentation
from maskflownet.network.compat import mx
from maskflownet.network.layers import Upsample, Warp
from maskflownet.network.losses import EndPointError, MultiscaleEPE
from maskflownet.network.maskflownet import MaskFlownet, MaskFlownet_S


def _network(network: str, flow_multiplier: float, pyramid: str | None = None):
    if network == "MaskFlownet_S":
        block = MaskFlownet_S(flow_multiplier, prefix="")
    else:
        block = MaskFlownet(flow_multiplier, pyramid, prefix="")

    def flows_and_mask(*images):
        flows, mask, *_ = block(*images)
        return [*flows, mask]

    return block, flows_and_mask, ("image_1", "image_2")


def _loss(weights, q: float | None):
    block = MultiscaleEPE(weights, q, prefix="")
    predictions = (f"prediction_{i}" for i in range(len(weights)))
    return block, block, ("label", "mask", *predictions)


def _metric(stride: int):
    block = EndPointError(stride, prefix="")
    return block, block, ("prediction", "label", "mask")


def _geometry(target):
    block = GeometryAugmentation(target, prefix="")
    return block, block, ("img1", "img2", "flow", "mask", "params")


def _colour():
    block = ColourAugmentation(prefix="")
    return block, block, ("img1", "img2", "noise1", "noise2", "params")


def _upsample(factor: int, channels: int):
    block = Upsample(factor, channels, prefix="")
    return block, block, ("x",)


def _warp(clamp: bool):
    block = Warp(clamp, prefix="")
    return block, block, ("x", "flow")


# kind -> settings -> block, the call that gives the outputs, names of the inputs
_KINDS = {
    "network": _network,
    "loss": _loss,
    "metric": _metric,
    "geometry": _geometry,
    "colour": _colour,
    "upsample": _upsample,
    "warp": _warp,
}


def trace(kind: str, **settings) -> str:
    """The graph that `maskflownet.engine.graphs.graph_of` describes, as JSON with one node per line.

    MXNet's ``sym.load_json`` reads it, too. The inputs come first, in the order of the call;
    parameters have their names in the `.params` file.
    """
    with mx.name.NameManager():  # counts from 0
        block, call, inputs = _KINDS[kind](**settings)
        outputs = call(*(mx.sym.var(name) for name in inputs))
    outputs = [outputs] if isinstance(outputs, mx.sym.Symbol) else list(outputs)
    # Gluon's own way to these names is private; save_parameters writes the same ones.
    structural = block._collect_params_with_prefix()
    names = {parameter.name: name for name, parameter in structural.items()}
    return _write(json.loads(mx.sym.Group(outputs).tojson()), inputs, names)


def _write(content, inputs, names) -> str:
    """Nodes renamed by `names` and reordered, so that `inputs` come first; one node per line."""
    nodes = content["nodes"]
    order = {name: position for position, name in enumerate(inputs)}
    # Sorting is stable: every other node stays behind those that it needs.
    kept = sorted(range(len(nodes)), key=lambda i: order.get(nodes[i]["name"], len(order)))
    position = {old: new for new, old in enumerate(kept)}

    def moved(references):
        return [[position[node], *rest] for node, *rest in references]

    lines, variables = [], []
    for new, old in enumerate(kept):
        node = nodes[old]
        attrs = node.get("attrs", {})
        if node["op"] == "null":
            variables.append(new)
            # The other hints, such as __lr_mult__, change nothing that is computed.
            attrs = {key: value for key, value in attrs.items() if key == "__shape__"}
        entry = {"op": node["op"], "name": names.get(node["name"], node["name"])}
        entry.update({"attrs": attrs} if attrs else {}, inputs=moved(node["inputs"]))
        lines.append(_compact(entry))
    rest = {"arg_nodes": variables, "heads": moved(content["heads"]), "attrs": content["attrs"]}
    tail = ",\n".join(f"{_compact(key)}:{_compact(value)}" for key, value in rest.items())
    return '{"nodes":[\n' + ",\n".join(lines) + "\n],\n" + tail + "}\n"


def _compact(value) -> str:
    return json.dumps(value, separators=(",", ":"))
