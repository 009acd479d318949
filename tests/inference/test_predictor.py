"""The Python API: arrays in, arrays out, and streams that mix no sizes."""

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.inference.predictor import Predictor, batches
from numpy.testing import assert_allclose


@pytest.fixture(scope="module")
def predictor(random_checkpoints):
    return Predictor.load("MaskFlownet_S", str(random_checkpoints["MaskFlownet_S"]), batch=2)


def image(seed, height=64, width=80):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_a_pair_and_a_batch(predictor):
    flow, mask, warped = predictor(image(0), image(1))
    assert (flow.shape, mask.shape, warped.shape) == ((64, 80, 2), (64, 80, 1), (64, 80, 3))
    stacked = [np.stack([image(0), image(2)]), np.stack([image(1), image(3)])]
    many = predictor(*stacked)
    assert many.flow.shape == (2, 64, 80, 2)
    assert_allclose(many.flow[0], flow, rtol=0, atol=1e-4)


def test_a_stream_keeps_the_order_across_sizes(predictor):
    sizes = [(64, 80), (64, 80), (64, 80), (96, 64), (64, 80)]
    pairs = [(image(2 * i, *s), image(2 * i + 1, *s)) for i, s in enumerate(sizes)]
    streamed = list(predictor.stream(iter(pairs)))
    assert len(streamed) == len(pairs)
    for pair, prediction in zip(pairs, streamed):
        assert_allclose(prediction.flow, predictor(*pair).flow, rtol=0, atol=1e-4)


def test_batches_mix_no_sizes_and_hold_no_more_than_asked_for():
    taken = []

    def pairs():
        for i, size in enumerate([64, 64, 64, 65, 64]):
            taken.append(i)
            yield image(i, size, 8), image(i, size, 8)

    shapes = []
    for first, _ in batches(pairs(), 2):
        shapes.append(first.shape[:2])
        assert len(taken) <= sum(n for n, _ in shapes) + 1
    assert shapes == [(2, 64), (1, 64), (1, 65), (1, 64)]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (image(0), image(0, 65), "differ in shape"),
        (image(0).astype("f4"), image(0), "not float32"),
        (image(0)[..., 0], image(0)[..., 0], "must be uint8 RGB arrays"),
        (image(0)[:0], image(0)[:0], "are empty"),
    ],
)
def test_wrong_arrays_are_one_sentence(predictor, first, second, message):
    with pytest.raises(UserError, match=message):
        predictor(first, second)


def test_batch_of_nothing_is_refused():
    with pytest.raises(UserError, match="at least one pair"):
        Predictor.load("MaskFlownet_S", "any", batch=0)


def test_prototype_on_middlebury(shared):
    """The EPE that the prototype's README states, through the whole path of a user's pair."""
    from maskflownet.inference.metrics import measure  # noqa: PLC0415
    from maskflownet.reader.formats import read_flow  # noqa: PLC0415
    from maskflownet.reader.pictures import read_image  # noqa: PLC0415

    predictor = Predictor.load("MaskFlownet_S", str(shared / "weights/prototype_S.params"))
    stated = {"RubberWhale": 0.97, "Grove2": 0.93, "Urban2": 1.87, "Venus": 1.28}
    for name, expected in stated.items():
        folder = shared / "data/pairs/middlebury" / name
        images = (read_image(folder / f"frame1{i}.png") for i in (0, 1))
        total, count = measure(predictor(*images).flow, *read_flow(folder / "flow10.flo"))["epe"]
        assert total / count == pytest.approx(expected, abs=0.01), name


@pytest.mark.parametrize(("network", "noted"), [("MaskFlownet", True), ("MaskFlownet_S", False)])
def test_a_file_without_record_is_taken_for_one_of_the_authors_aloud(random_checkpoints, capsys, network, noted):
    """As shipped weights copied without theirs would give a worse flow and no error."""
    path = random_checkpoints["MaskFlownet"]
    Predictor.load(network, str(path))
    said = capsys.readouterr().err
    assert (f"no record beside {path}" in said) == noted
    assert said.count("\n") == noted
