"""The graphs that an engine without MXNet executes, by kind and settings.

`network/graphs/` ships those of the shipped configs, so that MXNet is needed for other settings
only: ``python -m maskflownet.tools.export_graphs`` writes their files. Each ends with the digest of the sources in
`network/` that it was traced from: a changed network is traced anew.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from maskflownet.engine.symbol import Graph, parse_graph
from maskflownet.errors import UserError
from maskflownet.network import import_mxnet
from maskflownet.network.architecture import LOSS_WEIGHTS, STRIDES
from maskflownet.settings.folders import PACKAGE

GRAPHS = PACKAGE / "network" / "graphs"
NOT_TRACED = {"__init__.py", "draws.py", "compat.py"}  # how MXNet is imported changes no graph


# Each kind: settings -> name of the file, names of the inputs, function(MXNet's blocks) -> block.
def _network(network="MaskFlownet_S", flow_multiplier=1.0, pyramid="paper"):
    name, scale, inputs = f"{network}-x{_number(flow_multiplier)}", float(flow_multiplier), ("image_1", "image_2")
    if network == "MaskFlownet_S":  # it has one pyramid for both images
        return name, inputs, lambda blocks: blocks.MaskFlownet_S(scale, prefix="")
    return f"{name}-{pyramid}", inputs, lambda blocks: blocks.MaskFlownet(scale, pyramid, prefix="")


def _loss(weights=LOSS_WEIGHTS, q=None):
    name = "-".join(["loss", *map(_number, weights)]) + ("" if q is None else f"-q{_number(q)}")
    inputs = ("label", "mask", *(f"prediction_{i}" for i in range(len(weights))))
    numbers = tuple(map(float, weights)), None if q is None else float(q)
    return name, inputs, lambda blocks: blocks.MultiscaleEPE(*numbers, prefix="")


def _metric():
    inputs = ("prediction", "label", "mask")
    return "metric", inputs, lambda blocks: blocks.EndPointError(STRIDES[-1], prefix="")


def _geometry(target):
    height, width = target
    inputs = ("img1", "img2", "flow", "mask", "params")
    return f"geometry-{height}x{width}", inputs, lambda blocks: blocks.GeometryAugmentation((height, width), prefix="")


def _colour():
    inputs = ("img1", "img2", "noise1", "noise2", "params")
    return "colour", inputs, lambda blocks: blocks.ColourAugmentation(prefix="")


def _number(value: float) -> str:
    """Shortest text that is this number and no other: 1 for 1.0, 0.25, 1e-05."""
    text = repr(float(value))
    return text[:-2] if text.endswith(".0") else text


_KINDS = {"network": _network, "loss": _loss, "metric": _metric, "geometry": _geometry, "colour": _colour}


def graph_path(kind: str, folder: Path = GRAPHS, **settings) -> Path:
    """The file of a graph; its name tells the settings."""
    return folder / f"{_KINDS[kind](**settings)[0]}.json"


def graph_of(kind: str, **settings) -> Graph:
    """The graph of a network, a loss or what else runs on the device.

    It is read from `network/graphs/`, or else traced with MXNet. Settings, inputs and outputs of the kinds (flows of
    networks and losses are (y, x)):

    * "network": network, flow_multiplier (1.0), pyramid ("paper"); image_1, image_2 (N, 3, H, W) -> flows of strides
      64, 32, 16, 8, 4 (N, 2, H/s, W/s) px and the mask (N, 1, H/4, W/4)
    * "loss": weights, q (None); label (N, 2, H, W), mask (N, 1, H, W), prediction_0 to _4 -> (N,)
    * "metric": the finest prediction, label, mask -> (N,) px
    * "geometry": target (H, W); img1, img2, flow, mask, params -> img1, img2, flow, mask, see
      `maskflownet.network.augmentation.GeometryAugmentation`
    * "colour": img1, img2, noise1, noise2, params -> img1, img2

    UserError: There is no such file, or it is of another state of the networks, and MXNet cannot be imported.
    """
    path = graph_path(kind, **settings)
    shipped = path.read_bytes() if path.is_file() else b""
    if network_digest().encode() in shipped:
        return parse_graph(shipped, str(path))
    try:
        text = graph_text(kind, **settings)
    except UserError as reason:
        missing = "is of another state of network/" if shipped else "does not exist"
        raise UserError(f"the graph {path} {missing}, and {reason}") from reason
    return parse_graph(text)


def graph_text(kind: str, **settings) -> str:
    """Trace a graph with MXNet: symbol JSON that ``mx.sym.load_json`` reads, too.

    One node per line; the inputs come first, in the order of the call; parameters have their names in the
    `.params` file. The text depends on the settings alone. Raises UserError where MXNet cannot be imported.
    """
    command = "`python -m maskflownet.tools.export_graphs CONFIG DATASET_CONFIG`"
    mx = import_mxnet(f"copy here what {command} writes where it is installed")
    from maskflownet.network import augmentation, losses, maskflownet  # noqa: PLC0415 - need MXNet

    blocks = SimpleNamespace(**{k: v for m in (augmentation, losses, maskflownet) for k, v in vars(m).items()})
    _, inputs, make = _KINDS[kind](**settings)
    with mx.name.NameManager():  # counts from 0, whatever was traced before
        block = make(blocks)
        outputs = block(*(mx.sym.var(name) for name in inputs))
    if kind == "network":
        flows, mask, *_ = outputs
        outputs = [*flows, mask]
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
    attrs = {**content["attrs"], "source": ["str", network_digest()]}
    rest = {"arg_nodes": variables, "heads": moved(content["heads"]), "attrs": attrs}
    tail = ",\n".join(f"{_compact(key)}:{_compact(value)}" for key, value in rest.items())
    return '{"nodes":[\n' + ",\n".join(lines) + "\n],\n" + tail + "}\n"


def _compact(value) -> str:
    return json.dumps(value, separators=(",", ":"))


@cache
def network_digest() -> str:
    """Of the sources that graphs are traced from."""
    digest = hashlib.sha256()
    for path in sorted((PACKAGE / "network").glob("*.py")):
        if path.name not in NOT_TRACED:
            digest.update(path.read_text(encoding="utf-8").encode())
    return digest.hexdigest()[:16]
