"""The command for a user's own images: every task once, and every bad input."""

import contextlib
import importlib.util
import re
from fractions import Fraction

import cv2
import numpy as np
import pytest
from maskflownet.checkpoints.params import params_bytes
from maskflownet.reader.formats import read_flow, read_image, write_image
from maskflownet.reader.video import VideoReader, VideoWriter
from maskflownet.settings.cli import run
from maskflownet.settings.folders import ROOT

import predict_new_data
from tests.programs import python

SIZE = (50, 70)  # no multiple of 64
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with two frames, a short video and a GIF of noise that moves to the right."""
    folder = tmp_path_factory.mktemp("inputs")
    noise = cv2.resize(RNG.integers(0, 256, (12, 20, 3), np.uint8), (90, 50))
    frames = [np.ascontiguousarray(noise[:, i : i + SIZE[1]]) for i in range(4)]
    (folder / "frames").mkdir()
    for i, frame in enumerate(frames):
        write_image(folder / "frames" / f"{i}.png", frame)
    for name in ("clip.mp4", "clip.gif"):
        with VideoWriter(folder / name, Fraction(20), *SIZE) as video:
            for frame in frames:
                video.write(frame)
    return folder


@pytest.fixture
def command(inputs, random_checkpoints, tmp_path, capsys):
    """Call the program in this process: (exit code, what it printed, what it complained)."""

    def call(output, *arguments, config="MaskFlownet_S", checkpoint=None, pair=True):
        checkpoint = checkpoint or random_checkpoints["MaskFlownet_S"]
        images = ["--image_1", f"{inputs}/frames/0.png", "--image_2", f"{inputs}/frames/1.png"]
        line = [str(tmp_path / output), config, "-c", str(checkpoint), *(images if pair else [])]
        code = run(predict_new_data.main, [*line, *(str(a) for a in arguments)])
        return code, *capsys.readouterr()

    return call


def test_a_pair_with_all_outputs(command, tmp_path):
    extra = ("--mask", tmp_path / "m.png", "--warped", tmp_path / "w.jpg", "--flow", tmp_path / "f.flo")
    code, out, err = command("x.png", *extra)
    engine = "torch" if importlib.util.find_spec("torch") else "mxnet"
    assert (code, err) == (0, f"engine: {engine} on the CPU (no -g), float32\n")
    assert "1 pair of 50x70" in out
    assert re.search(r"full colour is (\d+\.\d+) px \(--max_flow \1\)", out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.flo", "m.png", "w.jpg", "x.png"]
    flow, _ = read_flow(tmp_path / "f.flo")
    assert flow.shape == (*SIZE, 2)
    assert read_image(tmp_path / "x.png").shape == (*SIZE, 3)
    assert command("kitti.png", "--kitti")[0] == 0
    assert np.abs(read_flow(tmp_path / "kitti.png")[0] - flow).max() <= 0.5 / 64 + 1e-6


@pytest.mark.parametrize("options", [("--resize", "128,192"), ("--pad",)])
def test_the_output_keeps_the_images_size(command, tmp_path, options):
    assert command("plain.flo")[0] == 0
    assert command("x.flo", *options)[0] == 0
    assert read_flow(tmp_path / "x.flo")[0].shape == (*SIZE, 2)
    different = read_flow(tmp_path / "x.flo")[0] - read_flow(tmp_path / "plain.flo")[0]
    assert np.abs(different).max() > 1e-3  # the option had an effect


@pytest.mark.parametrize(("name", "suffix"), [("clip.mp4", ".mp4"), ("clip.gif", ".avi"), ("clip.mp4", ".gif")])
def test_a_video_gives_a_video(command, inputs, tmp_path, name, suffix):
    code, _, _ = command(f"x{suffix}", "--video_filepath", inputs / name, pair=False)
    assert code == 0
    video = VideoReader(tmp_path / f"x{suffix}")
    assert (video.height, video.width, video.count, video.rate) == (*SIZE, 3, 20)


def test_a_folder_has_25_frames_a_second_unless_told(command, inputs, tmp_path):
    for name, batch, rate in (("a.mp4", (), 25), ("b.mp4", ("--batch", 2, "--fps", "12.5"), Fraction(25, 2))):
        code, out, _ = command(name, "--folder", inputs / "frames", *batch, pair=False)
        assert code == 0 and "3 pairs" in out
        assert VideoReader(tmp_path / name).rate == rate


def test_the_full_network(command, random_checkpoints, tmp_path):
    full = random_checkpoints["MaskFlownet"]
    mask = ("--mask", tmp_path / "m.npy")
    assert command("x.flo", *mask, config="MaskFlownet", checkpoint=full)[0] == 0
    # The head of the same file, by the S config: another flow, but the same mask.
    mask = ("--mask", tmp_path / "head.npy")
    assert command("head.flo", *mask, config="MaskFlownet_S", checkpoint=full)[0] == 0
    assert (np.load(tmp_path / "m.npy") == np.load(tmp_path / "head.npy")).all()
    assert (read_flow(tmp_path / "x.flo")[0] != read_flow(tmp_path / "head.flo")[0]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image_2", "{}/small.png"], "differ in size"),
        (["--video_filepath", "{}/cut.mp4"], "cut.mp4"),
        (["--camera", "99"], "/dev/video99 as a video: No such file"),
        (["--video_filepath", "http://127.0.0.1:9/"], "http://127.0.0.1:9/ as a video: Connection refused"),
        (["-c", "{}/foreign.params"], "is no checkpoint of MaskFlownet"),
        (["--mask", "{}/frames/0.png"], "one of the inputs"),
        (["--resize", "100x100"], "H,W"),
        (["--batch", "0"], "whole number above 0"),
        (["--max_flow", "-3"], "number above 0"),
        (["--resize", "6400000,6400000"], "at most 16384"),
        (["--fps", "5"], "--fps is for an .mp4, .avi or .gif"),
        (["-c", "{}/x.flo", "--flow", "{}/x.flo"], "one of the inputs"),
        (["--kitti", "--max_flow", "3"], "--max_flow is for a flow that is drawn"),
        (["--codec", "libx264"], "--codec is for an .mp4 or .avi"),
        (["--video_filepath", "{}/clip.mp4", "--codec", "x264"], "no encoder of videos of this name"),
        (["--fps", "0.0001"], "from 0.01 to 1000"),
        (["--wrapped", "x"], "--wrapped"),
        (["--folder", "{}/frames"], "give one input"),
    ],
)
def test_bad_input_is_one_sentence(command, inputs, tmp_path, arguments, message):
    write_image(inputs / "small.png", np.zeros((20, 20, 3), np.uint8))
    (inputs / "cut.mp4").write_bytes((inputs / "clip.mp4").read_bytes()[:-600])
    (inputs / "foreign.params").write_bytes(params_bytes({"fc.weight": np.ones((2, 2), "f4")}, ""))
    pair = not {"--video_filepath", "--camera"} & {*arguments}
    code, out, err = command("x.png" if pair else "x.mp4", *(a.format(inputs) for a in arguments), pair=pair)
    assert code == 2 and message in err
    assert (out, err.count("\n")) == ("", 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "code"), [("1.png", 0), ("none.png", 2)])
def test_the_program_itself(inputs, random_checkpoints, tmp_path, name, code):
    """As a user starts it, from another folder."""
    line = ["x.png", "MaskFlownet_S.yaml", "-c", random_checkpoints["MaskFlownet_S"]]
    line += ["--image_1", inputs / "frames/0.png", "--image_2", inputs / "frames" / name]
    done = python(ROOT / "predict_new_data.py", *line, cwd=tmp_path)
    assert (done.returncode, done.stderr.startswith("error: ")) == (code, code == 2), done.stderr
    assert (tmp_path / "x.png").exists() == (code == 0)


def test_the_help(capsys):
    assert run(predict_new_data.main, []) == 2
    assert "OUTPUT" in capsys.readouterr().err
    with contextlib.suppress(SystemExit):
        run(predict_new_data.main, ["--help"])
    shown = capsys.readouterr().out
    for words in ("--image_1", "--video_filepath", "--resize", "--pad", "--mask", "--max_flow", "1 (white) = visible"):
        assert words in shown
