"""The shipped graphs, the command that writes them, and life without MXNet."""

import importlib
import json
import re
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet.engine.graphs import (
    GRAPHS,
    graph_of,
    graph_path,
    graph_text,
    network_digest,
    sources_of,
    write_sources,
)
from maskflownet.engine.symbol import Node, parse_graph
from maskflownet.errors import UserError
from maskflownet.network.compat import mx
from maskflownet.settings.cli import run
from maskflownet.settings.configs import load_network_config
from maskflownet.settings.folders import ROOT
from maskflownet.tools.export_graphs import main, needed_graphs, shipped_graphs

NETWORK = {"network": "MaskFlownet_S", "flow_multiplier": 1.0}


def test_the_shipped_files_are_those_of_the_shipped_configs():
    names = {graph_path(kind, **settings).name for kind, settings in shipped_graphs()}
    assert {path.name for path in GRAPHS.glob("*.json")} == names
    assert {
        "MaskFlownet-x1-released.json",
        "MaskFlownet_S-x1.json",
        "loss-0.005-0.01-0.02-0.08-0.32-q0.4.json",
        "geometry-320x448.json",
    } <= names
    assert sum(path.stat().st_size for path in GRAPHS.glob("*.json")) < 500_000


@pytest.mark.parametrize("index", range(len({str(graph) for graph in shipped_graphs()})))
def test_a_shipped_file_is_what_a_fresh_trace_gives(index):
    kind, settings = sorted({str(graph): graph for graph in shipped_graphs()}.items())[index][1]
    text = graph_path(kind, **settings).read_text(encoding="utf-8")
    assert text == graph_text(kind, **settings), "python -m maskflownet.tools.export_graphs renews the files"


def test_the_shipped_files_are_of_the_present_network():
    names = {path.name for path in GRAPHS.glob("*.json")}
    renew = "python -m maskflownet.tools.export_graphs renews the files"
    assert sources_of(GRAPHS) == dict.fromkeys(names, network_digest()), renew


def test_a_graph_of_another_network_is_traced_and_without_mxnet_refused(tmp_path, monkeypatch):
    path = tmp_path / "metric-stride4.json"
    path.write_text("no graph")
    write_sources(tmp_path, [path.name])
    monkeypatch.setattr("maskflownet.engine.graphs.GRAPHS", tmp_path)
    monkeypatch.setattr("maskflownet.engine.graphs.graph_path", lambda kind, **settings: path)
    with pytest.raises(UserError, match="no graph of an MXNet symbol"):
        graph_of("metric")  # it is read, as it says that it is of this network
    (tmp_path / "SOURCES").write_text(f"0123456789abcdef {path.name}\n")
    assert graph_of("metric").inputs == ("prediction", "label", "mask")
    monkeypatch.setattr("maskflownet.engine.graphs._import_blocks", lambda: importlib.import_module("no_mxnet"))
    with pytest.raises(UserError, match="is of another state of network/"):
        graph_of("metric")


def test_an_engine_leaves_pytorch_all_its_threads():
    code = """
import torch
before = torch.get_num_threads()
from maskflownet.settings.configs import load_network_config
from maskflownet.engine.load import make_engine
make_engine(load_network_config("MaskFlownet_S"), engine="torch")
assert "mxnet" not in __import__("sys").modules
from maskflownet.engine import graphs
graphs.network_digest = lambda: "of another network"  # so that it is traced
make_engine(load_network_config("MaskFlownet_S"), engine="torch")
assert "mxnet" in __import__("sys").modules
assert before == torch.get_num_threads(), (before, torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_mxnet_reads_a_shipped_file():
    path = graph_path("network", network="MaskFlownet", pyramid="paper")
    symbol = mx.sym.load(str(path))
    arguments = set(symbol.list_arguments())
    assert arguments == {"image_1", "image_2", *graph_of("network", network="MaskFlownet").parameters}
    shapes = symbol.infer_shape(image_1=(1, 3, 64, 128), image_2=(1, 3, 64, 128))[1]
    assert shapes == [*((1, 2, 64 // s, 128 // s) for s in (64, 32, 16, 8, 4)), (1, 1, 16, 32)]


def test_inputs_are_in_the_order_of_the_call():
    predictions = tuple(f"prediction_{i}" for i in range(5))
    assert graph_of("loss").inputs == ("label", "mask", *predictions)
    assert graph_of("metric").inputs == ("prediction", "label", "mask")
    assert graph_of("geometry", target=(64, 64)).inputs == ("img1", "img2", "flow", "mask", "params")
    assert graph_of("warp", clamp=False).inputs == ("x", "flow")


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("network", NETWORK, {**NETWORK, "flow_multiplier": 0.25}),
        ("network", NETWORK, {**NETWORK, "network": "MaskFlownet"}),
        ("network", {"network": "MaskFlownet", "pyramid": "paper"}, {"network": "MaskFlownet", "pyramid": "released"}),
        ("loss", {"q": 0.4}, {"q": None}),
        ("loss", {"weights": (1, 2, 3, 4, 5)}, {"weights": (1, 2, 3, 4, 5.0000001)}),
        ("geometry", {"target": (64, 128)}, {"target": (128, 64)}),
        ("warp", {"clamp": True}, {"clamp": False}),
    ],
)
def test_a_setting_is_in_the_graph_and_in_the_name(kind, one, other):
    assert graph_text(kind, **one) != graph_text(kind, **other)
    assert graph_path(kind, **one) != graph_path(kind, **other)


def test_the_first_stage_is_the_same_for_both_pyramids():
    paths = {graph_path("network", **NETWORK, pyramid=name) for name in ("paper", "released")}
    assert len(paths) == 1
    with pytest.raises(ValueError, match="paperback"):
        graph_path("network", network="MaskFlownet", pyramid="paperback")


def test_the_command_writes_the_graphs_of_a_run(tmp_path, capsys):
    assert run(main, ["MaskFlownet_S_kitti", "kitti", "--folder", str(tmp_path / "new")]) == 0
    written = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    sources = written.pop("SOURCES").split()
    assert sorted(sources[1::2]) == sorted(written)
    assert {"MaskFlownet_S-x1.json", "geometry-320x896.json", "warp-zeros.json"} < set(written)
    assert [name for name in written if name.startswith("loss")] == ["loss-0.005-0.01-0.02-0.08-0.32-q0.4.json"]
    assert all((GRAPHS / name).read_text() == text for name, text in written.items())
    assert "MaskFlownet_S-x1.json: 5" in capsys.readouterr().out


def test_both_pyramids_of_a_full_network_are_exported():
    graphs = needed_graphs([load_network_config("MaskFlownet")], [])
    assert {s["pyramid"] for kind, s in graphs if kind == "network"} == {"paper", "released"}


UNSHIPPED = """
from maskflownet.engine.graphs import graph_of
sys.exit(run(lambda _: graph_of("network", network="MaskFlownet", flow_multiplier=3)))
"""
COMMAND = "from maskflownet.tools.export_graphs import main; sys.exit(run(main, []))"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            UNSHIPPED,
            r"the graph .*MaskFlownet-x3-paper\.json does not exist.*"
            r"python -m maskflownet\.tools\.export_graphs CONFIG DATASET_CONFIG",
        ),
        (COMMAND, "graphs are traced with MXNet, which cannot be imported"),
    ],
)
def test_without_mxnet_one_sentence_says_what_to_do(code, said):
    code = f"import sys\nsys.modules['mxnet'] = None\nfrom maskflownet.settings.cli import run\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(f"error: {said}.*\n", done.stderr)


def test_the_graph_as_data():
    graph = graph_of("upsample", factor=4, channels=2)
    assert graph.outputs == ((graph.nodes[-1].name, 0),)
    deconvolution = graph.nodes[-1]
    assert isinstance(deconvolution, Node)
    assert deconvolution.op == "Deconvolution"
    assert deconvolution.attrs["stride"] == (4, 4)
    assert deconvolution.attrs["no_bias"] is True
    known = set(graph.inputs)
    for node in graph.nodes:
        assert {name for name, _ in node.inputs} <= known
        known.add(node.name)


def test_attributes_for_the_optimiser_are_left_out():
    x = mx.sym.var("x", lr_mult=2.0)
    graph = parse_graph((x + mx.sym.var("w", shape=(3,), wd_mult=0.0)).tojson())
    assert graph.inputs == ("x",)
    assert graph.parameters == {"w": (3,)}
    with mx.AttrScope(ctx_group="one"):
        graph = parse_graph((x * 2.5).tojson())
    assert graph.nodes[0].attrs == {"scalar": 2.5}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"nodes": [{}]}', '{"nodes": 3, "heads": []}', b'{"nodes": "\xff"}', "[" * 100000]
)
def test_what_is_no_graph_is_refused_in_one_sentence(text):
    with pytest.raises(UserError, match="^my.json is no graph of an MXNet symbol"):
        parse_graph(text, "my.json")


def test_two_nodes_of_one_name_are_refused():
    node = {"op": "null", "name": "x", "inputs": []}
    with pytest.raises(UserError, match="^my.json cannot be used: two of its nodes are named x$"):
        parse_graph(json.dumps({"nodes": [node, node], "heads": [[0, 0, 0]]}), "my.json")
