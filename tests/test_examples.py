"""The examples that take a user's own files, on tiny ones with the shipped weights."""

from pathlib import Path

import cv2
import maskflownet
import numpy as np
import pytest
from maskflownet.engine.contract import Prediction
from maskflownet.examples import average, interpolate, tracks
from maskflownet.inference.new_data import Video
from maskflownet.reader.formats import read_image, write_image
from maskflownet.reader.video import VideoReader, VideoWriter
from maskflownet.settings.cli import run

from tests.trees import picture

pytest.importorskip("torch", reason="PyTorch is not installed")
H, W = 96, 160
TORCH = ["--engine", "torch"]


def scene(shift):
    """A picture (H, W, 3) that moves to the right by `shift` px."""
    wide = cv2.resize(picture(3, (12, 28)), (W + 64, H), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(wide[:, 32 - shift : 32 - shift + W])


def test_a_square_before_a_background_stands_half_way_and_its_ground_is_of_whichever_shows_it():
    """Exact flows and masks: a white square moves 8 px over still ground; each picture hides a part of it."""
    ground = picture(1, (32, 48)) // 2
    images, flows, masks = [], [], []
    for left, other in ((8, 16), (16, 8)):
        image, flow, mask = ground.copy(), np.zeros((32, 48, 2), np.float32), np.ones((32, 48, 1), np.float32)
        mask[8:24, other : other + 12] = 0  # the square will cover it
        square = np.s_[8:24, left : left + 12]
        image[square], flow[square], mask[square] = 255, (other - left, 0), 1
        images, flows, masks = [*images, image], [*flows, flow], [*masks, mask]
    there, back = (Prediction(flow, mask, None) for flow, mask in zip(flows, masks))
    wanted = ground.copy()
    wanted[8:24, 12:24] = 255
    middle = interpolate.between(there, back, *images, 0.5)
    error = np.abs(middle.astype(int) - wanted).max(axis=2)
    assert (error > 20).mean() < 0.05 and np.median(error) == 0  # but for the square's edge
    for time, image in enumerate(images):
        np.testing.assert_array_equal(interpolate.between(there, back, *images, time), image)


def test_interpolate(tmp_path, capsys):
    files = [str(tmp_path / name) for name in ("a.png", "b.png", "out.png")]
    for file, shift in zip(files, (0, 8)):
        write_image(file, scene(shift))
    assert run(interpolate.main, [*files, *TORCH]) == 0
    assert capsys.readouterr().out == f"wrote {files[2]}: the frame at time 0.5 between {files[0]} and {files[1]}\n"
    inner = np.s_[:, 16:-16]
    assert cv2.PSNR(read_image(files[2])[inner], scene(4)[inner]) > 30 > cv2.PSNR(scene(0)[inner], scene(4)[inner])


def test_average_of_a_moving_burst_has_less_noise(tmp_path):
    noise = np.random.default_rng(0).normal(0, 20, (4, H, W, 3))
    files = [str(tmp_path / f"{i}.png") for i in range(4)]
    for i, file in enumerate(files):
        write_image(file, np.clip(np.rint(scene(6 * i) + noise[i]), 0, 255).astype(np.uint8))
    assert run(average.main, [*files, str(tmp_path / "out.png"), *TORCH]) == 0
    before, after = (cv2.PSNR(read_image(file), scene(0)) for file in (files[0], tmp_path / "out.png"))
    assert after > before + 3


def test_tracks_follow_the_picture_and_end_where_it_ends(tmp_path):
    with VideoWriter(tmp_path / "in.mp4", 10, H, W) as video:
        for i in range(4):
            video.write(scene(8 * i))
    video = Video(tmp_path / "in.mp4")
    *_, (_, path) = tracks.tracks(maskflownet.load(engine="torch"), video, 16)
    assert path.shape[0] == 4 and 20 < path.shape[1] < 6 * 10
    steps = np.diff(path, axis=0)  # (3, N, 2)
    np.testing.assert_allclose(np.median(steps, axis=1), np.tile((8.0, 0.0), (3, 1)), atol=0.5)
    assert path[-1, :, 0].max() <= W - 1 and (path[0, :, 0] > W - 20).sum() == 0
    for out, every in ((str(tmp_path / f"{px}.mp4"), px) for px in ("16", "400")):  # with 400 px there is no point
        assert run(tracks.main, [str(tmp_path / "in.mp4"), out, "--every", every, *TORCH]) == 0
        assert len([*VideoReader(out)]) == 3


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (interpolate.main, ["a.png", "none.png", "out.png"], "none.png: there is no such file"),
        (interpolate.main, ["a.png", "a.png", "out.png", "--time", "2"], "'2' is not a number from 0 to 1"),
        (average.main, ["a.png", "b.png", "a.png"], "a.png exists already"),
        (average.main, ["a.png", "b.png", "no/out.png"], "no/out.png: there is no such folder"),
        (average.main, ["a.png", "none.png", "out.mp4"], "cannot write out.mp4: its suffix is none of .png, "),
        (average.main, ["a.png", "small.png", "out.png"], "differ in shape"),
        (tracks.main, ["none.mp4", "out.mp4"], "none.mp4"),
        (tracks.main, ["one.mp4", "out.mp4"], "one.mp4 holds a single frame, two are needed"),
        (tracks.main, ["none.mp4", "out.png"], "cannot write out.png: its suffix is none of .mp4, .avi, .gif"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, monkeypatch, capsys, main, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_image("a.png", scene(0))
    write_image("small.png", scene(0)[:64])
    with VideoWriter("one.mp4", 10, H, W) as video:
        video.write(scene(0))
    before = Path("a.png").read_bytes()
    assert run(main, [*arguments, *TORCH]) == 2
    assert message in capsys.readouterr().err
    assert Path("a.png").read_bytes() == before and not Path("out.png").exists()


@pytest.mark.parametrize("module", [average, interpolate, tracks])
def test_each_is_short_enough_to_be_copied(module):
    assert len(Path(module.__file__).read_text().splitlines()) <= 40
