"""reader/scenes.py: reproducible scenes whose label is what the pictures show."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from maskflownet.scenes.options import SHARES, SceneOptions
from maskflownet.scenes.photometry import draw_layer_curve
from maskflownet.scenes.render import render_scene
from maskflownet.scenes.textures import Textures

from tests.plain_scenes import CLEAN, SPECIAL, smooth_textures

SIZE = (96, 128)


@pytest.fixture(scope="module")
def textures():
    return Textures()


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    return smooth_textures(tmp_path_factory.mktemp("smooth"))


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
        found = list(pool.map(lambda i: digest(render_scene(textures, 3, i, *SIZE)), range(5, -1, -1)))
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


NEW = [f"{kind}_share" for kind in ("travel", "plain", "dart", "composite", "shadow", "gloss")]


@pytest.mark.parametrize("name", NEW)
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
        digest(render_scene(smooth, 0, i, *SIZE)) == digest(render_scene(smooth, 0, i, *SIZE, changed))
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
        {"vehicle_share": -0.1},
        {"composite_share": -0.5},
        {"shadow_share": 1.01},
        {"gloss_share": -1},
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
