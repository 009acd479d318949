"""Graphs as modules: initial weights, constants, sizes, and the augmentation against MXNet's."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet.engine.graphs import graph_of  # noqa: E402
from maskflownet.engine.torch.module import GraphModule  # noqa: E402
from maskflownet.network.architecture import SLOPE  # noqa: E402
from maskflownet.network.augmentation import ColourAugmentation, GeometryAugmentation  # noqa: E402
from maskflownet.network.compat import mx  # noqa: E402
from maskflownet.network.draws import draw_colour, draw_geometry  # noqa: E402
from maskflownet.network.maskflownet import MaskFlownet_S  # noqa: E402

from tests.network.augmentation_cases import KITTI  # noqa: E402

NETWORK = {"network": "MaskFlownet_S", "flow_multiplier": 1.0}


def test_initial_weights_have_mxnets_spread():
    module = GraphModule(graph_of("network", **NETWORK))
    module.initialise(3)
    net = MaskFlownet_S()
    net.initialize(mx.init.MSRAPrelu(slope=SLOPE))
    for name, parameter in net._collect_params_with_prefix().items():
        ours, theirs = module.get_parameter(name).detach().numpy(), parameter.data().asnumpy()
        if name.endswith("bias"):
            assert not ours.any()
            assert not theirs.any()
        else:
            # The standard deviation of n numbers is known to 1 / sqrt(2 n).
            assert ours.std() == pytest.approx(theirs.std(), rel=6 / np.sqrt(ours.size))
            assert abs(ours.mean()) < 5 * ours.std() / np.sqrt(ours.size)
    again = GraphModule(graph_of("network", **NETWORK))
    again.initialise(3)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters()))
    again.initialise(4)
    assert not torch.equal(again.get_parameter("conv1a.0.weight"), module.get_parameter("conv1a.0.weight"))


def test_a_wrong_number_of_inputs_is_refused():
    with pytest.raises(TypeError, match="3 inputs are needed, prediction, label, mask, not 1"):
        GraphModule(graph_of("metric"))(torch.zeros(1, 2, 3, 3))


def test_the_augmentation_is_mxnets():
    rng = np.random.default_rng(5)
    original, target = (96, 128), (64, 128)
    images = [rng.random((4, 3, *original)) for _ in range(2)]
    flow, mask = rng.normal(0, 5, (4, 2, *original)), rng.random((4, 1, *original)) < 0.5
    inputs = [*images, flow, mask, draw_geometry(rng, 4, original, target, KITTI)]
    moved = agree(GeometryAugmentation(target), graph_of("geometry", target=target), inputs)
    noise = [rng.standard_normal((4, 3, *target)) for _ in range(2)]
    inputs = [*moved[:2], *noise, draw_colour(rng, 4, KITTI)]
    agree(ColourAugmentation(), graph_of("colour"), inputs)


def agree(block, graph, inputs):
    inputs = [np.asarray(array, "f4") for array in inputs]
    expected = [out.asnumpy() for out in block(*map(mx.nd.array, inputs))]
    outputs = GraphModule(graph)(*map(torch.tensor, inputs))
    for got, want in zip(outputs, expected):
        # Positions are rounded differently by about 1e-5 px, which moves what is sampled.
        assert np.abs(got.numpy() - want).max() < 2e-4 * np.abs(want).max()
    return expected
