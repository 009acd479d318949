"""reader/scene_layers.py: layers by hand, whose label and occlusion are known to the pixel."""

import numpy as np
import pytest
from maskflownet.scenes.layers import Layer, compose
from maskflownet.scenes.motion import Motion

H, W = 60, 90


def shift(u, v):
    none = np.zeros((0, 2))
    return Motion(np.eye(2), np.array([u, v], np.float64), none, none, np.zeros(0))


def square(side, x, y, u, v, colour=(200, 30, 10), alpha=255, **kw):
    """Opaque `side` x `side` square with its first pixel at (x, y), in a transparent frame."""
    texture = np.zeros((side + 6, side + 6, 4), np.uint8)
    texture[..., :3] = colour
    texture[3:-3, 3:-3, 3] = alpha
    placement = np.array([[1.0, 0, x - 3], [0, 1.0, y - 3]])
    return Layer(texture, placement, shift(u, v), **kw)


def background(u=0, v=0):
    texture = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    return Layer(texture, np.eye(2, 3), shift(u, v))


def test_square_over_still_background():
    made = compose([background(), square(20, 30, 15, 10, -4)], H, W)
    label = np.zeros((H, W, 2), np.float32)
    label[15:35, 30:50] = (10, -4)
    assert np.array_equal(made.flow, label)
    hidden = np.zeros((H, W), bool)
    hidden[11:31, 40:60] = True  # where the square will be
    hidden[15:35, 30:50] = False  # except for what it shows of itself
    assert np.array_equal(made.occlusion[..., 0], hidden * np.uint8(255))
    assert (made.img1[15:35, 30:50] == (200, 30, 10)).all()
    assert (made.img2[11:31, 40:60] == (200, 30, 10)).all()
    assert np.array_equal(made.img1[40:], background().texture[40:])


def test_leaving_the_picture_is_occlusion():
    made = compose([background(5, -3)], H, W)
    hidden = np.zeros((H, W), bool)
    hidden[:, W - 5 :] = True
    hidden[:3] = True
    assert np.array_equal(made.occlusion[..., 0] == 255, hidden)


def test_what_is_behind_never_hides_what_is_before():
    layers = [background(), square(20, 10, 20, 20, 0, (0, 255, 0)), square(20, 45, 20, -5, 0)]
    made = compose(layers, H, W)
    assert not made.occlusion[20:40, 45:65].any()  # the nearest one stays visible
    covered = made.occlusion[20:40, 10:30, 0] == 255  # arrives at 30..50, the other one at 40..60
    assert covered[:, 10:].all()
    assert not covered[:, :10].any()


@pytest.mark.parametrize("alpha, owner", [(120, 0), (140, 7)])
def test_label_belongs_to_the_layer_that_is_at_least_half_opaque(alpha, owner):
    made = compose([background(), square(20, 30, 15, 7, 0, alpha=alpha)], H, W)
    assert made.flow[25, 40, 0] == owner
    assert made.occlusion[25, 60, 0] == 0
    assert made.occlusion[25, 52, 0] == (255 if owner else 0)


def test_objects_outside_the_picture_change_nothing():
    alone = compose([background(2, 1)], H, W)
    beside = compose([background(2, 1), square(20, 300, 15, 5, 5)], H, W)
    assert all(np.array_equal(a, b) for a, b in zip(alone, beside))


def test_blur_spreads_the_edge_and_keeps_its_place():
    sharp = compose([background(), square(20, 30, 15, 6, 0)], H, W)
    kernel = np.full((5, 5), 1 / 25, np.float32)
    blurred = compose([background(), square(20, 30, 15, 6, 0, blur=kernel)], H, W)
    core = (slice(17, 33), slice(27, 53))  # away from the corners, which blur rounds
    assert np.array_equal(sharp.flow[core], blurred.flow[core])
    assert (blurred.img1[19:31, 34:46] == (200, 30, 10)).all()
    assert not np.array_equal(sharp.img1[25, 29], blurred.img1[25, 29])


def test_curve_recolours_its_layer_only():
    curve = np.tile(255 - np.arange(256, dtype=np.uint8)[None, :, None], (1, 1, 3))
    made = compose([background(), square(20, 30, 15, 6, 0, curve=curve)], H, W)
    assert (made.img1[15:35, 30:50] == (55, 225, 245)).all()
    assert np.array_equal(made.img1[40:], background().texture[40:])
