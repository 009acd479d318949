"""Graphs as modules: golden losses and gradients, the paper pyramid, initial weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.mxnet import MXNetEngine
from maskflownet.engine.torch.module import GraphModule
from maskflownet.network.architecture import HEAD, INITIAL, LEVELS, SLOPE
from maskflownet.network.compat import mx
from maskflownet.settings.configs import NetworkConfig
from maskflownet.settings.schema import parse

BY = "torch, GraphModule: "
NETWORK, S = {"network": "MaskFlownet_S"}, {"class": "MaskFlownet_S"}


def module_of(golden, network, pyramid="released"):
    """The network with the golden parameters; the head of the full one frozen."""
    module = GraphModule(graph_of("network", network=network, pyramid=pyramid))
    module.load_state_dict({name: torch.tensor(array) for name, array in golden.parameters(network).items()})
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not name.startswith(HEAD))
    return module


def tensor(array):
    return torch.tensor(np.asarray(array, "f4").copy())


@pytest.fixture(scope="module")
def images(golden):
    return list(map(tensor, golden.inputs()))


@torch.no_grad()
def test_golden_torch_paper_pyramid(golden, images):
    golden.check("MaskFlownet", "prediction4_paper", module_of(golden, "MaskFlownet", "paper")(*images)[4], BY)


@pytest.mark.parametrize("q", [None, 0.4])
@pytest.mark.parametrize("network", ["MaskFlownet_S", "MaskFlownet"])
def test_golden_torch_loss_and_gradients(golden, images, network, q):
    values = golden.arrays(network)
    module = module_of(golden, network)
    label, mask = (tensor(values[name]) for name in ("label_yx", "label_mask"))
    (loss,) = GraphModule(graph_of("loss", q=q))(label, mask, *module(*images)[:5])
    loss.sum().backward()
    golden.check(network, f"loss_q{q}", loss.detach(), BY)
    gradients = {n: p.grad for n, p in module.named_parameters() if p.requires_grad}
    names = values["gradient_names"].tolist()
    assert set(names) == set(gradients)
    norms = torch.stack([gradients[name].double().norm() for name in names])
    golden.check(network, f"gradient_norms_q{q}", norms, BY)


@pytest.mark.parametrize("initial", INITIAL)
def test_both_engines_draw_new_parameters_alike(initial):
    optimizer = {"learning_rate": [[1, 1.0]]}
    config = parse(NetworkConfig, {"network": {**S, "initial": initial}, "optimizer": optimizer}, "test")
    module, again = (GraphModule(graph_of("network", **NETWORK)) for _ in range(2))
    module.initialise(3, initial)
    of_mxnet = MXNetEngine(config, [mx.cpu()])
    for name, parameter in of_mxnet.parameters().items():
        assert_same_spread(module.get_parameter(name).detach().numpy(), parameter)
    again.initialise(3, initial)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters()))
    again.initialise(4, initial)
    assert not torch.equal(again.get_parameter("conv1a.0.weight"), module.get_parameter("conv1a.0.weight"))
    if initial == "fan_avg":  # the authors'
        of_mxnet.network.initialize(mx.init.MSRAPrelu(slope=SLOPE), force_reinit=True)
        for name, parameter in of_mxnet.parameters().items():
            assert_same_spread(module.get_parameter(name).detach().numpy(), parameter)


def assert_same_spread(ours, theirs):
    """Of n normal numbers the standard deviation is known to 1 / sqrt(2 n)."""
    assert ours.std() == pytest.approx(theirs.std(), rel=6 / np.sqrt(ours.size))
    assert abs(ours.mean()) <= 5 * ours.std() / np.sqrt(ours.size)


@torch.no_grad()
def test_by_fan_in_features_keep_their_size_and_predictions_begin_near_zero():
    graph = graph_of("network", **NETWORK)
    levels = tuple((f"conv{level}c_leakyrelu0_fwd", 0) for level in LEVELS)
    images = 0.2 * torch.randn((2, 1, 3, 256, 256), generator=torch.Generator().manual_seed(0))
    features, flows = {}, {}
    for initial in INITIAL:
        module = GraphModule(graph)
        module.initialise(0, initial)
        features[initial] = [size(x) for x in GraphModule(replace(graph, outputs=levels), owner=module)(*images)]
        flows[initial] = size(module(*images)[4])
    assert min(features["fan_in"]) > 0.2 and features["fan_avg"][0] < 0.03
    assert flows["fan_in"] < 2 < flows["fan_avg"]  # px


def size(x):
    return x.square().mean().sqrt()
