"""reader/scene_draw.py: how the layers of a scene move."""

from dataclasses import replace

import numpy as np
import pytest
from maskflownet.scenes.draw import DART_SPEED, LENGTH, MAX_ZOOM, NEARNESS, SWERVE, TRAVEL, draw_layers
from maskflownet.scenes.motion import ACCURACY, Box
from maskflownet.scenes.options import SceneOptions
from maskflownet.scenes.render import render_scene
from maskflownet.scenes.textures import Textures

from tests.plain_scenes import CLEAN, SPECIAL, smooth_textures

SIZE = (96, 128)


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    return smooth_textures(tmp_path_factory.mktemp("smooth"))


def test_scenes_are_those_of_before(smooth):
    # Taken before travel_ and later shares were there: a set stays the same.
    for seed, expected in enumerate([(-0.209506, 0.564413), (6.119010, 0.016723)]):
        rng = np.random.default_rng(seed)
        last = draw_layers(smooth, rng, *SIZE, SceneOptions())[-1]
        assert (last.motion.offset[0], rng.random()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("special", SPECIAL)
def test_drawn_motions_invert_to_the_stated_accuracy(special):
    textures = Textures()
    options = SceneOptions(motion_scale=2, deformation=3, **special)
    box = Box(0, 0, 128, 96)
    pixels = np.stack(np.meshgrid(np.arange(128.0), np.arange(96.0)), axis=-1)
    for seed in range(10):
        for layer in draw_layers(textures, np.random.default_rng(seed), *SIZE, options):
            back = layer.motion.backward_map(box, np.eye(2, 3)).astype(np.float64)
            assert np.abs(layer.motion.forward(back) - pixels).max() < ACCURACY


RIGID = replace(CLEAN, travel_share=1, small_motion_share=0, deformation=0)


def travelled(textures, seed, **options):
    """Layers of a scene without deformation, and the logarithm of their scales."""
    options = replace(RIGID, **options)
    layers = draw_layers(textures, np.random.default_rng(seed), *SIZE, options)
    return layers, np.array([np.log(np.linalg.det(la.motion.linear)) / 2 for la in layers])


def test_travelling_forward_or_backward_expands_about_a_focus(smooth):
    alone = replace(RIGID, min_objects=0, max_objects=0, rotation=0)
    pixels, rates, focuses = np.moveaxis(np.indices(SIZE)[::-1], 0, -1), [], []
    for index in range(40):
        flow = render_scene(smooth, 0, index, *SIZE, alone).flow
        divergence = np.gradient(flow[..., 0], axis=1) + np.gradient(flow[..., 1], axis=0)
        assert np.ptp(divergence) < 1e-3
        rates.append(divergence.mean() / 2)
        assert TRAVEL[0] < abs(np.log(1 + rates[-1])) < TRAVEL[1]
        focus = (pixels - flow / rates[-1]).reshape(-1, 2)  # the same wherever it is seen from
        assert np.ptp(focus, axis=0).max() < 0.05
        focuses.append(focus[0] / [SIZE[1] - 1, SIZE[0] - 1] - 0.5)
    assert 0.6 < np.mean(np.array(rates) > 0) < 0.95
    assert np.abs(np.median(focuses, axis=0)).max() < 0.12
    assert 0.05 < np.median(np.abs(focuses)) < 0.25


@pytest.mark.parametrize("seed", range(6))
def test_nearer_things_at_rest_expand_more_about_the_same_focus(smooth, seed):
    def misses(layers):
        # p -> f + L (p - f) + s: its offset is (1 - L) f + s, with f and s those of all layers.
        rows = [np.hstack([np.eye(2) - la.motion.linear, np.eye(2)]) for la in layers]
        offsets = np.concatenate([la.motion.offset for la in layers])
        found = np.linalg.lstsq(np.concatenate(rows), offsets, rcond=None)[0]
        return np.abs(np.concatenate(rows) @ found - offsets).max()

    layers, zoom = travelled(smooth, seed, camera_share=1, min_objects=6)
    assert (np.diff(zoom / zoom[0], append=NEARNESS[1]) > 0).all()
    assert np.ptp([np.arctan2(*la.motion.linear[::-1, 0]) for la in layers]) < 1e-9  # one turn
    assert misses(layers) < 1e-6
    assert misses(travelled(smooth, seed, camera_share=1, motion_scale=5)[0]) < 1e-6
    moving = {"camera_share": 0, "rotation": 0, "zoom": 0, "min_objects": 6}
    assert misses(travelled(smooth, seed, **moving)[0]) > 0.5  # px


def test_travel_stays_bounded_and_follows_the_scale_of_motion(smooth):
    for seed in range(6):
        assert np.abs(travelled(smooth, seed, motion_scale=20)[1]).max() <= MAX_ZOOM + 0.02
        assert travelled(smooth, seed, motion_scale=0)[1] == pytest.approx(0)
        half = travelled(smooth, seed, motion_scale=0.5)[1][0]
        assert 2 * half == pytest.approx(travelled(smooth, seed)[1][0])
        assert abs(travelled(smooth, seed, small_motion_share=1)[1][0]) < 0.02


def speed(layer):
    """px, how far the centre of a layer moves."""
    h, w = layer.texture.shape[:2]
    centre = layer.placement @ [w / 2, h / 2, 1]
    return np.hypot(*(layer.motion.forward(centre) - centre))


def speeds(textures, seed, **options):
    """px in 320x448, how far the background and the objects of a calm scene move."""
    calm = replace(CLEAN, small_motion_share=1, **options)
    return [speed(la) for la in draw_layers(textures, np.random.default_rng(seed), 320, 448, calm)]


def test_darts_are_fast_however_calm_the_rest(smooth):
    usual = np.concatenate([speeds(smooth, seed) for seed in range(60)])
    assert (usual < 14).mean() > 0.97
    darts = [speeds(smooth, seed, dart_share=1) for seed in range(60)]
    assert np.median([scene[0] for scene in darts]) < 2  # the background
    objects = np.concatenate([scene[1:] for scene in darts])
    assert np.median(objects) == pytest.approx(DART_SPEED[0], rel=0.12)
    assert np.log(objects).std() == pytest.approx(DART_SPEED[1], rel=0.12)
    half = np.concatenate([speeds(smooth, seed, dart_share=0.5)[1:] for seed in range(60)])
    assert (half > 14).mean() == pytest.approx(0.5 * (objects > 14).mean(), abs=0.08)
    double = np.concatenate([speeds(smooth, s, dart_share=1, motion_scale=2)[1:] for s in range(60)])
    assert np.median(double) == pytest.approx(2 * np.median(objects), rel=0.05)
    resting = {"dart_share": 1, "travel_share": 1, "camera_share": 1}  # none is left at rest
    travelled = np.concatenate([speeds(smooth, seed, **resting)[1:] for seed in range(60)])
    assert np.median(travelled) > 20


def test_darts_keep_their_shape_better_than_what_is_as_fast_in_a_fast_scene(smooth):
    def bent(**options):
        """Median of how much the objects' linear part differs from a shift, for their speed."""
        found = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            fast = replace(CLEAN, small_motion_share=0, camera_share=0, **options)
            for layer in draw_layers(smooth, rng, 320, 448, fast)[1:]:
                found.append(np.linalg.norm(layer.motion.linear - np.eye(2)) / speed(layer))
        return np.median(found)

    assert bent(dart_share=1) < 0.6 * bent(motion_scale=2)


def vehicles(textures, **options):
    """The objects of sixty calm scenes, all of them vehicles unless options say otherwise."""
    calm = replace(CLEAN, **{"small_motion_share": 1, "vehicle_share": 1, **options})
    scenes = [draw_layers(textures, np.random.default_rng(s), 320, 448, calm) for s in range(60)]
    return [layer for layers in scenes for layer in layers[1:]]


def ways(layers):
    """rad, (N,) angle from each layer's length to its motion, -pi to pi."""
    angles = []
    for layer in layers:
        h, w = layer.texture.shape[:2]
        centre = layer.placement @ [w / 2, h / 2, 1]
        shift, ahead = layer.motion.forward(centre) - centre, layer.placement[:, 0]
        across = ahead[0] * shift[1] - ahead[1] * shift[0]
        angles.append(np.arctan2(across, ahead @ shift))
    return np.array(angles)


def test_vehicles_are_long_and_go_along_their_length(smooth):
    layers = vehicles(smooth)
    lengths = np.array([la.texture.shape[1] / la.texture.shape[0] for la in layers])
    large = lengths[[la.texture.shape[0] > 40 for la in layers]]  # of small ones pixels round
    assert LENGTH[0] - 0.1 < large.min() < 2
    assert 3.3 < large.max() < LENGTH[1] + 0.1
    angles = ways(layers)
    forward = np.abs(angles) < np.pi / 2
    assert forward.mean() == pytest.approx(0.5, abs=0.12)  # the others go backward
    assert angles[forward].std() == pytest.approx(SWERVE, rel=0.2)
    assert np.abs(np.abs(angles) - np.pi / 2).min() > np.pi / 2 - 5 * SWERVE
    fast = [speed(layer) for layer in layers]
    assert np.median(fast) == pytest.approx(DART_SPEED[0], rel=0.12)
    others = vehicles(smooth, vehicle_share=0, dart_share=1)
    assert (np.abs(np.abs(ways(others)) - np.pi / 2) < 0.5).mean() > 0.2  # in any direction
    travelling = vehicles(smooth, travel_share=1, camera_share=1, small_motion_share=0)
    assert np.median([speed(layer) for layer in travelling]) > 20


def test_the_share_of_vehicles_is_of_the_objects(smooth):
    few = vehicles(smooth, vehicle_share=0.3, composite_share=0, min_objects=6)
    along = (np.array([speed(layer) for layer in few]) > 8).mean()  # px; the others are slower
    assert along == pytest.approx(0.3, abs=0.09)
    # It goes before the other shares of the objects.
    for share in ("thin_share", "composite_share", "cutout_share", "dart_share"):
        none, all_of_them = (vehicles(smooth, **{share: value}) for value in (0, 1))
        for one, other in zip(none, all_of_them):
            assert np.array_equal(one.placement, other.placement), share
