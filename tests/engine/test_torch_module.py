"""Graphs as modules: golden losses and gradients, the paper pyramid, initial weights."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet.engine.graphs import graph_of  # noqa: E402
from maskflownet.engine.torch.module import GraphModule  # noqa: E402
from maskflownet.network.architecture import HEAD, SLOPE  # noqa: E402
from maskflownet.network.compat import mx  # noqa: E402
from maskflownet.network.maskflownet import MaskFlownet_S  # noqa: E402

from tests.golden_values import BOUND, relative_error  # noqa: E402


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
    """(N, 3, H, W) twice, minus the mean of both images."""
    images = [tensor(image.transpose(0, 3, 1, 2)) / 255 for image in golden.pairs(64, 128, (10, 11))]
    mean = torch.cat(images, 2).mean((2, 3), keepdim=True)
    return [image - mean for image in images]


def check(golden, file, entry, value):
    """Compare, under a name of its own in the table of golden errors."""
    error = relative_error(value.detach(), golden.arrays(file)[entry])
    golden.errors[f"torch, GraphModule: {file}/{entry}"] = error
    assert error < BOUND, f"{file}/{entry} is off by {error:.1e} of its largest value"


@torch.no_grad()
def test_golden_torch_paper_pyramid(golden, images):
    check(golden, "MaskFlownet", "prediction4_paper", module_of(golden, "MaskFlownet", "paper")(*images)[4])


@pytest.mark.parametrize("q", [None, 0.4])
@pytest.mark.parametrize("network", ["MaskFlownet_S", "MaskFlownet"])
def test_golden_torch_loss_and_gradients(golden, images, network, q):
    values = golden.arrays(network)
    module = module_of(golden, network)
    label, mask = (tensor(values[name]) for name in ("label_yx", "label_mask"))
    (loss,) = GraphModule(graph_of("loss", q=q))(label, mask, *module(*images)[:5])
    loss.sum().backward()
    check(golden, network, f"loss_q{q}", loss)
    gradients = {n: p.grad for n, p in module.named_parameters() if p.requires_grad}
    names = values["gradient_names"].tolist()
    assert set(names) == set(gradients)
    norms = torch.stack([gradients[name].double().norm() for name in names])
    check(golden, network, f"gradient_norms_q{q}", norms)


def test_initial_weights_have_mxnets_spread():
    net = MaskFlownet_S()
    net.initialize(mx.init.MSRAPrelu(slope=SLOPE))
    module, again = (GraphModule(graph_of("network", network="MaskFlownet_S")) for _ in range(2))
    module.initialise(3)
    for name, parameter in net._collect_params_with_prefix().items():
        ours, theirs = module.get_parameter(name).detach().numpy(), parameter.data().asnumpy()
        if name.endswith("bias"):
            assert not ours.any() and not theirs.any()
        else:
            # The standard deviation of n numbers is known to 1 / sqrt(2 n).
            assert ours.std() == pytest.approx(theirs.std(), rel=6 / np.sqrt(ours.size))
            assert abs(ours.mean()) < 5 * ours.std() / np.sqrt(ours.size)
    again.initialise(3)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters()))
    again.initialise(4)
    assert not torch.equal(again.get_parameter("conv1a.0.weight"), module.get_parameter("conv1a.0.weight"))
