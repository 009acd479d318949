"""Graphs as modules: golden losses and gradients, the paper pyramid, initial weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from maskflownet.checkpoints.checkpoint import Checkpoint, Record
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.load import load_into
from maskflownet.engine.mxnet import MXNetEngine
from maskflownet.engine.torch.engine import TorchEngine
from maskflownet.engine.torch.module import GraphModule
from maskflownet.network.architecture import HEAD, INITIAL, LEVELS, PYRAMID_CHANNELS, SLOPE, copies_of_head
from maskflownet.network.compat import mx
from maskflownet.settings.configs import NetworkConfig
from maskflownet.settings.schema import parse

NETWORKS = ("MaskFlownet_S", "MaskFlownet")
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
    golden.check("MaskFlownet", "prediction4_paper", module_of(golden, "MaskFlownet", "paper")(*images)[4])


@pytest.mark.parametrize("q", [None, 0.4])
@pytest.mark.parametrize("network", ["MaskFlownet_S", "MaskFlownet"])
def test_golden_torch_loss_and_gradients(golden, images, network, q):
    values = golden.arrays(network)
    module = module_of(golden, network)
    label, mask = (tensor(values[name]) for name in ("label_yx", "label_mask"))
    (loss,) = GraphModule(graph_of("loss", q=q))(label, mask, *module(*images)[:5])
    loss.sum().backward()
    golden.check(network, f"loss_q{q}", loss.detach())
    gradients = {n: p.grad for n, p in module.named_parameters() if p.requires_grad}
    names = values["gradient_names"].tolist()
    assert set(names) == set(gradients)
    norms = torch.stack([gradients[name].double().norm() for name in names])
    golden.check(network, f"gradient_norms_q{q}", norms)


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


@torch.no_grad()
def test_as_a_copy_of_a_head_without_what_it_lacks_the_second_stage_has_the_same_flows(images):
    head, full = (GraphModule(graph_of("network", network=n, pyramid="paper")) for n in NETWORKS)
    head.initialise(0, "fan_in")
    full.initialise(1, "head")
    for name, parameter in head.named_parameters():
        if "pred_mask" in name:
            parameter.fill_(20 if name.endswith("bias") else 0)  # all is visible
        elif name.startswith("upfeat5") or ("conv" in name and "f." in name):  # level 6 does not warp; the paper's mu
            parameter.zero_()
    outer = torch.ones(9, 9, dtype=torch.bool)  # the second stage's cost volume has a radius of 2
    outer[2:7, 2:7] = False
    for level in LEVELS:
        inputs = 81 + (PYRAMID_CHANNELS[level] + 18 if level < 6 else 0)
        after = f"upfeat{level - 1}.0" if level > 2 else "dc_conv1.0"
        for layer in (*(f"conv{level}_{i}.0" for i in range(5)), f"pred_flow{level}", after):
            weight = head.get_parameter(f"{layer}.weight")
            weight = weight if "upfeat" in layer else weight.transpose(0, 1)
            weight[len(weight) - inputs + outer.flatten().nonzero()[:, 0]] = 0
    alone = {name: parameter.numpy() for name, parameter in head.named_parameters()}
    shapes = {n: p.shape for n, p in full.named_parameters() if not n.startswith(HEAD)}
    copies = copies_of_head(alone, shapes)
    assert set(shapes) - set(copies) == {"deform6.bias"}  # is 0
    for name, values in {**copies, **{HEAD + name: values for name, values in alone.items()}}.items():
        full.get_parameter(name).copy_(torch.tensor(values))
    for ours, theirs in zip(full(*images)[:5], head(*images)[:5]):
        assert torch.allclose(ours, theirs, atol=1e-3 * size(theirs))


@torch.no_grad()
def test_what_a_new_second_stage_does_not_use_yet_is_a_copy_too():
    """Its pyramid, which the second cost volume alone sees, and level 6."""
    head, full = (GraphModule(graph_of("network", network=n, pyramid="paper")) for n in NETWORKS)
    head.initialise(0, "fan_in")
    alone = {name: parameter.numpy() for name, parameter in head.named_parameters()}
    copies = copies_of_head(alone, {n: p.shape for n, p in full.named_parameters() if not n.startswith(HEAD)})
    for level in PYRAMID_CHANNELS:
        for ours, theirs in zip("xyz", "abc"):
            expected = alone[f"conv{level}{theirs}.0.weight"]
            assert (copies[f"conv{level}{ours}.0.weight"][:, : expected.shape[1]] == expected).all()
    assert not copies["conv1x.0.weight"][:, 3].any()  # of the mask beside image 2
    middle = np.arange(81).reshape(9, 9)[2:7, 2:7].ravel()
    for layer, axis, before in (("conv6_0.0", 1, 0), ("conv6_4.0", 1, 416), ("upfeat5.0", 0, 448)):
        ours, theirs = (np.moveaxis(v[f"{layer}.weight"], axis, 0) for v in (copies, alone))
        assert (ours[: before + 25] == theirs[[*range(before), *(before + middle)]]).all()
        assert not ours[before + 25 :].any()  # second cost volume, flow of the head
    x = torch.randn((1, 196, 4, 5), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.conv2d(x, torch.tensor(copies["deform6.weight"]), padding=1), x)


def test_a_training_of_maskflownet_begins_with_copies_and_goes_on_with_its_own(golden):
    head, full = (
        Checkpoint(Path("x.params"), golden.parameters(n), Record(n, pyramid="paper", found=False)) for n in NETWORKS
    )
    for initial in INITIAL:
        network, optimizer = {"class": "MaskFlownet", "initial": initial}, {"learning_rate": [[1, 1.0]]}
        config = parse(NetworkConfig, {"network": network, "optimizer": optimizer}, "test")
        engine = TorchEngine(config, [torch.device("cpu")])
        load_into(engine, head, as_head=True)
        found = engine.parameters()
        assert (found[f"{HEAD}conv2b.0.weight"] == head.parameters["conv2b.0.weight"]).all()
        assert (found["conv2y.0.weight"] == head.parameters["conv2b.0.weight"]).all() == (initial == "head")
        load_into(engine, full, as_head=True)
        assert all((values == full.parameters[name]).all() for name, values in engine.parameters().items())
