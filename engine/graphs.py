"""The graphs that an engine without MXNet executes, by kind and settings.

`network/graphs/` ships those of the shipped configs, so that MXNet is needed for other settings
only: ``python -m maskflownet.tools.export_graphs`` writes their files. Beside them SOURCES says from which
state of `network/` each was traced: a changed network is traced anew.
"""

from __future__ import annotations

import hashlib
import importlib
from functools import cache
from pathlib import Path

from maskflownet.engine.symbol import Graph, parse_graph
from maskflownet.errors import UserError
from maskflownet.network.architecture import LOSS_WEIGHTS, NETWORKS, PYRAMIDS
from maskflownet.settings.folders import PACKAGE

GRAPHS = PACKAGE / "network" / "graphs"
SOURCES = "SOURCES"
# What a graph does not depend on: how MXNet is imported.
NOT_TRACED = {"__init__.py", "compat.py", "cuda_libraries.py", "mx.py"}


def _network(network="MaskFlownet_S", flow_multiplier=1.0, pyramid="paper"):
    if network not in NETWORKS or pyramid not in PYRAMIDS:
        raise ValueError(f"no network {network!r} with the pyramid {pyramid!r}")
    settings = {"network": network, "flow_multiplier": float(flow_multiplier)}
    name = f"{network}-x{_number(flow_multiplier)}"
    if network == "MaskFlownet_S":  # it has one pyramid for both images
        return name, settings
    return f"{name}-{pyramid}", {**settings, "pyramid": pyramid}


def _loss(weights=LOSS_WEIGHTS, q=None):
    name = "-".join(["loss", *map(_number, weights)])
    settings = {"weights": tuple(map(float, weights)), "q": None if q is None else float(q)}
    return name if q is None else f"{name}-q{_number(q)}", settings


def _metric(stride=4):
    return f"metric-stride{stride}", {"stride": stride}


def _geometry(target):
    height, width = target
    return f"geometry-{height}x{width}", {"target": (height, width)}


def _colour():
    return "colour", {}


def _upsample(factor, channels):
    return f"upsample-x{factor}-channels{channels}", {"factor": factor, "channels": channels}


def _warp(clamp):
    return f"warp-{'clamped' if clamp else 'zeros'}", {"clamp": clamp}


def _number(value: float) -> str:
    """Shortest text that is this number and no other: 1 for 1.0, 0.25, 1e-05."""
    text = repr(float(value))
    return text[:-2] if text.endswith(".0") else text


# kind -> settings -> name of the file, the settings of engine.tracing.trace
_KINDS = {
    "network": _network,
    "loss": _loss,
    "metric": _metric,
    "geometry": _geometry,
    "colour": _colour,
    "upsample": _upsample,
    "warp": _warp,
}


def graph_path(kind: str, folder: Path = GRAPHS, **settings) -> Path:
    """The file of a graph; its name tells the settings."""
    name, _ = _KINDS[kind](**settings)
    return folder / f"{name}.json"


def graph_text(kind: str, **settings) -> str:
    """Trace a graph with MXNet.

    Raises
    ------
    UserError
        MXNet cannot be imported.
    """
    reason = _why_no_mxnet()
    if reason:
        raise UserError(f"graphs are traced with MXNet, which cannot be imported: {reason}")
    from maskflownet.engine.tracing import trace  # noqa: PLC0415 - it imports MXNet

    _, settings = _KINDS[kind](**settings)
    return trace(kind, **settings)


def _why_no_mxnet() -> Exception | None:
    try:
        importlib.import_module("maskflownet.network.compat")
    except (ImportError, OSError) as error:  # OSError: a library that it needs is missing
        return error
    return None


def graph_of(kind: str, **settings) -> Graph:
    """The graph of a network, a loss or what else runs on the device.

    It is read from `network/graphs/`, or else traced with MXNet.

    Parameters
    ----------
    kind : str
        Settings, inputs and outputs of the kinds (flows of networks and losses are (y, x)):

        * "network": network, flow_multiplier (1.0), pyramid ("paper"); image_1, image_2 (N, 3, H,
          W) -> flows of strides 64, 32, 16, 8, 4 (N, 2, H/s, W/s) px and the mask (N, 1, H/4, W/4)
        * "loss": weights, q (None); label (N, 2, H, W), mask (N, 1, H, W), prediction_0 to _4
          -> (N,)
        * "metric": stride (4); prediction, label, mask -> (N,) px
        * "geometry": target (H, W); img1, img2, flow, mask, params -> img1, img2, flow, mask, see
          `maskflownet.network.augmentation.GeometryAugmentation`
        * "colour": img1, img2, noise1, noise2, params -> img1, img2
        * "upsample": factor, channels; x (N, channels, H, W) -> (N, channels, f H, f W)
        * "warp": clamp; x (N, C, H, W), flow (N, 2, H, W) px -> (N, C, H, W)

    Raises
    ------
    UserError
        The graph of these settings is not in `network/graphs/`, or of another state of the
        networks, and MXNet cannot be imported.
    """
    path = graph_path(kind, **settings)
    if path.is_file() and sources_of(path.parent).get(path.name) == network_digest():
        return parse_graph(path.read_text(encoding="utf-8"), str(path))
    reason = _why_no_mxnet()
    if reason is None:
        return parse_graph(graph_text(kind, **settings))
    missing = "is of another state of network/" if path.is_file() else "does not exist"
    raise UserError(
        f"the graph {path} {missing}, and MXNet, which could trace it, cannot be imported "
        f"({reason}): where MXNet is installed, `python -m maskflownet.tools.export_graphs CONFIG "
        "DATASET_CONFIG` writes the files that these configs need, to be copied here"
    )


@cache
def network_digest() -> str:
    """Of the sources that graphs are traced from."""
    digest = hashlib.sha256()
    for path in sorted((PACKAGE / "network").glob("*.py")):
        if path.name not in NOT_TRACED:
            digest.update(path.read_text(encoding="utf-8").encode())
    return digest.hexdigest()[:16]


def sources_of(folder: Path) -> dict[str, str]:
    """By name of a graph's file, the digest of the sources that it was traced from."""
    path = folder / SOURCES
    if not path.is_file():
        return {}
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in lines}


def write_sources(folder: Path, names) -> None:
    """Note that these files were traced now."""
    known = {**sources_of(folder), **dict.fromkeys(names, network_digest())}
    lines = [f"{digest} {name}\n" for name, digest in sorted(known.items())]
    (folder / SOURCES).write_text("".join(lines), encoding="utf-8")
