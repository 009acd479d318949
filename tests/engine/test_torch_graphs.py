"""The shipped graphs, the command that writes them, and life without MXNet."""

import re
import sys

import pytest
from maskflownet.engine.graphs import GRAPHS, graph_of, graph_path, graph_text, network_digest
from maskflownet.engine.symbol import parse_graph
from maskflownet.errors import UserError
from maskflownet.settings.cli import run
from maskflownet.tools.export_graphs import main, shipped_graphs

from tests.programs import python

NETWORK = {"network": "MaskFlownet_S", "flow_multiplier": 1.0}


def test_the_shipped_files_are_what_a_fresh_trace_of_the_shipped_configs_gives():
    graphs = {graph_path(kind, **settings).name: (kind, settings) for kind, settings in shipped_graphs()}
    assert {path.name for path in GRAPHS.glob("*.json")} == set(graphs)
    assert {"MaskFlownet-x1-released.json", "MaskFlownet_S-x1.json", "geometry-320x448.json"} <= set(graphs)
    assert "loss-0.005-0.01-0.02-0.08-0.32-q0.4.json" in graphs
    for name, (kind, settings) in graphs.items():
        renew = f"{name}: python -m maskflownet.tools.export_graphs renews the files"
        assert (GRAPHS / name).read_text(encoding="utf-8") == graph_text(kind, **settings), renew


def test_a_graph_of_another_network_is_traced_and_without_mxnet_refused(tmp_path, monkeypatch):
    path = tmp_path / "metric.json"
    path.write_text(f"no graph, {network_digest()}")
    monkeypatch.setattr("maskflownet.engine.graphs.graph_path", lambda kind, **settings: path)
    with pytest.raises(UserError, match="no graph of an MXNet symbol"):
        graph_of("metric")  # it is read, as it says that it is of this network
    path.write_text("0123456789abcdef")
    assert graph_of("metric").inputs == ("prediction", "label", "mask")
    monkeypatch.setitem(sys.modules, "maskflownet.network.compat", None)
    with pytest.raises(UserError, match="is of another state of network/"):
        graph_of("metric")


def test_an_engine_leaves_pytorch_all_its_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
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
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("network", NETWORK, {**NETWORK, "flow_multiplier": 0.25}),
        ("network", NETWORK, {**NETWORK, "network": "MaskFlownet"}),
        ("network", {"network": "MaskFlownet", "pyramid": "paper"}, {"network": "MaskFlownet", "pyramid": "released"}),
        ("loss", {"q": 0.4}, {"q": None}),
        ("loss", {"weights": (1, 2, 3, 4, 5)}, {"weights": (1, 2, 3, 4, 5.0000001)}),
        ("geometry", {"target": (64, 128)}, {"target": (128, 64)}),
    ],
)
def test_a_setting_is_in_the_graph_and_in_the_name(kind, one, other):
    assert graph_text(kind, **one) != graph_text(kind, **other)
    assert graph_path(kind, **one) != graph_path(kind, **other)


def test_the_command_writes_the_graphs_of_a_run(tmp_path, capsys):
    assert run(main, ["MaskFlownet_S_kitti", "kitti", "--folder", str(tmp_path / "new")]) == 0
    written = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    assert {"MaskFlownet_S-x1.json", "geometry-320x896.json"} < set(written)
    assert [name for name in written if name.startswith("loss")] == ["loss-0.005-0.01-0.02-0.08-0.32-q0.4.json"]
    assert all((GRAPHS / name).read_text() == text for name, text in written.items())
    assert "MaskFlownet_S-x1.json: 5" in capsys.readouterr().out


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
        (COMMAND, "MXNet cannot be imported"),
    ],
)
def test_without_mxnet_one_sentence_says_what_to_do(code, said):
    code = f"import sys\nsys.modules['mxnet'] = None\nfrom maskflownet.settings.cli import run\n{code}"
    done = python("-c", code)
    assert done.returncode == 2
    assert re.fullmatch(f"error: {said}.*\n", done.stderr)


NODE = '{"op": "null", "name": "x", "inputs": []}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((text, "is no graph of an MXNet symbol") for text in ("[]", "[" * 100000, b'{"nodes": "\xff"}')),
        (f'{{"nodes": [{NODE}, {NODE}], "heads": [[0, 0, 0]]}}', "cannot be used: two of its nodes are named x$"),
    ],
)
def test_what_is_no_graph_is_refused_in_one_sentence(text, said):
    with pytest.raises(UserError, match=f"^my.json {said}"):
        parse_graph(text, "my.json")
