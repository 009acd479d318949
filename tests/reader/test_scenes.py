"""reader/scenes.py: reproducible scenes whose label is what the pictures show."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest

from reader.scene_draw import DART_SPEED, MAX_ZOOM, NEARNESS, TRAVEL, draw_layers
from reader.scene_motion import ACCURACY, Box
from reader.scene_options import SHARES, SceneOptions
from reader.scene_photometry import draw_layer_curve
from reader.scenes import render_scene
from reader.textures import Textures

SIZE = (96, 128)
CLEAN = SceneOptions(
    photometric=0, noise=0, defocus_share=0, motion_blur_share=0, fog_share=0, min_objects=3
)


@pytest.fixture(scope="module")
def textures():
    return Textures()


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    """Photographs that bilinear sampling reproduces almost without error, and one cut-out."""
    folder = tmp_path_factory.mktemp("smooth")
    rng = np.random.default_rng(0)
    for number in range(3):
        coarse = rng.integers(0, 256, (14, 18, 3), np.uint8)
        picture = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.GaussianBlur(picture, (0, 0), 6))
    disc = cv2.circle(np.zeros((480, 640), np.uint8), (320, 240), 200, 255, -1, cv2.LINE_AA)
    cv2.imwrite(str(folder / "cut.png"), np.dstack([picture, disc]))
    return Textures(folder)


def digest(scene):
    return hashlib.sha256(b"".join(array.tobytes() for array in scene)).hexdigest()


def test_shapes_and_types(textures):
    scene = render_scene(textures, 0, 0, 64, 100)
    assert [(a.shape, a.dtype) for a in scene] == [
        ((64, 100, 3), np.uint8),
        ((64, 100, 3), np.uint8),
        ((64, 100, 2), np.float32),
        ((64, 100, 1), np.uint8),
    ]
    assert set(np.unique(scene.occlusion)) <= {0, 255}
    assert np.isfinite(scene.flow).all()


def test_a_scene_is_the_same_in_any_order_thread_or_process(textures):
    expected = [digest(render_scene(textures, 3, i, *SIZE)) for i in range(6)]
    assert len(set(expected)) == 6
    with ThreadPoolExecutor(3) as pool:
        found = list(
            pool.map(lambda i: digest(render_scene(textures, 3, i, *SIZE)), range(5, -1, -1))
        )
    assert found[::-1] == expected
    code = (
        "import hashlib\nfrom reader.scenes import render_scene\n"
        "from reader.textures import Textures\nscene = render_scene(Textures(), 3, 4, 96, 128)\n"
        "print(hashlib.sha256(b''.join(a.tobytes() for a in scene)).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected[4]
    assert digest(render_scene(textures, 4, 4, *SIZE)) != expected[4]


def test_a_scene_does_not_depend_on_opencv_threads(textures):
    threads = cv2.getNumThreads()
    try:
        digests = []
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            digests.append([digest(render_scene(textures, 0, i, 320, 448)) for i in range(3)])
    finally:
        cv2.setNumThreads(threads)
    assert digests[0] == digests[1] == digests[2]


SPECIAL = [{}, {"travel_share": 1}, {"dart_share": 1}, {"travel_share": 1, "dart_share": 1}]


@pytest.mark.parametrize("special", SPECIAL)
def test_drawn_motions_invert_to_the_stated_accuracy(textures, special):
    options = SceneOptions(motion_scale=2, deformation=3, **special)
    box = Box(0, 0, 128, 96)
    pixels = np.stack(np.meshgrid(np.arange(128.0), np.arange(96.0)), axis=-1)
    for seed in range(10):
        for layer in draw_layers(textures, np.random.default_rng(seed), *SIZE, options):
            back = layer.motion.backward_map(box, np.eye(2, 3)).astype(np.float64)
            assert np.abs(layer.motion.forward(back) - pixels).max() < ACCURACY


def misfit(scene, extra=0.0):
    """Mean displacement (2,), px, that frame 2, warped back by the label, still lacks."""
    height, width = scene.flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    target = scene.flow + np.float32(extra) + np.stack([x, y], axis=-1)
    img1, img2 = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY).astype(np.float64) for i in scene[:2])
    warped = cv2.remap(img2, target, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    slope = np.stack([cv2.Scharr(warped, -1, 1, 0), cv2.Scharr(warped, -1, 0, 1)], axis=-1) / 32
    seams = cv2.Laplacian(scene.flow, cv2.CV_32F)  # the label jumps from layer to layer
    inner = (np.abs(seams).max(axis=2) < 0.5) & (scene.occlusion[..., 0] == 0)
    inner = cv2.erode(inner.astype(np.uint8), np.ones((9, 9)), borderValue=0) > 0
    assert inner.mean() > 0.05
    return np.linalg.lstsq(slope[inner], (img1 - warped)[inner], rcond=None)[0]


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("index", range(8))
def test_label_moves_frame_2_onto_frame_1(smooth, index, special):
    scene = render_scene(smooth, 0, index, 320, 448, replace(CLEAN, **special))
    assert np.abs(misfit(scene)).max() < 0.02
    assert misfit(scene, extra=0.1) == pytest.approx([-0.1, -0.1], abs=0.03)  # it can fail


def test_motion_of_a_layer_is_not_rigid(smooth):
    still = replace(CLEAN, min_objects=0, max_objects=0, small_motion_share=0)
    x, y = np.meshgrid(np.arange(448.0), np.arange(320.0))
    basis = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)

    def residual(options, index):
        flow = render_scene(smooth, 0, index, 320, 448, options).flow.reshape(-1, 2)
        fitted = basis @ np.linalg.lstsq(basis, flow, rcond=None)[0]
        return np.sqrt(((flow - fitted) ** 2).sum(axis=1).mean())

    assert np.median([residual(still, i) for i in range(5)]) > 0.5
    assert max(residual(replace(still, deformation=0), i) for i in range(5)) < 1e-3


def test_motion_has_heavy_tails(textures):
    # Displacements grow with the picture: 80x112 is a quarter of 320x448.
    flows = [render_scene(textures, 0, i, 80, 112, CLEAN).flow for i in range(250)]
    size = 4 * np.array([np.hypot(f[..., 0], f[..., 1]) for f in flows])
    assert 8 < np.median(size) < 12
    assert 11 < size.mean() < 19
    assert 0.004 < (size > 75).mean() < 0.02
    assert (np.median(size, axis=(1, 2)) < 2).mean() > 0.05


def test_scenes_are_those_of_before(smooth):
    # Taken before travel_share, plain_share and dart_share were added: a seed's set stays the same.
    for seed, expected in enumerate([(-0.209506, 0.564413), (6.119010, 0.016723)]):
        rng = np.random.default_rng(seed)
        last = draw_layers(smooth, rng, *SIZE, SceneOptions())[-1]
        assert (last.motion.offset[0], rng.random()) == pytest.approx(expected, abs=1e-5)


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
    double = np.concatenate(
        [speeds(smooth, s, dart_share=1, motion_scale=2)[1:] for s in range(60)]
    )
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


def test_plain_layers_keep_their_colour_and_little_contrast(smooth):
    alone = replace(CLEAN, min_objects=0, max_objects=0)
    for index in range(8):
        pair = (replace(alone, plain_share=share) for share in (0, 1))
        images = [render_scene(smooth, 0, index, *SIZE, options).img1 for options in pair]
        detail = [cv2.Laplacian(image, cv2.CV_64F).std() for image in images]
        assert 0.08 < detail[1] / detail[0] < 0.45
    texture = np.uint8([[[40, 100, 200, 255], [0, 0, 0, 0]]])  # only what is opaque has a say
    plain = replace(CLEAN, plain_share=1)
    curve = draw_layer_curve(np.random.default_rng(0), plain, texture, np.zeros(3), 0)[0]
    assert curve[[40, 100, 200], range(3)].tolist() == [40, 100, 200]


@pytest.mark.parametrize("name", ["travel_share", "plain_share", "dart_share"])
def test_new_shares_are_reproducible(smooth, name):
    def digests(**kw):
        return [digest(render_scene(smooth, 1, i, 64, 96, SceneOptions(**kw))) for i in range(4)]

    assert digests(**{name: 0.5}) == digests(**{name: 0.5})
    assert digests(**{name: 1}) != digests()


CHANGES = {"min_objects": 9, "max_objects": 20, "object_scale": 1.5, "motion_scale": 2.0}
CHANGES.update(dict.fromkeys(["rotation", "zoom", "deformation", "photometric", "noise"], 0.0))
CHANGES.update(dict.fromkeys(SHARES, 1.0))


def test_every_option_is_listed_here():
    assert set(CHANGES) == set(SceneOptions.__dataclass_fields__)


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_has_an_effect(smooth, name):
    changed = replace(SceneOptions(), **{name: CHANGES[name]})
    same = [
        digest(render_scene(smooth, 0, i, *SIZE))
        == digest(render_scene(smooth, 0, i, *SIZE, changed))
        for i in range(6)
    ]
    assert not all(same)


def test_direction_of_the_main_options(smooth):
    def mean(options, *of):
        scenes = [render_scene(smooth, 0, i, *SIZE, options) for i in range(30)]
        return np.mean([[measure(scene) for measure in of] for scene in scenes], axis=0)

    def motion(scene):
        return np.abs(scene.flow).mean()

    def difference(scene):
        return np.abs(scene.img1.astype(int) - scene.img2).mean()

    usual = mean(CLEAN, motion)
    assert mean(replace(CLEAN, motion_scale=3), motion) > 2 * usual
    assert mean(replace(CLEAN, small_motion_share=1), motion) < 0.3 * usual
    still = replace(CLEAN, motion_scale=0)
    still_motion, still_difference = mean(still, motion, difference)
    assert still_motion == 0
    assert still_difference < 0.03  # of rounding, OpenCV 4 samples at 1/32 px
    assert mean(replace(still, noise=10), difference) > 1
    assert mean(replace(still, photometric=1), difference) > 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": -1},
        {"thin_share": 1.5},
        {"travel_share": 1.5},
        {"plain_share": -0.1},
        {"dart_share": 2},
        {"zoom": float("nan")},
        {"min_objects": 2.5},
        {"min_objects": 5, "max_objects": 4},
        {"object_scale": 0},
        {"object_scale": 0.01},
        {"max_objects": 255},
        {"fog_share": "often"},
        {"noise": True},
    ],
)
def test_wrong_options_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SceneOptions(**wrong)


@pytest.mark.parametrize("seed, index, size", [(-1, 0, SIZE), (0, -1, SIZE), (0, 0, (8, 128))])
def test_wrong_arguments_are_refused(textures, seed, index, size):
    with pytest.raises(ValueError):
        render_scene(textures, seed, index, *size)
