"""reader/scene_composites.py: objects of several parts."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from maskflownet.scenes.composites import LEAST, draw_composite
from maskflownet.scenes.draw import draw_layers
from maskflownet.scenes.options import SceneOptions
from maskflownet.scenes.shapes import MARGIN

from tests.plain_scenes import CLEAN, smooth_textures

SIZE = (160, 200)


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    return smooth_textures(tmp_path_factory.mktemp("smooth"))


def drawn(textures, seed, size=SIZE, stroke=4):
    return draw_composite(textures, np.random.default_rng(seed), *size, stroke)


def test_a_seed_is_one_object_with_a_transparent_border(smooth):
    for seed in range(20):
        object_ = drawn(smooth, seed)
        assert object_.shape == (*SIZE, 4) and object_.dtype == np.uint8
        assert (object_ == drawn(smooth, seed)).all()
        alpha = object_[..., 3].copy()
        assert 0.1 < (alpha > 127).mean() < 0.95
        alpha[MARGIN:-MARGIN, MARGIN:-MARGIN] = 0
        assert not alpha.any()


def test_limbs_stand_out_of_the_body_and_hang_on_it(smooth):
    thin = []
    for seed in range(40):
        solid = (drawn(smooth, seed)[..., 3] > 127).astype(np.uint8)
        body = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((15, 15), np.uint8))
        thin.append((solid - body).sum() / solid.sum())
        areas = cv2.connectedComponentsWithStats(solid)[2][1:, cv2.CC_STAT_AREA]
        assert areas.max() > 0.6 * areas.sum()
    assert 0.05 < np.median(thin) < 0.5


def test_parts_have_looks_of_their_own_and_some_are_dark_or_plain(smooth):
    def parts(seed):
        object_ = drawn(smooth, seed)
        shown = object_[..., :3][object_[..., 3] == 255].astype(float)
        return np.linalg.norm(shown.std(axis=0)), (shown.max(axis=1) < 60).mean()

    contrast, dark = np.transpose([parts(seed) for seed in range(40)])
    assert np.median(contrast) > 25  # one plain part alone has about 10
    assert 0.1 < np.mean(dark > 0.2) < 0.9


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (300, 5)])
def test_small_objects_grow_to_what_holds_the_parts(smooth, size):
    object_ = drawn(smooth, 0, size, 1)
    assert object_.shape[:2] == tuple(max(side, LEAST) for side in size)
    assert object_[..., 3].any()


def test_objects_larger_than_the_photographs_are_filled(smooth):
    assert (drawn(smooth, 3, (900, 1200), 9)[..., 3] == 255).mean() > 0.1


def test_the_share_is_of_the_objects_that_are_not_thin(smooth):
    def looks(**options):
        """Sets of the objects' textures in 30 scenes."""
        options = replace(CLEAN, min_objects=6, max_objects=6, **options)
        return [draw_layers(smooth, np.random.default_rng(s), *SIZE, options)[1:] for s in range(30)]

    def full(layer):  # thin things, polygons, blobs and the disc have one photograph: no dark part
        shown = layer.texture[..., :3][layer.texture[..., 3] == 255]
        return len(shown) and (shown.max(axis=1) < 30).mean() > 0.02

    def share(scenes):
        return np.mean([full(layer) for scene in scenes for layer in scene])

    none, half, every = (share(looks(composite_share=s, thin_share=0)) for s in (0, 0.5, 1))
    assert none < 0.1 and every > none + 0.3
    assert none + 0.3 * (every - none) < half < none + 0.7 * (every - none)
    assert share(looks(composite_share=1, thin_share=1)) < 0.1
    assert SceneOptions().composite_share == 0
