"""Fused networks: what is fused, and on a CPU the results of the same graphs node by node and of the golden files."""

import json
import warnings
from collections import Counter

import pytest
import torch
from maskflownet.engine.graphs import graph_of, graph_path
from maskflownet.engine.symbol import parse_graph
from maskflownet.engine.torch.fused import cpu, executor
from maskflownet.engine.torch.fused.cpu import CPUNetwork
from maskflownet.engine.torch.fused.plan import fused_graph
from maskflownet.engine.torch.module import GraphModule

from tests.golden_values import relative_error

NETWORKS = ({"network": "MaskFlownet_S"}, {"network": "MaskFlownet", "pyramid": "released"})
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda settings: settings["network"])
def networks(request):
    """A network node by node and fused, with the same random parameters, biases too."""
    graph = graph_of("network", **request.param)
    plain, fused = GraphModule(graph), CPUNetwork(graph)
    plain.initialise(0)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def images(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, 3, height, width, generator=generator) - 0.5 for _ in range(2)]


def difference(results, expected) -> float:
    """Largest difference relative to the largest value, over all outputs."""
    assert len(results) == len(expected)
    return max(relative_error(a.numpy(), b.numpy()) for a, b in zip(results, expected))


# At 64x64 level 6 is one pixel; at 128x192 the last tiles of levels 5 and 6 are parts.
@pytest.mark.parametrize(
    ("size", "tiles", "threads"), [((1, 64, 64), 256, 2), ((2, 128, 192), 13, 1), ((1, 128, 192), 7, 3)]
)
def test_agrees_with_the_graph_node_by_node(networks, torch_threads, monkeypatch, size, tiles, threads):
    plain, fused = networks
    # Strips so small that these images have many.
    monkeypatch.setattr(cpu, "TILES", tiles)
    monkeypatch.setattr(cpu, "LEAST", tiles // 4)
    monkeypatch.setattr(cpu, "STRIP", 36 * 64 * tiles)
    monkeypatch.setattr(cpu, "PIECE", 100)
    with torch.no_grad():
        expected = plain(*images(*size))
        torch_threads(threads)
        assert difference(fused(*images(*size)), expected) < 2e-5
    assert torch.get_num_threads() == threads
    with torch.inference_mode():
        assert difference(fused(*images(*size)), expected) < 2e-5


def test_results_of_a_pair_depend_on_nothing_before(networks):
    """Neither on the other images of the batch nor on what is left in memory."""
    _, fused = networks
    with torch.inference_mode():
        first = [result.clone() for result in fused(*images(1, 64, 128))]
        fused(*images(1, 128, 192, seed=1))
        again = fused(*images(1, 64, 128))
        assert all(torch.equal(a, b) for a, b in zip(first, again))
        both = [torch.cat(pair) for pair in zip(images(1, 64, 128, seed=2), images(1, 64, 128))]
        assert difference([result[1:] for result in fused(*both)], first) < 1e-5


def test_same_parameters_state_and_gradients(networks):
    plain, fused = networks
    assert list(fused.state_dict()) == list(plain.state_dict())
    names = [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in fused.named_parameters()] == names
    for network in networks:
        network.zero_grad()
        sum(flow.square().mean() for flow in network(*images(1, 64, 64))[:5]).backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), fused.named_parameters()):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or relative_error(b.grad.numpy(), a.grad.numpy()) < 1e-4, name


def test_changed_parameters_are_used():
    graph = graph_of("network", **NETWORKS[0])
    fused, plain = CPUNetwork(graph), GraphModule(graph)
    pair = images(1, 64, 64)

    def check():
        plain.load_state_dict(fused.state_dict())
        with torch.inference_mode():
            assert difference(fused(*pair)[:5], plain(*pair)[:5]) < 2e-5

    fused.initialise(0)
    check()
    fused.initialise(1)  # changed in place
    check()
    fused.load_state_dict({k: v * 1.1 for k, v in fused.state_dict().items()}, assign=True)
    check()
    for parameter in fused.parameters():
        parameter.data.mul_(0.9)  # not counted by PyTorch
    fused.parameters_changed()
    check()


def test_float64_is_computed_node_by_node(networks):
    plain, fused = networks
    pair = [image.double() for image in images(1, 64, 64)]
    try:
        with torch.no_grad():
            for a, b in zip(plain.double()(*pair), fused.double()(*pair)):
                assert b.dtype == torch.float64
                assert torch.equal(a, b)
    finally:
        plain.float(), fused.float()


@pytest.mark.parametrize("settings", NETWORKS)
def test_everything_that_computes_is_fused(settings):
    graph = graph_of("network", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(executor(graph, CPU, "float32"), CPUNetwork)
    before, after = (Counter(node.op for node in g.nodes) for g in (graph, fused_graph(graph)))
    assert not {"Convolution", "LeakyReLU", "Correlation", "_contrib_DeformableConvolution"} & set(after)
    assert after["Deconvolution"] == before["Pad"]  # the upsamplings; all others are heads of blocks


def also_return(name):
    return lambda index, content: content["heads"].append([index[name], 0, 0])


def dilate(index, content):
    attrs = content["nodes"][index["conv4_0_conv0_fwd"]]["attrs"]
    attrs["dilate"] = attrs["pad"] = "(2, 2)"


def rename(index, content):
    content["nodes"][index["conv3_2.0.bias"]]["name"] = "other.bias"


@pytest.mark.parametrize(
    "change", [*map(also_return, ("conv3_2_leakyrelu0_fwd", "concat18", "concat23")), dilate, rename]
)
def test_a_network_that_is_wired_otherwise_runs_node_by_node_and_says_so(change):
    content = json.loads(graph_path("network", **NETWORKS[0]).read_text(encoding="utf-8"))
    change({node["name"]: i for i, node in enumerate(content["nodes"])}, content)
    graph = parse_graph(json.dumps(content))
    plain = GraphModule(graph)
    plain.initialise(0)
    with pytest.warns(UserWarning, match="node by node, which takes longer"):
        network = executor(graph, CPU, "float32")
    network.load_state_dict(plain.state_dict())
    with torch.no_grad():
        for ours, theirs in zip(network(*images(1, 64, 64)), plain(*images(1, 64, 64))):
            assert torch.equal(ours, theirs)
