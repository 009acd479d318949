"""Forward-backward consistency against cases worked out by hand."""

import warnings

import numpy as np
import pytest
from maskflownet.inference.confidence import consistency, look_up


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def constant(u, v, height=6, width=9):
    return np.full((height, width, 2), (u, v), np.float32)


def moving_square(height=40, width=60, size=10, top=12, left=20, motion=8):
    """Flows there and back of a square that moves right over a background at rest.

    Beside them where the background of image 1 is covered in image 2.
    """
    forward, backward = np.zeros((2, height, width, 2), np.float32)
    forward[top : top + size, left : left + size, 0] = motion
    backward[top : top + size, left + motion : left + motion + size, 0] = -motion
    covered = np.zeros((height, width), bool)
    covered[top : top + size, left + size : left + size + motion] = True
    return forward, backward, covered


def test_a_constant_flow_is_consistent_but_where_it_leaves_the_picture():
    found = consistency(constant(3, -2), constant(-3, 2))
    inside = np.zeros((6, 9), bool)
    inside[2:, :6] = True
    assert (found.consistent == inside).all()
    assert (found.error == np.where(inside, 0, np.inf)).all()
    assert (found.confidence == inside).all()
    for array in found:
        assert (array.shape, array.dtype) == ((6, 9), np.float32)
    assert found.confidence.dtype == np.float32


@pytest.mark.parametrize(
    ("u", "v", "pixel"), [(0.5, 0, (3, 8)), (-0.5, 0, (3, 0)), (0, 0.5, (5, 4)), (0, -0.5, (0, 4))]
)
def test_the_picture_ends_half_a_pixel_beyond_the_last_centres(u, v, pixel):
    assert consistency(constant(u, v), constant(-u, -v)).error.max() == 0
    u, v = 1.001 * u, 1.001 * v
    beyond = ~np.isfinite(consistency(constant(u, v), constant(-u, -v)).error)
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
    found = consistency(constant(*there, 50, 50), constant(*back, 50, 50))
    assert found.error[5, 5] == pytest.approx(error)
    assert found.tolerance[5, 5] ** 2 == pytest.approx(squared_tolerance)
    assert found.consistent[5, 5] == (error**2 < squared_tolerance)
    assert found.consistent[5, 5] == (found.confidence[5, 5] > 0.5)
    expected = squared_tolerance / (squared_tolerance + error**2)
    assert found.confidence[5, 5] == pytest.approx(expected)


def test_what_a_moving_square_covers_is_found_exactly():
    forward, backward, covered = moving_square()
    found = consistency(forward, backward)
    assert (found.consistent == ~covered).all()
    assert (found.error == np.where(covered, 8, 0)).all()
    assert (found.confidence[~covered] == 1).all()
    np.testing.assert_allclose(found.confidence[covered], 1.14 / 65.14, rtol=1e-6)
    # The other direction finds what the square uncovers.
    uncovered = np.zeros_like(covered)
    uncovered[12:22, 20:28] = True
    assert (consistency(backward, forward).consistent == ~uncovered).all()


def test_the_confidence_falls_as_the_error_grows():
    backward = np.zeros((1, 50, 2), np.float32)
    backward[0, :, 0] = -np.linspace(3, 4000, 50)
    confidence = consistency(np.full_like(backward, 0), backward).confidence[0]
    assert (np.diff(confidence) <= 0).all()
    field = constant(2, 0, 1, 50)
    field[0, :, 0] += np.linspace(0, 1.5, 50)
    same_length = consistency(constant(0, 0, 1, 50), field).confidence[0]
    assert (np.diff(same_length) < 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_what_is_no_number_has_no_confidence(value, where):
    flows = {"forward": constant(0, 0), "backward": constant(0, 0)}
    flows[where][2, 3] = value, 0
    found = consistency(**flows)
    assert found.confidence[2, 3] == 0
    assert not found.consistent[2, 3]
    assert found.confidence.sum() == 53
    assert np.isfinite(found.tolerance).all()


def test_a_picture_of_one_pixel():
    assert consistency(constant(0, 0, 1, 1), constant(0, 0, 1, 1)).confidence == [[1]]


@pytest.mark.parametrize("shape", [(6, 9), (6, 8, 2), (6, 9, 3)])
def test_arrays_that_are_no_flows_are_refused(shape):
    with pytest.raises(ValueError, match=r"two flows are \(H, W, 2\)"):
        consistency(constant(0, 0), np.zeros(shape, np.float32))
