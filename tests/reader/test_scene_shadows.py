"""reader/scene_shadows.py: sun and shadow, which change what is seen and not what is true."""

from dataclasses import replace

import numpy as np
import pytest

from reader.scene_layers import Layer, compose
from reader.scene_motion import Motion
from reader.scene_options import SceneOptions
from reader.scene_shadows import ASTRAY_SHARE, RATIO, draw_light, shine
from reader.scenes import render_scene
from tests.plain_scenes import CLEAN, smooth_textures

H, W = 96, 128
NONE = np.zeros((0, 2))


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    return smooth_textures(tmp_path_factory.mktemp("smooth"))


def shift(u, v):
    return Motion(np.eye(2), np.array([u, v], np.float64), NONE, NONE, np.zeros(0))


def light(seed, ground=(0, 0), speed=20.0):
    return draw_light(np.random.default_rng(seed), H, W, shift(*ground), speed)


def test_most_shadows_move_with_the_ground_and_some_alone():
    follow = []
    for seed in range(60):
        made = light(seed, (5, -3))
        same = np.abs(made.second[:-3, 5:] - made.first[3:, :-5]).max(axis=2) < 0.02
        follow.append(same.all())
        assert same.mean() > 0.2
    assert ASTRAY_SHARE * 0.5 < 1 - np.mean(follow) < ASTRAY_SHARE * 1.5


def test_shadows_that_move_alone_go_as_far_as_told():
    changed = [
        np.mean([(abs(made.second - made.first) > 0.02).mean() for made in lights])
        for lights in ([light(seed, speed=speed) for seed in range(40)] for speed in (0, 2, 20))
    ]
    assert changed[0] == 0 < 2 * changed[1] < changed[2]


def test_the_sun_is_brighter_by_a_ratio_within_the_bounds():
    ratios, areas = [], []
    for seed in range(60):
        made = light(seed)
        grey = made.first.mean(axis=2)
        ratios.append(grey.max() / grey.min())
        assert grey.min() < 1.05 and grey.max() > 0.95  # exposed for what lies between
        areas.append((grey > grey.mean()).mean())
    # Tints move a ratio by some %; a mask that nowhere is full or empty makes it smaller.
    assert min(ratios) > 1.02 and max(ratios) < 1.2 * RATIO[1]
    assert RATIO[0] < np.median(ratios) < RATIO[1]
    assert 0.2 < np.mean(areas) < 0.8


def test_what_is_nearer_meets_the_light_elsewhere():
    made = light(1)
    first, second = made.on()
    assert first.shape == second.shape == (H, W, 3)
    for far in (-made.margin, made.margin):
        x, y = far, made.margin
        moved, _ = made.on((x, y))
        assert moved.shape == (H, W, 3)
        inside = np.s_[made.margin : H - made.margin, made.margin : W - made.margin]
        rows, columns = (np.arange(*s.indices(n)[:2]) for s, n in zip(inside, (H, W)))
        assert (moved[inside] == first[np.ix_(rows + y, columns + x)]).all()


def test_light_never_shines_out_of_what_is_transparent():
    alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = np.repeat(alpha[..., None] // 2, 3, axis=2)  # weighted with alpha
    bright = shine(colour, alpha, np.full((16, 16, 3), 4, np.float32))
    assert (bright == np.where(colour > 0, alpha[..., None], 0)).all()
    dark = shine(colour, alpha, np.full((16, 16, 3), 0.5, np.float32))
    assert (np.abs(dark.astype(int) - colour / 2) <= 0.5).all()
    assert (shine(colour, None, np.full((16, 16, 3), 4, np.float32))[15, 15] == 255).all()


def test_an_object_comes_out_of_the_shadow():
    texture = np.zeros((26, 26, 4), np.uint8)
    texture[3:-3, 3:-3] = (80, 60, 40, 255)
    sun = np.ones((H, W, 3), np.float32)
    sun[:, : W // 2] = 0.5
    ground = Layer(np.full((H, W, 3), 100, np.uint8), np.eye(2, 3), shift(0, 0), light=(sun, sun))
    placed = np.array([[1.0, 0, 27], [0, 1.0, 27]])
    made = compose([ground, Layer(texture, placed, shift(40, 0), light=(sun, sun))], H, W)
    assert (made.img1[30:50, 30:50] == (40, 30, 20)).all()
    assert (made.img2[30:50, 70:90] == (80, 60, 40)).all()
    assert (made.img1[:20] == made.img2[:20]).all()
    assert (made.img1[0, [0, W - 1]] == [[50], [100]]).all()
    assert (made.flow[30:50, 30:50] == (40, 0)).all()


def test_labels_are_those_of_the_same_scene_in_even_light(smooth):
    for index in range(6):
        even, uneven = (
            render_scene(smooth, 3, index, H, W, replace(CLEAN, shadow_share=share))
            for share in (0, 1)
        )
        assert (even.flow == uneven.flow).all() and (even.occlusion == uneven.occlusion).all()
        changed = np.abs(even.img1.astype(int) - uneven.img1).max(axis=2) > 8
        assert changed.mean() > 0.1


def test_the_share_is_of_the_scenes(smooth):
    def changed(share):
        options = replace(CLEAN, shadow_share=share)
        return np.mean(
            [
                (render_scene(smooth, 0, i, H, W, CLEAN).img1 != image).any()
                for i, image in (
                    (i, render_scene(smooth, 0, i, H, W, options).img1) for i in range(40)
                )
            ]
        )

    assert SceneOptions().shadow_share == 0
    assert changed(1) == 1
    assert 0.25 < changed(0.5) < 0.75


@pytest.mark.parametrize("size", [(16, 16), (16, 300), (300, 16)])
def test_scenes_of_every_shape_have_light(smooth, size):
    options = SceneOptions(shadow_share=1, motion_scale=3)
    for index in range(4):
        assert render_scene(smooth, 0, index, *size, options).img1.shape == (*size, 3)
