"""Forward-backward consistency and the measures of a confidence, against cases worked out by hand."""

import math

import numpy as np
import pytest
from maskflownet.engine.contract import ConfidentPrediction
from maskflownet.inference.confidence import (
    average_precision,
    consistency,
    describe_confidence,
    look_up,
    measure_confidence,
    sparsification_error,
)
from maskflownet.inference.metrics import means, summarise

pytestmark = pytest.mark.filterwarnings("error")


def constant(u, v, height=6, width=9):
    return np.full((height, width, 2), (u, v), np.float32)


@pytest.mark.parametrize(
    ("u", "v", "pixel"), [(0.5, 0, (3, 8)), (-0.5, 0, (3, 0)), (0, 0.5, (5, 4)), (0, -0.5, (0, 4))]
)
def test_the_picture_ends_half_a_pixel_beyond_the_last_centres(u, v, pixel):
    assert (consistency(constant(u, v), constant(-u, -v)) == 1).all()
    u, v = 1.001 * u, 1.001 * v
    beyond = consistency(constant(u, v), constant(-u, -v)) == 0
    assert beyond[pixel]
    assert beyond.sum() == (6 if u else 9)


def test_the_lookup_is_bilinear():
    field = np.zeros((2, 2, 2), np.float32)
    field[..., 0] = [[0, 1], [2, 4]]
    field[..., 1] = -field[..., 0]
    flow = np.zeros((2, 2, 2), np.float32)
    flow[0, 0] = 0.25, 0.5  # the mean of 0.25 above and 2.5 below
    flow[1, 1] = -0.003, 0  # finer than 1/32 px
    flow[0, 1] = 0.25, 0.75  # in the outer half of the border's pixels
    flow[1, 0] = -0.6, 0
    values, inside = look_up(field, flow)
    np.testing.assert_allclose(values[..., 0], [[1.375, 3.25], [0, 3.994]], rtol=1e-6)
    assert (values[..., 1] == -values[..., 0]).all()
    assert inside.tolist() == [[True, True], [False, True]]


@pytest.mark.parametrize(
    ("there", "back", "error", "squared_tolerance"),
    [
        ((10, 0), (-9, 0), 1, 0.01 * (100 + 81) + 0.5),  # 1 < 2.31: consistent
        ((10, 0), (-8, 0), 2, 0.01 * (100 + 64) + 0.5),  # 4 > 2.14: not
        ((0, 0), (0.6, 0.3), np.sqrt(0.45), 0.01 * 0.45 + 0.5),
        ((0, 0), (0.6, 0.4), np.sqrt(0.52), 0.01 * 0.52 + 0.5),
        ((0, 30), (0, -27), 3, 0.01 * (900 + 729) + 0.5),
    ],
)
def test_the_rule_of_sundaram(there, back, error, squared_tolerance):
    found = consistency(constant(*there, 50, 50), constant(*back, 50, 50))[5, 5]
    assert found == pytest.approx(squared_tolerance / (squared_tolerance + error**2))
    assert (found > 0.5) == (error**2 < squared_tolerance)


def test_what_a_moving_square_covers_is_found_exactly():
    """It is 10 px wide and moves 8 px to the right over a background at rest."""
    forward, backward = np.zeros((2, 40, 60, 2), np.float32)
    forward[12:22, 20:30, 0] = 8
    backward[12:22, 28:38, 0] = -8
    covered = np.zeros((40, 60), bool)
    covered[12:22, 30:38] = True
    found = consistency(forward, backward)
    np.testing.assert_allclose(found, np.where(covered, 1.14 / 65.14, 1), rtol=1e-6)
    # The other direction finds what the square uncovers.
    uncovered = np.zeros_like(covered)
    uncovered[12:22, 20:28] = True
    assert ((consistency(backward, forward) < 0.5) == uncovered).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_what_is_no_number_has_no_confidence(value, where):
    flows = {"forward": constant(0, 0), "backward": constant(0, 0)}
    flows[where][2, 3] = value, 0
    found = consistency(**flows)
    assert found[2, 3] == 0 and found.sum() == 53


def test_average_precision_by_hand():
    score = np.array([0.1, 0.9, 0.8, 0.8])
    positive = np.array([False, True, True, False])
    # Above 0.9 precision 1 at recall 1/2; above 0.8, twice there, precision 2/3 at recall 1.
    assert average_precision(score, positive) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(positive.astype(float), positive) == 1
    # The wrong way round: 1/3 at recall 1/2, then 2/4 at recall 1.
    assert average_precision(np.array([4, 2, 1, 3]), positive) == pytest.approx(0.5 * 1 / 3 + 0.5 * 2 / 4)
    assert average_precision(np.full(4, 0.3), positive) == 0.5  # without knowledge: the share of the positives
    assert math.isnan(average_precision(np.zeros(4), np.zeros(4, bool)))


def test_sparsification_error_by_hand():
    error = np.array([[2, 0, 4]])
    # Means of the remaining 1, 2, 3 pixels; the oracle's are 0, 1, 2, relative to 2.
    assert sparsification_error(-error, error) == 0
    assert sparsification_error(error, error) == pytest.approx((4 + 2 + 0) / 3 / 2)
    assert sparsification_error(np.zeros((1, 3)), error) == pytest.approx((2 + 1 + 0) / 3 / 2)
    # 0 and 2 px are equally confident: 1, 1, 2.
    assert sparsification_error(np.array([[5, 5, 1]]), error) == pytest.approx((1 + 0 + 0) / 3 / 2)
    assert sparsification_error(np.ones(3), np.zeros(3)) == 0
    assert math.isnan(sparsification_error(np.ones(0), np.zeros(0)))


def row(*values, dtype=np.uint8):
    """(1, W, 1)."""
    return np.array(values, dtype).reshape(1, -1, 1)


@pytest.fixture
def case():
    """Four pixels in a row with errors 0, 1, 8 and 5 px, the last one without a label."""
    flow = np.zeros((1, 4, 2), np.float32)
    flow[0, :, 0] = 0, 1, 8, 5
    confidence, mask = row(1, 0.6, 0.1, 0, dtype="f4"), row(1, 0.2, 0.9, 0.5, dtype="f4")
    return ConfidentPrediction(flow, mask, None, confidence), np.zeros((1, 4, 2), "f4"), row(255, 255, 255, 0)


def test_the_measures_of_an_image(case):
    found = means(measure_confidence(*case, occlusion=row(0, 0, 255, 255)))
    assert found["consistent"] == pytest.approx(2 / 3)
    assert (found["epe_consistent"], found["epe_inconsistent"]) == (0.5, 8)
    assert found["ause_confidence"] == 0
    # In the mask's order the remaining means are 0, 4, 3 instead of 0, 0.5, 3.
    assert found["ause_mask"] == pytest.approx((0 + 3.5 + 0) / 3 / 3)
    assert found["occluded"] == pytest.approx(1 / 3)
    assert (found["ap_confidence"], found["ap_mask"]) == (1, 0.5)


def test_occlusion_is_what_it_is_known_from(case):
    assert means(measure_confidence(*case, noc=row(255, 255, 0, 0)))["ap_confidence"] == 1
    assert "occluded" not in measure_confidence(*case)
    none = measure_confidence(*case, occlusion=row(0, 0, 0, 0))
    assert none["occluded"] == (0, 3)
    assert none["ap_confidence"] == none["ap_mask"] == (0, 0)
    some = measure_confidence(*case, occlusion=row(0, 0, 255, 255))
    told = describe_confidence(summarise([{"epe": (9, 3), **measures} for measures in (some, none)]))
    assert "average precision for occlusion 1.000" in told and told.endswith("over 1 image with occluded pixels")
