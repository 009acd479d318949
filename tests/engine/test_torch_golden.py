"""The torch engine's graphs against the golden files; of predictions only the paper pyramid, see test_contract.py."""

# ruff: noqa: E402 - nothing of PyTorch is imported where the tests are skipped

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.module import GraphModule

from tests.golden_values import BOUND, relative_error

NETWORKS = ("MaskFlownet_S", "MaskFlownet")
HEAD = "MaskFlownet_S."


def module_of(golden, network, pyramid="released"):
    """The network with the golden parameters; the head of the full one frozen."""
    module = GraphModule(graph_of("network", network=network, pyramid=pyramid))
    arrays = golden.parameters(network)
    module.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not name.startswith(HEAD))
    return module


def tensor(array):
    return torch.tensor(np.asarray(array, "f4").copy())


@pytest.fixture(scope="module")
def images(golden):
    """(N, 3, H, W) twice, minus the mean of both images."""
    pairs = golden.pairs(64, 128, (10, 11))
    images = [tensor(image.transpose(0, 3, 1, 2)) / 255 for image in pairs]
    mean = torch.cat(images, 2).mean((2, 3), keepdim=True)
    return [image - mean for image in images]


def check(golden, file, entry, value):
    """Compare, under a name of its own in the table of golden errors."""
    error = relative_error(value.detach(), golden.arrays(file)[entry])
    golden.errors[f"torch, GraphModule: {file}/{entry}"] = error
    assert error < BOUND, f"{file}/{entry} is off by {error:.1e} of its largest value"


@torch.no_grad()
def test_golden_torch_paper_pyramid(golden, images):
    finest = module_of(golden, "MaskFlownet", "paper")(*images)[4]
    check(golden, "MaskFlownet", "prediction4_paper", finest)
    assert relative_error(finest, golden.arrays("MaskFlownet")["prediction4"]) > 10 * BOUND


@pytest.mark.parametrize("q", [None, 0.4])
@pytest.mark.parametrize("network", NETWORKS)
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
