"""Both networks against the golden files: names, outputs, gradients, four training steps."""

from tempfile import NamedTemporaryFile

import numpy as np
import pytest
from maskflownet.checkpoints.params import params_bytes
from maskflownet.network.compat import mx
from maskflownet.network.losses import EndPointError, MultiscaleEPE
from maskflownet.network.maskflownet import MaskFlownet, MaskFlownet_S, SecondStageImages

from tests.golden_values import BOUND, relative_error

nd = mx.nd
NETWORKS = ("MaskFlownet_S", "MaskFlownet")


def load(golden, network, pyramid="released"):
    """A network with the golden parameters, hybridized; the head of the full one frozen. Gluon itself loads them."""
    net = MaskFlownet_S() if network == "MaskFlownet_S" else MaskFlownet(pyramid=pyramid)
    with NamedTemporaryFile(suffix=".params") as file:
        file.write(params_bytes(golden.parameters(network), file.name))
        file.flush()
        net.load_parameters(file.name)
    if network == "MaskFlownet":
        net.MaskFlownet_S.collect_params().setattr("grad_req", "null")
    net.hybridize(static_alloc=True)
    return net


@pytest.fixture(scope="module")
def images(golden):
    return list(map(nd.array, golden.inputs()))


@pytest.mark.parametrize("network", NETWORKS)
def test_golden_predictions_and_mask(golden, images, network):
    flows, mask, *_ = load(golden, network)(*images)
    for i, flow in enumerate(flows):
        golden.check(network, f"prediction{i}", flow)
    golden.check(network, "mask", mask)


def test_golden_second_stage_image(golden, images):
    flows, _, second_stage = load(golden, "MaskFlownet_S")(*images)
    first, second = SecondStageImages()(*images, flows[-1], second_stage[-1])
    golden.check("MaskFlownet_S", "second_stage_image2", second)
    assert (first[:, :3] == images[0]).asnumpy().all()
    assert not first[:, 3].asnumpy().any()


def test_golden_paper_pyramid(golden, images):
    flows, _ = load(golden, "MaskFlownet", "paper")(*images)
    golden.check("MaskFlownet", "prediction4_paper", flows[-1])
    released = golden.arrays("MaskFlownet")["prediction4"]
    assert relative_error(flows[-1], released) > 10 * BOUND  # the two pyramids really differ


@pytest.mark.parametrize("q", [None, 0.4])
@pytest.mark.parametrize("network", NETWORKS)
def test_golden_loss_and_gradients(golden, images, network, q):
    values = golden.arrays(network)
    net = load(golden, network)
    label, mask = (nd.array(values[name].astype("f4")) for name in ("label_yx", "label_mask"))
    with mx.autograd.record():
        loss = MultiscaleEPE(q=q)(label, mask, *net(*images)[0])
    loss.backward()
    golden.check(network, f"loss_q{q}", loss)
    names = values["gradient_names"]
    structural = net._collect_params_with_prefix().items()
    gradients = {n: p.grad().asnumpy().astype("f8") for n, p in structural if p.grad_req != "null"}
    assert set(names.tolist()) == set(gradients)
    norms = [np.linalg.norm(gradients[name]) for name in names.tolist()]
    golden.check(network, f"gradient_norms_q{q}", norms)


@pytest.mark.parametrize("network", NETWORKS)
def test_golden_training_steps(golden, images, network):
    values = golden.arrays(network)
    net = load(golden, network)
    label = nd.array(values["train_flow_xy"].astype("f4")[:, ::-1])
    mask = nd.ones((2, 1, 64, 128))
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-4, "epsilon": 1e-8})
    loss, metric = MultiscaleEPE(), EndPointError(4)
    errors = []
    for _ in range(4):
        with mx.autograd.record():
            flows = net(*images)[0]
            value = loss(label, mask, *flows)
        value.backward()
        errors.append(metric(flows[-1], label, mask).mean().asscalar())
        trainer.step(2)
    golden.check(network, "train_epe", errors)


@pytest.mark.parametrize("network", [MaskFlownet_S, MaskFlownet])
def test_flow_multiplier_scales_the_unit(network):
    images = [nd.random.uniform(shape=(1, 3, 64, 64)) for _ in range(2)]
    nets = [network(flow_multiplier) for flow_multiplier in (1, 2)]
    for net in nets:
        net.initialize()
        for name, parameter in net._collect_params_with_prefix().items():
            weights = nd.zeros(parameter.shape)
            if name in {"pred_flow6.bias", "MaskFlownet_S.pred_flow6.bias"}:
                weights[:] = 0.1
            parameter.set_data(weights)
    once, twice = (net(*images)[0][0].asnumpy() for net in nets)
    assert once == pytest.approx(np.full_like(once, once.flat[0]))
    assert once.flat[0] == pytest.approx(2.0 if network is MaskFlownet_S else 4.0)
    assert twice == pytest.approx(2 * once)
