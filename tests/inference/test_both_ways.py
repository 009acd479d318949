"""Confidence from Python and from files: both directions in one batch, with both engines."""

import importlib.util

import numpy as np
import pytest
from maskflownet.inference.confidence import consistency
from maskflownet.inference.outputs import check_outputs, predict_files
from maskflownet.inference.predictor import Predictor
from maskflownet.inference.sources import Folder
from maskflownet.reader.formats import read_pfm
from maskflownet.reader.pictures import read_image, read_mask, write_image
from maskflownet.reader.video import VideoReader
from maskflownet.settings.cli import run

import predict_new_data
from tests.known_engine import KnownEngine

ENGINES = ["mxnet", "torch"]
SIZE = (50, 70)


def image(seed, height=64, width=80):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module", params=ENGINES)
def predictor(request, random_checkpoints):
    if not importlib.util.find_spec(request.param):
        pytest.skip(f"{request.param} is not installed")
    checkpoint = str(random_checkpoints["MaskFlownet_S"])
    return Predictor.load("MaskFlownet_S", checkpoint, batch=2, engine=request.param)


def test_a_pair_and_a_batch(predictor):
    """The same as predicting each direction by itself."""
    images = image(0), image(1)
    plain, backward = predictor(*images), predictor(*images[::-1])
    assert len(plain) == 3
    found = predictor(*images, confidence=True)
    for array, expected in zip(found, plain):
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-3)
    flow, _, _, confidence = found
    assert (confidence.shape, confidence.dtype) == ((64, 80, 1), np.float32)
    expected = consistency(plain.flow, backward.flow).confidence
    assert expected.std() > 0.05
    np.testing.assert_allclose(confidence[..., 0], expected, rtol=0, atol=5e-3)
    many = predictor(*(np.stack([i, image(s)]) for s, i in enumerate(images, 2)), confidence=True)
    assert [array.shape[-1] for array in many] == [2, 1, 3, 1]
    np.testing.assert_allclose(many.confidence[0], confidence, rtol=0, atol=5e-3)


def brightness(image_1, image_2):
    """Flow (u, 0) of as many px as image 2 is brighter."""
    flow = np.zeros((*image_1.shape[:2], 2), np.float32)
    flow[..., 0] = image_2[0, 0, 0].astype(float) - image_1[0, 0, 0]
    return flow


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "frames").mkdir()
    for i, grey in enumerate((10, 13, 18, 20)):
        write_image(tmp_path / f"frames/{i}.png", np.full((*SIZE, 3), grey, np.uint8))
    return Folder(tmp_path / "frames")


def test_a_stream_predicts_both_directions_of_a_batch_at_once(folder):
    engine = KnownEngine(brightness)
    predictions = list(Predictor(engine, batch=2).stream(folder.pairs(), confidence=True))
    assert [shape for shape, _ in engine.calls] == [(4, *SIZE, 3), (2, *SIZE, 3)]
    for prediction, step in zip(predictions, (3, 5, 2)):
        assert (prediction.flow[..., 0] == step).all()
        assert (prediction.confidence[:, :-step] == 1).all()
        assert (prediction.confidence[:, -step:] == 0).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".npy", ".npz", ".pfm"])
def test_files_of_a_folder(folder, tmp_path, suffix):
    names = tmp_path / "f_%d.flo", tmp_path / f"c_%d{suffix}"
    outputs = check_outputs(folder, names[0], confidence=names[1])
    engine = KnownEngine(brightness)
    predict_files(Predictor(engine, batch=3), folder, outputs)
    assert [shape[0] for shape, _ in engine.calls] == [6]
    for number, step in enumerate((3, 5, 2), 1):
        path = tmp_path / f"c_{number}{suffix}"
        if suffix in {".png", ".jpg"}:
            values = read_mask(path)[..., 0] / 255
        elif suffix == ".pfm":
            values = read_pfm(path)
        else:
            stored = np.load(path)
            values = (stored["confidence"] if suffix == ".npz" else stored)[..., 0]
        expected = np.ones(SIZE)
        expected[:, -step:] = 0
        np.testing.assert_allclose(values, expected, atol=0.1 if suffix == ".jpg" else 0)


def test_a_video(folder, tmp_path):
    names = tmp_path / "f.mp4", tmp_path / "c.mp4"
    outputs = check_outputs(folder, names[0], confidence=names[1])
    predict_files(Predictor(KnownEngine(brightness)), folder, outputs, 9, 20)
    video = VideoReader(names[1])
    assert (video.height, video.width, video.count()) == (*SIZE, 3)
    (frame, *_) = video
    assert frame[:, :60].min() > 200
    assert frame[:, -2:].max() < 50


def test_the_program(random_checkpoints, tmp_path, capsys):
    for i in (0, 1):
        write_image(tmp_path / f"{i}.png", image(i, *SIZE))
    line = [str(tmp_path / "x.flo"), "MaskFlownet_S", "-c", str(random_checkpoints["MaskFlownet_S"])]
    line += ["--image_1", f"{tmp_path}/0.png", "--image_2", f"{tmp_path}/1.png", "--pad"]
    assert run(predict_new_data.main, [*line, "--confidence", f"{tmp_path}/c.png"]) == 0
    assert "c.png" in capsys.readouterr().out
    assert read_image(tmp_path / "c.png").shape == (*SIZE, 3)
    assert run(predict_new_data.main, [*line, "--confidence", f"{tmp_path}/c.flo"]) == 2
    assert "suffix of the confidence is one of" in capsys.readouterr().err
    assert run(predict_new_data.main, [*line, "--confidence", f"{tmp_path}/x.flo"]) == 2
