"""The Python API: arrays in, arrays out, one pair, a batch or a stream, with and without confidence."""

import importlib.util

import numpy as np
import pytest
from maskflownet.engine.contract import OutOfMemory
from maskflownet.errors import UserError
from maskflownet.inference.confidence import consistency
from maskflownet.inference.metrics import means, measure
from maskflownet.inference.predictor import Predictor, load
from maskflownet.reader.formats import read_flow, write_image
from maskflownet.settings.folders import ROOT
from numpy.testing import assert_allclose
from PIL import Image

from tests.known_engine import KnownEngine


@pytest.fixture(scope="module", params=["mxnet", "torch"])
def predictor(request, random_checkpoints):
    if not importlib.util.find_spec(request.param):
        pytest.skip(f"{request.param} is not installed")
    return load("MaskFlownet_S", str(random_checkpoints["MaskFlownet_S"]), batch=2, engine=request.param)


def image(seed, height=64, width=80):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_a_pair_and_a_batch_with_and_without_confidence(predictor):
    images = image(0), image(1)
    plain, backward = predictor(*images), predictor(*images[::-1])
    assert [array.shape for array in plain] == [(64, 80, 2), (64, 80, 1), (64, 80, 3)]
    found = predictor(*images, confidence=True)
    many = predictor(*(np.stack([i, image(s)]) for s, i in enumerate(images, 2)), confidence=True)
    assert [array.shape for array in many] == [(2, 64, 80, channels) for channels in (2, 1, 3, 1)]
    for array, expected, of_batch in zip(found, plain, many):
        assert_allclose(array, expected, rtol=0, atol=1e-3)
        assert_allclose(of_batch[0], expected, rtol=0, atol=1e-3)
    expected = consistency(plain.flow, backward.flow)
    assert found.confidence.dtype == np.float32 and expected.std() > 0.02
    assert_allclose(found.confidence[..., 0], expected, rtol=0, atol=5e-3)
    assert_allclose(many.confidence[0], found.confidence, rtol=0, atol=5e-3)


def test_a_stream_keeps_its_order_mixes_no_sizes_and_holds_no_more_than_its_batch():
    taken = []

    def pairs():
        for i, size in enumerate([64, 64, 64, 65, 64]):
            taken.append(i)
            yield image(i, size, 8), image(i, size, 8)

    engine = KnownEngine(lambda image_1, _: image_1[..., :2])
    for number, prediction in enumerate(Predictor(engine, batch=2).stream(pairs(), confidence=True), 1):
        assert len(taken) <= number + 2
        np.testing.assert_array_equal(prediction.flow, image(number - 1, len(prediction.flow), 8)[..., :2])
    # Each batch holds its pairs and their swaps.
    assert [shape[:2] for shape, _ in engine.calls] == [(4, 64), (2, 64), (2, 65), (2, 64)]


@pytest.mark.parametrize("asked", [None, 4])
def test_a_batch_that_nobody_asked_for_is_halved_until_it_fits(asked):
    class Small(KnownEngine):
        batch_pixels = 8 * 64 * 80

        def submit(self, image_1, *others, **options):
            result = super().submit(image_1, *others, **options)
            if len(image_1) > 2:
                raise OutOfMemory("too little memory")
            return result

    engine = Small(lambda image_1, _: image_1[..., :2])
    stream = Predictor(engine, batch=asked).stream((image(i), image(i)) for i in range(10))
    if asked:
        with pytest.raises(UserError, match="too little"):
            list(stream)
        return
    for i, prediction in enumerate(stream):
        assert (prediction.flow == image(i)[..., :2]).all()
    assert [shape[0] for shape, _ in engine.calls] == [8, 4, 2, 2, 4, 2, 2, 2]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (image(0), image(0, 65), "differ in shape"),
        (image(0).astype("f4"), image(0), "not float32"),
        (image(0)[..., :2], image(0)[..., :2], "a picture is"),
        (image(0)[:0], image(0)[:0], "is empty"),
    ],
)
def test_wrong_arrays_and_an_empty_batch_are_one_sentence(first, second, message):
    predictor = Predictor(KnownEngine(None))
    with pytest.raises(UserError, match=message):
        predictor(first, second)
    with pytest.raises(UserError, match=message):
        list(predictor.stream([(first, second)]))
    with pytest.raises(UserError, match="at least one pair"):
        Predictor(KnownEngine(None), batch=0)


def test_pairs_and_streams_take_every_kind_of_picture(tmp_path):
    """What the engine gets is what it gets of the array."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pair, paths = [image(0), image(1)], [tmp_path / "0.png", tmp_path / "1.png"]
    for path, array in zip(paths, pair):
        write_image(path, array)
    predictor = Predictor(KnownEngine(lambda image_1, image_2: image_2[..., :2].astype(float) - image_1[..., :2]))
    expected = predictor(*pair).flow
    for given in (paths, [*map(Image.fromarray, pair)], [*map(torch.from_numpy, pair)]):
        for found in (predictor(*given), next(predictor.stream([given]))):
            np.testing.assert_array_equal(found.flow, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": 99}, "-g 99 needs CUDA|no GPU 99"),  # a number, too
        ({"precision": "fp8"}, "no precision fp8: there are float32, tf32, bf16"),
        ({"colour": "rgb"}, "is RGB or BGR, not rgb"),
    ],
)
def test_wrong_options_are_one_sentence(options, message):
    with pytest.raises(UserError, match=message):
        load("MaskFlownet_S", **options)


def test_a_file_without_record_is_taken_for_one_of_the_authors_aloud(random_checkpoints, capsys):
    """As shipped weights copied without theirs would give a worse flow and no error."""
    path = random_checkpoints["MaskFlownet"]
    load("MaskFlownet", str(path))
    said = capsys.readouterr().err
    assert f"no record beside {path}" in said and said.count("\n") == 2
    assert "on the CPU (no -g), float32\n" in said


@pytest.mark.parametrize(
    ("engine", "network", "epe"),
    [("mxnet", "MaskFlownet", 1.354), ("torch", "MaskFlownet", 1.354), ("torch", "MaskFlownet_S", 1.410)],
)
def test_the_shipped_weights_are_as_good_as_they_were(engine, network, epe):
    """On the example pair, whose motion is 8.56 px on average, by the whole network and its first stage alone."""
    pytest.importorskip("maskflownet.network.compat" if engine == "mxnet" else "torch")
    found = load(network, engine=engine)(*(ROOT / f"examples/example_{i}.png" for i in (1, 2)))
    measures = means(measure(found.flow, *read_flow(ROOT / "examples/example_flow.png")))
    assert measures["epe"] == pytest.approx(epe, abs=0.01)
