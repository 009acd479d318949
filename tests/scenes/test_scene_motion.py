"""reader/scene_motion.py: the label and its inverse, against the formula in float64."""

import numpy as np
import pytest
from maskflownet.scenes.motion import ACCURACY, MAX_STRETCH, Box, Motion

BOX = Box(-7, 5, 250, 190)


def strong_motion(seed):
    """As much deformation as is allowed, wavelengths from 40 px."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, 3)
    wave = 2 * np.pi / rng.uniform(40, 300, (3, 1)) * np.stack([np.cos(angle), np.sin(angle)], 1)
    amplitude = rng.normal(0, 1, (3, 2))
    amplitude *= MAX_STRETCH / (np.hypot(*amplitude.T) * np.hypot(*wave.T)).sum()
    linear = np.eye(2) + rng.uniform(-0.15, 0.15, (2, 2))
    return Motion(linear, rng.uniform(-30, 30, 2), amplitude, wave, rng.uniform(0, 6, 3))


def grid(box):
    x, y = np.arange(box.x0, box.x1), np.arange(box.y0, box.y1)
    return np.stack(np.meshgrid(x, y), axis=-1).astype(np.float64)


def test_formula_by_hand():
    motion = Motion(
        np.array([[1.0, 0.5], [0.0, 2.0]]),
        np.array([10.0, 20.0]),
        np.array([[3.0, -1.0]]),
        np.array([[np.pi / 2, 0.0]]),
        np.zeros(1),
    )
    # x + y / 2 + 10 + 3 sin(pi / 2), 2 y + 20 - sin(pi / 2) at (1, 4)
    assert motion.forward(np.array([1.0, 4.0])) == pytest.approx([16.0, 27.0])


@pytest.mark.parametrize("seed", range(8))
def test_flow_is_the_formula(seed):
    motion = strong_motion(seed)
    flow = motion.flow(BOX)
    assert flow.dtype == np.float32
    assert np.abs(flow - (motion.forward(grid(BOX)) - grid(BOX))).max() < 1e-4


@pytest.mark.parametrize("seed", range(8))
def test_round_trip_is_below_the_stated_accuracy(seed):
    motion = strong_motion(seed)
    positions = motion.backward_map(BOX, np.eye(2, 3))  # of frame 1, for pixels of frame 2
    error = motion.forward(positions.astype(np.float64)) - grid(BOX)
    assert np.abs(error).max() < ACCURACY


def test_affine_map_follows_the_inverse():
    motion = strong_motion(0)
    then = np.array([[0.5, 0.1, 3.0], [-0.2, 0.8, -4.0]])
    expected = motion.backward_map(BOX, np.eye(2, 3)) @ then[:, :2].T + then[:, 2]
    assert np.abs(motion.backward_map(BOX, then) - expected).max() < 1e-3


@pytest.mark.parametrize("seed", range(8))
def test_moved_box_holds_every_moved_pixel(seed):
    motion = strong_motion(seed)
    moved = motion.forward(grid(BOX)).reshape(-1, 2)
    box = motion.moved_box(BOX)
    assert (moved.min(axis=0) >= [box.x0, box.y0]).all()
    assert (moved.max(axis=0) <= [box.x1 - 1, box.y1 - 1]).all()


def test_motion_without_deformation_is_affine():
    motion = Motion(np.eye(2) * 2, np.ones(2), np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    assert np.abs(motion.flow(BOX) - (grid(BOX) + 1)).max() == 0
    positions = motion.backward_map(BOX, np.eye(2, 3))
    assert np.abs(positions - (grid(BOX) - 1) / 2).max() < 1e-4


def test_a_folding_deformation_is_refused():
    motion = strong_motion(0)
    with pytest.raises(ValueError, match="too strong"):
        motion._replace(amplitude=motion.amplitude * 20).backward_map(Box(0, 0, 60, 40), np.eye(2, 3))
