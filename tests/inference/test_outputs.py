"""From pictures to files: what an output's suffix means, what is refused, and what a whole sequence needs."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.inference.outputs import Output, check_outputs, predict_files
from maskflownet.inference.predictor import Predictor, load
from maskflownet.inference.sources import Folder, Pair, Video
from maskflownet.reader.formats import read_flow, read_image, read_mask, read_pfm, write_image
from maskflownet.reader.video import VideoReader

from tests.known_engine import KnownEngine
from tests.videos import make

SIZE = (40, 50)
STEPS = (3, 5, 2)  # px: the motion of each pair of the folder


def brightness(image_1, image_2):
    """Flow (u, 0) of as many px as image 2 is brighter."""
    flow = np.zeros((*image_1.shape[:2], 2), np.float32)
    flow[..., 0] = image_2[0, 0, 0].astype(float) - image_1[0, 0, 0]
    return flow


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "frames").mkdir()
    for i, grey in enumerate(np.cumsum((10, *STEPS))):
        write_image(tmp_path / f"frames/{i}.png", np.full((*SIZE, 3), grey, np.uint8))
    return Folder(tmp_path / "frames")


def predict(source, *outputs, rule=brightness, batch=1, **options):
    """Write outputs that are given as (path, role, kitti)."""
    outputs = [Output(Path(path), *others) for path, *others in outputs]
    check_outputs(source, outputs)
    engine = KnownEngine(rule)
    return engine, predict_files(Predictor(engine, batch=batch), source, outputs, **options)


@pytest.mark.parametrize("name", ["x.flo", "x.pfm", "x.npy", "x.npz", "x.png"])
def test_raw_flow_of_a_pair(folder, tmp_path, name):
    """A .png is one with --kitti."""
    exact = np.round(np.random.default_rng(0).uniform(-9, 9, (*SIZE, 2)) * 64) / 64  # KITTI's steps
    predict(Pair(*folder.paths[:2]), (tmp_path / name, "flow", name == "x.png"), rule=lambda *_: exact)
    flow, valid = read_flow(tmp_path / name)
    assert (flow == exact).all() and valid.all()


def test_a_picture_has_its_red_where_red_is_and_the_scale_that_is_asked_for(folder, tmp_path):
    for name, max_flow in (("own", None), ("wide", 30)):
        predict(Pair(*folder.paths[:2]), (tmp_path / f"{name}.png", "flow"), max_flow=max_flow)
    own, wide = (read_image(tmp_path / f"{name}.png")[10, 10].astype(int) for name in ("own", "wide"))
    assert own[0] > 200 and max(own[1:]) < 100  # 3 px to the right
    assert wide[1] > 200  # nearer to white


def test_masks_and_warped_images(tmp_path, random_checkpoints):
    """Drawn and raw, of a real network."""
    rng = np.random.default_rng(0)
    for i in (0, 1):
        write_image(tmp_path / f"{i}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
    names = {"m.png": "mask", "m.npy": "mask", "w.png": "warped", "w.npz": "warped"}
    outputs = [Output(tmp_path / name, role) for name, role in names.items()]
    source = Pair(tmp_path / "0.png", tmp_path / "1.png")
    check_outputs(source, outputs)
    predict_files(load("MaskFlownet_S", str(random_checkpoints["MaskFlownet_S"])), source, outputs)
    grey = cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED)
    mask = np.load(tmp_path / "m.npy")
    assert grey.shape == SIZE and mask.shape == (*SIZE, 1)
    assert np.abs(grey - mask[..., 0] * 255).max() <= 0.501
    warped = np.load(tmp_path / "w.npz")["warped"]
    assert np.abs(read_image(tmp_path / "w.png") - warped * 255).max() <= 0.501


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".npy", ".npz", ".pfm"])
def test_numbered_files_of_a_folder_with_confidence(folder, tmp_path, suffix):
    names = (tmp_path / "f_%04d.flo", "flow"), (tmp_path / f"c_%d{suffix}", "confidence")
    engine, done = predict(folder, *names, batch=3)
    assert [shape[0] for shape, _ in engine.calls] == [6]  # three pairs and their swaps
    assert done.pairs == 3
    for number, step in enumerate(STEPS, 1):
        assert (read_flow(tmp_path / f"f_000{number}.flo")[0] == (step, 0)).all()
        path = tmp_path / f"c_{number}{suffix}"
        if suffix in {".png", ".jpg"}:
            values = read_mask(path)[..., 0] / 255
        elif suffix == ".pfm":
            values = read_pfm(path)
        else:
            stored = np.load(path)
            values = (stored["confidence"] if suffix == ".npz" else stored)[..., 0]
        expected = np.ones(SIZE)
        expected[:, -step:] = 0  # there the flow leaves the picture
        np.testing.assert_allclose(values, expected, atol=0.1 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("role", ["flow", "mask", "confidence"])
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
def test_videos(folder, tmp_path, role, suffix):
    predict(folder, (tmp_path / f"x{suffix}", role), max_flow=9, rate=20)
    video = VideoReader(tmp_path / f"x{suffix}")
    assert (video.height, video.width, video.count, video.rate) == (*SIZE, 3, 20)
    (frame, *_) = video
    if role == "confidence":
        assert frame[:, :40].min() > 200 and frame[:, -1].max() < 60


def one_wild_pixel(image_1, image_2):
    flow = brightness(image_1, image_2)
    flow[0, 0] = 1000
    return flow


def test_one_scale_for_all_frames_which_one_wild_pixel_does_not_set(folder, tmp_path):
    names = (tmp_path / "flow_%d.png", "flow"), (tmp_path / "flow_%d.flo", "flow")
    _, done = predict(folder, *names, rule=one_wild_pixel)
    assert done.max_flow == pytest.approx(max(STEPS))
    assert done.largest == pytest.approx(np.hypot(1000, 1000))
    slow, fast, slowest = (read_image(tmp_path / f"flow_{i}.png")[20, 20, 1] for i in (1, 2, 3))
    assert slowest > slow > fast  # the slower, the whiter
    assert predict(folder, names[0], rule=one_wild_pixel, max_flow=7)[1].max_flow == 7


def test_only_what_is_written_is_computed(folder, tmp_path):
    engine, _ = predict(folder, (tmp_path / "f_%d.flo", "flow"), (tmp_path / "m_%d.png", "mask"))
    assert engine.asked == [(True, False)] * 3


def test_memory_does_not_grow_with_a_videos_length(tmp_path):
    peaks = []
    for count in (20, 20, 120):  # the first one fills caches
        source = Video(make(tmp_path / f"{count}.mp4", count, height=128, width=192))
        tracemalloc.start()
        predict(source, (tmp_path / "x.mp4", "flow"), max_flow=5, rule=brightness)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1]


def test_values_that_are_no_numbers_leave_no_file(folder, tmp_path):
    broken = np.full((*SIZE, 2), np.nan, np.float32)
    for name in ("flow.mp4", "flow_%d.flo"):
        with pytest.raises(UserError, match="no numbers"):
            predict(folder, (tmp_path / name, "flow"), rule=lambda *_: broken, max_flow=1, rate=25)
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_names_are_checked_together(folder, tmp_path):
    write_image(tmp_path / "frames/frame_1.png", np.zeros((*SIZE, 3), np.uint8))
    folder = Folder(tmp_path / "frames")
    for message, *names in [
        ("named twice", ("x.mp4", "flow"), ("x.mp4", "mask")),
        ("named twice", ("z_%d.png", "flow"), ("z_%01d.png", "mask")),
        ("one of the inputs", ("frames/frame_%d.png", "flow")),
    ]:
        with pytest.raises(UserError, match=message):
            check_outputs(folder, [Output(tmp_path / name, role) for name, role in names])


@pytest.mark.parametrize(
    ("name", "role", "sequence", "kitti", "message"),
    [
        ("x.webm", "flow", False, False, "suffix of the flow is one of"),
        ("x", "flow", False, False, "suffix of the flow"),
        ("x.flo", "mask", False, False, "suffix of the mask"),
        ("x.mp4", "flow", False, False, "a pair gives one picture"),
        ("x.png", "flow", True, False, r"numbered name such as x_%04d\.png"),
        ("x_%d_%d.png", "flow", True, False, "numbered name"),
        ("x.flo", "flow", False, True, "--kitti writes a .png"),
        ("none/x.flo", "flow", False, False, "its folder .*none does not exist"),
        ("folder.flo", "flow", False, False, "it is a folder"),
    ],
)
def test_bad_names_are_refused(folder, tmp_path, name, role, sequence, kitti, message):
    (tmp_path / "folder.flo").mkdir()
    source = folder if sequence else Pair(*folder.paths[:2])
    with pytest.raises(UserError, match=message) as error:
        check_outputs(source, [Output(tmp_path / name, role, kitti)])
    assert "\n" not in str(error.value)
