"""reader/scene_gloss.py: surfaces that mirror what does not move with them."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from maskflownet.scenes.draw import draw_layers
from maskflownet.scenes.gloss import FOLLOW, MOST, Gloss, draw_gloss
from maskflownet.scenes.layers import Layer, compose
from maskflownet.scenes.motion import Box, Motion
from maskflownet.scenes.options import SceneOptions
from maskflownet.scenes.render import render_scene

from tests.plain_scenes import CLEAN, smooth_textures

H, W = 96, 128
FRAME = Box(0, 0, W, H)
GLOSSY = replace(CLEAN, gloss_share=1)
NONE = np.zeros((0, 2))


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    return smooth_textures(tmp_path_factory.mktemp("smooth"))


def mirrored(gloss, frame, box=FRAME):
    """(h, w) of the share of mirrored light on a white surface that mirrors black."""
    white = np.full((*box.size, 3), 255, np.uint8)
    made = gloss._replace(colour=np.zeros(3)).on(white, None, frame, box)
    return 1 - made[..., 0] / 255


def drawn(count=60, size=100.0, shift=(20.0, -12.0)):
    centre = np.array([W / 2, H / 2])
    return [draw_gloss(np.random.default_rng(seed), centre, size, np.array(shift)) for seed in range(count)]


def test_what_is_mirrored_moves_along_with_the_surface_by_a_part():
    parts, aside = [], []
    for gloss in drawn():
        first, second = gloss.placements
        assert (first[:, :2] == second[:, :2]).all()
        moved = np.linalg.solve(first[:, :2], first[:, 2] - second[:, 2])
        parts.append(moved @ (20, -12) / (20**2 + 12**2))
        aside.append(moved @ (12, 20))
    assert np.abs(aside).max() < 1e-6
    assert FOLLOW[0] <= min(parts) < FOLLOW[0] + 0.1
    assert FOLLOW[1] - 0.1 < max(parts) <= FOLLOW[1]


def test_it_is_the_same_picture_in_both_frames():
    gloss = drawn(1)[0]
    there = np.linalg.solve(gloss.placements[0][:, :2], gloss.placements[0][:, 2] - gloss.placements[1][:, 2])
    move = np.column_stack([np.eye(2), there])
    moved = cv2.warpAffine(mirrored(gloss, 0), move, (W, H))
    inner = np.s_[25:-25, 25:-25]
    assert np.abs(moved - mirrored(gloss, 1))[inner].max() < 0.04
    assert np.ptp(moved[inner]) > 0.2


def test_a_part_of_the_surface_is_what_the_whole_has_there():
    gloss, box = drawn(3)[2], Box(30, 20, 90, 70)
    for frame in (0, 1):
        whole = mirrored(gloss, frame)[box.slices]
        assert np.abs(mirrored(gloss, frame, box) - whole).max() <= 1.01 / 255


def test_surfaces_mirror_some_and_never_all():
    shares = np.array([mirrored(gloss, 0) for gloss in drawn()])
    assert shares.max() <= MOST + 0.01
    assert 0.1 < (shares == 0).mean() < 0.8  # clear in parts
    assert 0.05 < shares.mean() < 0.4
    assert np.mean([np.ptp(share) > 0.2 for share in shares]) > 0.7
    bright = [gloss.colour.min() > 130 for gloss in drawn()]
    assert 0.6 < np.mean(bright) < 0.97


def test_nothing_is_mirrored_where_there_is_no_surface():
    alpha = np.tile(np.arange(W, dtype=np.uint8) * 2, (H, 1))
    weighted = cv2.merge([alpha // 2] * 3)
    for gloss in drawn(10):
        made = gloss.on(weighted, alpha, 0, FRAME)
        assert (made <= alpha[..., None].astype(int) + 1).all()
    full = Gloss(np.ones((4, 4), np.float32), (np.eye(2, 3),) * 2, 0, 0.5, np.full(3, 200.0))
    made = full.on(weighted, alpha, 0, FRAME)  # half of itself, half of what it mirrors
    expected = 0.5 * weighted + 0.5 * 200 * alpha[..., None] / 255
    assert np.abs(made - expected).max() <= 1


def test_a_layer_shows_it_in_each_frame():
    texture = np.zeros((46, 46, 4), np.uint8)
    texture[3:-3, 3:-3] = (100, 100, 100, 255)
    still = Motion(np.eye(2), np.zeros(2), NONE, NONE, np.zeros(0))
    gloss = drawn(6)[5]
    placed = np.array([[1.0, 0, 40], [0, 1.0, 20]])
    ground = Layer(np.full((H, W, 3), 50, np.uint8), np.eye(2, 3), still)
    made = compose([ground, Layer(texture, placed, still, gloss=gloss)], H, W)
    inside = np.s_[25:61, 45:81]
    for frame, image in enumerate((made.img1, made.img2)):
        expected = gloss.on(np.full((H, W, 3), 100, np.uint8), None, frame, FRAME)
        assert np.abs(image[inside].astype(int) - expected[inside]).max() <= 1
        assert (image[:15] == 50).all()
    assert np.abs(made.img1[inside].astype(int) - made.img2[inside]).max() > 20
    assert (made.flow == 0).all() and (made.occlusion == 0).all()


def test_labels_are_those_of_the_same_scene_without(smooth):
    changed = []
    for index in range(8):
        dull, glossy = (render_scene(smooth, 3, index, H, W, options) for options in (CLEAN, GLOSSY))
        assert (dull.flow == glossy.flow).all() and (dull.occlusion == glossy.occlusion).all()
        changed.append((np.abs(dull.img1.astype(int) - glossy.img1).max(axis=2) > 8).mean())
    assert 0.03 < np.mean(changed) < 0.3  # parts of the objects alone


def test_the_share_is_of_the_objects(smooth):
    def glossy(share):
        options = replace(CLEAN, gloss_share=share, min_objects=6)
        scenes = [draw_layers(smooth, np.random.default_rng(s), H, W, options) for s in range(40)]
        assert all(layers[0].gloss is None for layers in scenes)
        return np.mean([layer.gloss is not None for layers in scenes for layer in layers[1:]])

    assert SceneOptions().gloss_share == 0 == glossy(0)
    assert glossy(1) == 1
    assert glossy(0.3) == pytest.approx(0.3, abs=0.07)


def test_gloss_goes_by_the_surface_s_own_motion(smooth):
    options = replace(GLOSSY, dart_share=1, min_objects=3, deformation=0)
    parts = []
    for seed in range(10):
        for layer in draw_layers(smooth, np.random.default_rng(seed), H, W, options)[1:]:
            first, second = layer.gloss.placements
            moved = np.linalg.solve(first[:, :2], first[:, 2] - second[:, 2])
            h, w = layer.texture.shape[:2]
            centre = layer.placement @ [w / 2, h / 2, 1]
            shift = layer.motion.forward(centre) - centre
            parts.append(moved @ shift / (shift @ shift))
            np.testing.assert_allclose(moved, parts[-1] * shift, atol=1e-6)
    assert FOLLOW[0] <= min(parts) < 0
    assert 0.4 < max(parts) <= FOLLOW[1]
