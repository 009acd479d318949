"""The training loss, against the golden file and its own promises."""

import numpy as np
import pytest
from maskflownet.network.architecture import LOSS_WEIGHTS, STRIDES
from maskflownet.network.compat import mx
from maskflownet.network.losses import EndPointError, MultiscaleEPE

nd = mx.nd
PREDICTIONS = [f"prediction{level}" for level in range(5)]


@pytest.mark.parametrize(
    ("block", "names", "entry"),
    [
        *((MultiscaleEPE(q=q), ["label", "mask", *PREDICTIONS], f"multiscale_q{q}")
          for q in (None, 0.4)),
        (EndPointError(4), ["prediction4", "label", "mask"], "epe"),
    ],
)  # fmt: skip
def test_golden_losses(golden, block, names, entry):
    values = golden.arrays("losses")
    golden.check("losses", entry, block(*(nd.array(values[name]) for name in names)))


def constant_inputs(offset, size=64):
    """Predictions that miss a constant label by `offset` = (y, x) px everywhere."""
    label = nd.ones((2, 2, size, size))
    miss = nd.array(offset).reshape((1, 2, 1, 1))
    predictions = [nd.ones((2, 2, size // s, size // s)) + miss for s in STRIDES]
    return label, predictions


def test_a_constant_miss_is_the_loss():
    label, predictions = constant_inputs((3, 4))
    loss = MultiscaleEPE()(label, nd.ones((2, 1, 64, 64)), *predictions).asnumpy()
    assert loss == pytest.approx([5 * sum(LOSS_WEIGHTS)] * 2, rel=1e-5)
    robust = MultiscaleEPE(q=0.4)(label, nd.ones((2, 1, 64, 64)), *predictions).asnumpy()
    assert robust == pytest.approx([7**0.4 * sum(LOSS_WEIGHTS)] * 2, rel=1e-5)


def test_weights_are_per_scale():
    with pytest.raises(ValueError, match="5 weights"):
        MultiscaleEPE(weights=(1, 2))


@pytest.mark.parametrize("q", [None, 0.4])
def test_a_sample_without_a_valid_pixel_contributes_zero(q):
    label, predictions = constant_inputs((3, 4))
    mask = nd.ones((2, 1, 64, 64))
    mask[1] = 0
    loss = MultiscaleEPE(q=q)
    for prediction in predictions:
        prediction.attach_grad()
    with mx.autograd.record():
        values = loss(label, mask, *predictions)
    values.backward()
    assert values.asnumpy()[1] == 0
    assert values.asnumpy()[0] > 0
    for prediction in predictions:
        gradient = prediction.grad.asnumpy()
        assert np.isfinite(gradient).all()
        assert not gradient[1].any()
        assert gradient[0].any()
