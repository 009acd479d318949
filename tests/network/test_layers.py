"""The operators, against values worked out by hand and against the golden file."""

import numpy as np
import pytest
from maskflownet.network.compat import mx
from maskflownet.network.layers import Correlation, DeformableConv, Upsample, Warp

nd = mx.nd


def deformable(weight, bias):
    block = DeformableConv(*weight.shape[:2])
    block.initialize()
    block.weight.set_data(nd.array(weight))
    block.bias.set_data(nd.array(bias))
    return block


def test_correlation_by_hand():
    a, b = (np.random.RandomState(seed).rand(1, 3, 4, 5).astype("f4") for seed in (0, 1))
    out = Correlation(1)(nd.array(a), nd.array(b)).asnumpy()
    assert out.shape == (1, 9, 4, 5)
    # dy = -1, dx = 1 is channel (dy + 1) * 3 + (dx + 1) = 2
    assert out[0, 2, 2, 3] == pytest.approx((a[0, :, 2, 3] * b[0, :, 1, 4]).mean(), rel=1e-5)
    assert out[0, 2, 0, 3] == 0  # above the picture
    assert out[0, 2, 2, 4] == 0  # right of the picture


def test_upsample_by_hand():
    out = Upsample(4, 1)(nd.array([[[[0.0, 8.0]]]])).asnumpy()
    assert out.shape == (1, 1, 4, 8)
    assert out[0, 0, 0].tolist() == [0, 2, 4, 6, 8, 8, 8, 8]  # aligned to the first, edge held
    assert (out[0, 0] == out[0, 0, :1]).all()


def test_warp_by_hand():
    x = nd.array(np.arange(12.0).reshape((1, 1, 3, 4)))
    flow = nd.zeros((1, 2, 3, 4))
    flow[:, 0] = 1  # y
    flow[:, 1] = 0.5  # x
    out = Warp()(x, flow).asnumpy()[0, 0]
    assert out[0, 0] == pytest.approx(4.5, abs=1e-5)
    assert out[0, 3] == pytest.approx(7 / 2, abs=1e-5)  # half of the weight lies outside
    assert out[2].tolist() == pytest.approx([0, 0, 0, 0], abs=1e-5)
    clamped = Warp(clamp=True)(x, flow).asnumpy()[0, 0]
    assert clamped[2].tolist() == pytest.approx([8.5, 9.5, 10.5, 11], abs=1e-5)


def test_deformable_convolution_holds_the_edge_and_zeroes_outside():
    weight = np.zeros((1, 1, 3, 3), "f4")
    weight[0, 0, 1, 1] = 1  # the centre tap alone: the output is the sample itself
    block = deformable(weight, np.array([0.25], "f4"))
    x = nd.array(np.array([1.0, 2.0, 3.0, 4.0]).reshape((1, 1, 1, 4)))
    offset = nd.zeros((1, 2, 1, 4))
    offset[0, 1, 0] = nd.array([-0.5, 0.5, 0.5, 0.5])
    out = block(x, offset).asnumpy()[0, 0, 0] - 0.25
    # below 0 it is zero at once; beyond size - 1 = 3 the edge value is held up to 4
    assert out.tolist() == pytest.approx([0, 2.5, 3.5, 4], abs=1e-5)


@pytest.mark.parametrize(
    ("block", "inputs", "entry"),
    [
        *((Upsample(factor, 3), ["upsample_in"], f"upsample{factor}_out") for factor in (2, 4, 8)),
        *((Correlation(md), ["correlation_a", "correlation_b"], f"correlation_md{md}") for md in (2, 4)),
        *((Warp(clamp), ["deform_x", "deform_flow_yx"], f"warp{'_clamped' * clamp}_out") for clamp in (False, True)),
        (None, ["deform_x", "deform_flow_yx"], "deform_out"),
    ],
)
def test_golden_operators(golden, block, inputs, entry):
    values = golden.arrays("operators")
    block = block or deformable(values["deform_weight"], values["deform_bias"])
    golden.check("operators", entry, block(*(nd.array(values[name]) for name in inputs)))
