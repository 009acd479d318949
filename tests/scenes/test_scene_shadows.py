"""reader/scene_shadows.py: sun and shadow, which change what is seen and not what is true."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from maskflownet.scenes.draw import draw_layers
from maskflownet.scenes.layers import Layer, compose
from maskflownet.scenes.motion import Motion
from maskflownet.scenes.options import SceneOptions
from maskflownet.scenes.render import render_scene
from maskflownet.scenes.shadows import MOVING_SHARE, RATIO, TINT, apply_light, draw_light

from tests.plain_scenes import CLEAN, smooth_textures

H, W = 96, 128
NONE = np.zeros((0, 2))
SHADOWS = replace(CLEAN, shadow_share=1)


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    return smooth_textures(tmp_path_factory.mktemp("smooth"))


def shift(u, v):
    return Motion(np.eye(2), np.array([u, v], np.float64), NONE, NONE, np.zeros(0))


def lights(count=60, size=(H, W), ground=(0, 0), speed=20.0):
    return [draw_light(np.random.default_rng(seed), *size, shift(*ground), speed) for seed in range(count)]


def test_most_areas_move_with_the_ground_and_some_by_themselves():
    same = np.array(
        [
            (np.abs(made.second[:-3, 5:] - made.first[3:, :-5]).max(axis=2) < 0.02).mean()
            for made in lights(ground=(5, -3))
        ]
    )
    assert same.min() > 0.4
    assert MOVING_SHARE * 0.5 < (same < 1).mean() < MOVING_SHARE * 1.5


def test_areas_that_move_by_themselves_go_as_far_as_told_in_all_directions():
    def changed(speed):
        return np.mean([(abs(m.second - m.first) > 0.02).mean() for m in lights(speed=speed)])

    assert changed(0) == 0 < 2 * changed(2) < changed(20)
    moved = [made for made in lights(200, speed=6) if (made.first != made.second).any()]
    for axis in (0, 1):
        shifts = [
            cv2.phaseCorrelate(*(frame[..., 1].astype(np.float64) for frame in made[:2]))[0][axis] for made in moved
        ]
        assert min(shifts) < -2 and max(shifts) > 2


def test_sun_and_shadow_differ_by_a_ratio_within_the_bounds_and_in_tint():
    ratios, tints, suns = [], [], []
    for made in lights():
        grey = made.first.mean(axis=2)
        sun, shadow = (made.first.reshape(-1, 3)[at] for at in (grey.argmax(), grey.argmin()))
        ratios.append(sun.mean() / shadow.mean())
        tints.append(np.ptp(np.log(sun / shadow)))
        suns.append((grey > (grey.max() + grey.min()) / 2).mean())
    assert 0.85 * RATIO[0] < min(ratios) and max(ratios) < 1.15 * RATIO[1]
    assert 2 < np.median(ratios) < 3.2
    assert TINT < np.mean(tints) < 4 * TINT
    assert np.mean(suns) == pytest.approx(0.5, abs=0.15)  # areas of sun as often as of shadow
    assert 0.2 < np.mean(np.array(suns) > 0.5) < 0.8


def test_edges_are_sharp_or_soft_and_areas_thin_or_wide():
    steep, fine = [], []
    for made in lights(size=(320, 448)):
        grey = made.first[..., 1]
        part = (grey - grey.min()) / (grey.max() - grey.min())
        steep.append(np.abs(np.diff(part, axis=1)).max())
        solid = (part > 0.5).astype(np.uint8)
        solid = solid if solid.mean() < 0.5 else 1 - solid
        wide = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((25, 25), np.uint8))
        fine.append(1 - wide.sum() / solid.sum())
    assert min(steep) < 0.15 and max(steep) > 0.4
    assert 0.15 < np.mean(np.array(fine) > 0.3) < 0.7  # poles, fences and dapples


def test_what_is_nearer_gets_the_light_of_elsewhere():
    made = lights(2)[1]
    m = made.margin
    for frame in (0, 1):
        here = made.on((0, 0))[frame]
        assert here.shape == (H, W, 3)
        assert (made.on((m, m))[frame][:-m, :-m] == here[m:, m:]).all()
        assert (made.on((-m, m))[frame][:-m, m:] == here[m:, :-m]).all()
        assert (made.on((m, -m))[frame][m:, :-m] == here[:-m, m:]).all()


def test_light_never_shines_out_of_what_is_transparent():
    alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = np.repeat(alpha[..., None] // 2, 3, axis=2)  # weighted with alpha
    bright = apply_light(colour, alpha, np.full((16, 16, 3), 4, np.float32))
    assert (bright == np.where(colour > 0, alpha[..., None], 0)).all()
    dark = apply_light(colour, alpha, np.full((16, 16, 3), 0.5, np.float32))
    assert (np.abs(dark.astype(int) - colour / 2) <= 0.5).all()
    assert (apply_light(colour, None, np.full((16, 16, 3), 4, np.float32))[15, 15] == 255).all()


def test_an_object_comes_out_of_the_shadow():
    texture = np.zeros((26, 26, 4), np.uint8)
    texture[3:-3, 3:-3] = (80, 60, 40, 255)
    sun = np.ones((2, H, W, 3), np.float32)
    sun[0, :, : W // 2] = 0.5
    sun[1, :, : W // 4] = 0.5  # the shadow's edge moves, too
    light = sun[0], sun[1]
    ground = Layer(np.full((H, W, 3), 100, np.uint8), np.eye(2, 3), shift(0, 0), light=light)
    placed = np.array([[1.0, 0, 27], [0, 1.0, 27]])
    made = compose([ground, Layer(texture, placed, shift(20, 0), light=light)], H, W)
    assert (made.img1[30:50, 30:50] == (40, 30, 20)).all()
    assert (made.img2[30:50, 50:70] == (80, 60, 40)).all()
    for image, edge in ((made.img1, W // 2), (made.img2, W // 4)):
        assert (image[:20, :edge] == 50).all() and (image[:20, edge:] == 100).all()
    assert (made.flow[30:50, 30:50] == (20, 0)).all()


def test_areas_that_move_by_themselves_are_as_fast_as_their_scene(smooth, monkeypatch):
    told = {}

    def noted(rng, height, width, ground, speed):
        told[scale].append(speed)
        return draw_light(rng, height, width, ground, speed)

    monkeypatch.setattr("maskflownet.scenes.draw.draw_light", noted)
    for scale in (1, 3):
        told[scale] = []
        options = replace(SHADOWS, motion_scale=scale)
        for seed in range(20):
            draw_layers(smooth, np.random.default_rng(seed), H, W, options)
    assert 1 < np.median(told[1]) < 20  # of 96x128 px
    assert told[3] == pytest.approx([3 * speed for speed in told[1]])


def test_every_layer_is_lit_and_the_shadows_rest_on_the_background(smooth):
    # A camera that moves fast before objects that do not, so that the motions differ.
    options = replace(SHADOWS, min_objects=4, camera_share=0, rotation=0, zoom=0, deformation=0)
    follow = moved = 0
    for seed in range(40):
        layers = draw_layers(smooth, np.random.default_rng(seed), H, W, options)
        assert all(layer.light is not None for layer in layers)
        looks = [layer.light[0].tobytes() for layer in layers]
        assert len(set(looks)) > 1
        first, second = layers[0].light
        u, v = np.rint(layers[0].motion.offset).astype(int)
        if abs(u) >= W // 2 or abs(v) >= H // 2:
            continue
        moved += 1
        inner = np.s_[max(-v, 0) : H - max(v, 0), max(-u, 0) : W - max(u, 0)]
        there = np.s_[max(v, 0) : H - max(-v, 0), max(u, 0) : W - max(-u, 0)]
        blur = [cv2.GaussianBlur(a[s], (0, 0), 3) for a, s in ((first, inner), (second, there))]
        follow += np.abs(blur[0] - blur[1]).max() < 0.4  # offsets are rounded here
    assert moved > 25
    assert 0.5 < follow / moved < 0.95  # the others have areas that move by themselves


def test_the_background_meets_its_own_light(smooth):
    """The same draws without objects: what lies about them has no offset."""
    for seed in range(10):
        layers = draw_layers(smooth, np.random.default_rng(seed), H, W, SHADOWS)
        frame = layers[0].light[0]
        canvas = frame.base if frame.base is not None else frame
        margin = (canvas.shape[0] - H) // 2
        assert (frame == canvas[margin : margin + H, margin : margin + W]).all()
        assert margin > 0


def test_labels_are_those_of_the_same_scene_in_even_light(smooth):
    for index in range(6):
        even, uneven = (render_scene(smooth, 3, index, H, W, options) for options in (CLEAN, SHADOWS))
        assert (even.flow == uneven.flow).all() and (even.occlusion == uneven.occlusion).all()
        changed = np.abs(even.img1.astype(int) - uneven.img1).max(axis=2) > 8
        assert changed.mean() > 0.1


def test_the_share_is_of_the_scenes(smooth):
    even = [render_scene(smooth, 0, i, H, W, CLEAN).img1 for i in range(40)]

    def changed(share):
        options = replace(CLEAN, shadow_share=share)
        images = [render_scene(smooth, 0, i, H, W, options).img1 for i in range(40)]
        return np.mean([(a != b).any() for a, b in zip(even, images)])

    assert SceneOptions().shadow_share == 0
    assert changed(1) == 1
    assert 0.25 < changed(0.5) < 0.75


@pytest.mark.parametrize("size", [(16, 16), (16, 300), (300, 16)])
def test_scenes_of_every_shape_have_light(smooth, size):
    changed = []
    for index in range(6):
        even, uneven = (
            render_scene(smooth, 0, index, *size, replace(options, motion_scale=3)) for options in (CLEAN, SHADOWS)
        )
        changed.append((np.abs(even.img1.astype(int) - uneven.img1).max(axis=2) > 8).mean())
    assert min(changed) > 0.05
    for made in lights(10, size):
        assert made.on((0, 0))[0].shape == (*size, 3)
