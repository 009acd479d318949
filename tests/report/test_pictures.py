"""Pictures of a pair for the report, and of a few pairs at every validation of a run, against known values."""

import struct

import numpy as np
import pytest
from maskflownet.engine.contract import ConfidentPrediction, Prediction
from maskflownet.inference.metrics import Measured
from maskflownet.reader.colour import flow_to_colour
from maskflownet.reader.formats import read_image
from maskflownet.reader.sample import Labelled, Sample
from maskflownet.report.pictures import TITLES, UNKNOWN, choose, draw_strip, draw_views, shrink
from maskflownet.training.launch import EngineChoice, train_on
from tensorboardX.proto.event_pb2 import Event

from tests.training_runs import configs_of, options, write_configs
from tests.trees import picture

SIZE = (48, 96)


def pair_of(label, mask=None, occlusion=None, noc=None):
    valid = np.full((*SIZE, 1), 255, np.uint8) if mask is None else mask
    sample = Sample(picture(1, SIZE), picture(2, SIZE), label.astype(np.float32), valid, "a")
    return Labelled(sample, occlusion, noc)


def draw(pair, flow, mask=None, width=768):
    return draw_views(pair, Measured({}, Prediction(flow.astype(np.float32), mask, None)), width)


def random_flow():
    return np.random.default_rng(0).normal(0, 5, (*SIZE, 2))


def test_only_what_is_known_is_drawn():
    label = random_flow()
    views = draw(pair_of(label), label)
    assert list(views.pictures) == ["frame", "flow", "truth", "error"]
    full = Measured({}, ConfidentPrediction(label.astype(np.float32), np.ones((*SIZE, 1)), None, np.zeros((*SIZE, 1))))
    occluded = np.zeros((*SIZE, 1), np.uint8)
    everything = draw_views(pair_of(label, occlusion=occluded), full, 768)
    assert list(everything.pictures) == list(TITLES)
    assert all(p.shape[:2] == SIZE and p.dtype == np.uint8 for p in everything.pictures.values())
    assert (everything.pictures["mask"] == 255).all()
    assert (everything.pictures["confidence"] == 0).all()
    np.testing.assert_array_equal(everything.pictures["frame"], picture(1, SIZE))


def test_flow_and_ground_truth_share_the_scale_of_the_truth():
    label = np.zeros((*SIZE, 2))
    label[..., 0] = 8
    views = draw(pair_of(label), label)
    assert views.max_flow == pytest.approx(8)
    np.testing.assert_array_equal(views.pictures["flow"], views.pictures["truth"])
    half = draw(pair_of(label), label / 2)
    assert half.max_flow == pytest.approx(8)
    np.testing.assert_array_equal(half.pictures["truth"], views.pictures["truth"])
    assert half.pictures["flow"].min() == pytest.approx(127, abs=1)  # half saturated
    assert draw(pair_of(label * 0), label).max_flow == pytest.approx(8)  # a scene at rest
    assert draw(pair_of(label * 0), label * 0).max_flow == 1


def test_the_scale_is_that_of_the_labelled_pixels_less_a_few():
    label = np.full((*SIZE, 2), (3.0, 4.0))
    mask = np.full((*SIZE, 1), 255, np.uint8)
    label[:20], mask[:20] = 1000, 0
    label[-1, :10] = 500  # 10 of 2688 labelled pixels
    assert draw(pair_of(label, mask), label).max_flow == pytest.approx(5)


def test_unknown_pixels_have_their_own_look_and_wild_ones_the_brightest():
    label, mask = np.zeros((*SIZE, 2)), np.full((*SIZE, 1), 255, np.uint8)
    mask[:10] = 0
    flow = np.zeros((*SIZE, 2))
    flow[10:20] = np.nan
    flow[20:30] = 1e6
    views = draw(pair_of(label, mask), flow)
    error, truth = views.pictures["error"], views.pictures["truth"]
    assert (error[:10] == UNKNOWN).all() and (truth[:10] == 0).all()
    assert (error[10:30] == error[10, 0]).all()
    assert error[10, 0].sum() > 500  # near white
    assert (error[30:] < 10).all()  # near black


def test_a_sparse_label_keeps_its_values_and_points_when_it_is_shrunk():
    values, where = np.full((40, 80), 1e3), np.zeros((40, 80), bool)
    values[4::8, 4::8], where[4::8, 4::8] = 7, True
    small, known = shrink(values, (20, 10), where)
    assert small.shape == known.shape == (10, 20)
    assert known.sum() == where.sum()
    np.testing.assert_allclose(small[known], 7, rtol=1e-5)
    assert (small[~known] == 0).all()
    flow, _ = shrink(np.stack([values, -values], axis=2), (20, 10), where)
    np.testing.assert_allclose(flow[known], [(7, -7)] * known.sum(), rtol=1e-5)


def test_occlusion_comes_from_either_label():
    label = random_flow()
    flags = np.zeros((*SIZE, 1), np.uint8)
    flags[:16] = 255
    occluded = draw(pair_of(label, occlusion=flags), label).pictures["occlusion"]
    assert (occluded[:16] == 0).all() and (occluded[16:] == 255).all()
    mask = np.full((*SIZE, 1), 255, np.uint8)
    mask[40:] = 0
    visible = draw(pair_of(label, mask, noc=flags), label).pictures["occlusion"]
    assert (visible[:16] == 255).all() and (visible[16:40] == 0).all() and (visible[40:] == UNKNOWN).all()


def grey_pair(size):
    """A picture of one grey, whose label is 8 px to the right everywhere."""
    image = np.full((*size, 3), 90, np.uint8)
    flow, valid = np.full((*size, 2), (8, 0), np.float32), np.full((*size, 1), 255, np.uint8)
    return Labelled(Sample(image, image, flow, valid, "scene/frame_0001"))


@pytest.mark.parametrize(
    ("sizes", "count", "chosen"),
    [
        ({"a": 100}, 4, {"a": [0, 25, 50, 75]}),
        ({"a": 100, "b": 10, "c": 10}, 4, {"a": [0, 50], "b": [0], "c": [0]}),
        ({"a": 1, "b": 3}, 10, {"a": [0], "b": [0, 1, 2]}),
        ({"a": 100, "b": 10}, 1, {"a": [0]}),
        ({"a": 100}, 0, {}),
    ],
)
def test_pairs_are_dealt_out_over_the_sets(sizes, count, chosen):
    assert choose({name: range(size) for name, size in sizes.items()}, count) == chosen


def test_a_strip_shows_frame_flow_truth_error_and_mask_on_the_scale_of_the_truth():
    pair = grey_pair((64, 256))
    flow = pair.sample.flow * [0.5, 1]

    def measured(flow, epe):
        return Measured({"epe": (epe * 64 * 256, 64 * 256)}, Prediction(flow, np.full((64, 256, 1), 0.25, "f4"), None))

    strip = draw_strip(pair, measured(flow, 4), "step 3")
    assert strip.shape == (64 + 40, 5 * 256 + 4 * 4, 3)
    centres = [strip[20 + 32, i * 260 + 128] for i in range(5)]
    one = np.ones((1, 1, 2), np.float32) * [1, 0]
    assert (centres[0] == 90).all()
    assert (centres[1] == flow_to_colour(4 * one, 8)[0, 0]).all()
    assert (centres[2] == flow_to_colour(8 * one, 8)[0, 0]).all()
    assert centres[3][0] > centres[3][1]  # 4 px of 100: reddish
    assert (centres[4] == 64).all()
    text = strip[-20:]
    assert (text < 100).sum() > 500  # ink
    worse = measured(flow, 9)
    others = draw_strip(pair, worse, "step 3")
    assert (others[:-20] == strip[:-20]).all()
    assert (others[-20:] != text).any()  # its EPE is another


def test_small_pictures_grow_large_ones_shrink_and_a_missing_mask_is_left_out():
    for size, shown in (((32, 48), (96, 144)), ((540, 960), (144, 256)), ((512, 256), (512, 256))):
        pair = grey_pair(size)
        strip = draw_strip(pair, Measured({"epe": (1.0, 1)}, Prediction(pair.sample.flow, None, None)), "")
        height, width = shown
        assert strip.shape == (height + 40, 4 * width + 3 * 4, 3)


def events(folder):
    """The events of TensorBoard's only file: a length, its checksum, the event, its checksum."""
    (path,) = folder.iterdir()
    data, position = path.read_bytes(), 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        yield Event.FromString(data[position + 12 : position + 12 + length])
        position += length + 16


def test_a_training_run_draws_at_every_validation(tmp_path):
    write_configs(tmp_path, validation=["synthetic"], validation_steps=2)
    run = "abcJan01-0000"
    train_on(EngineChoice(), *configs_of(tmp_path), None, options(tmp_path, steps=3, run=run))
    names = [f"synthetic.val_{i:04d}_{step:07d}.jpg" for i in (0, 1) for step in (2, 3)]
    folder = tmp_path / f"logs/{run}.samples"
    assert sorted(path.name for path in folder.iterdir()) == names
    before, after = (read_image(folder / name).astype(int) for name in names[:2])
    tile = slice(20, -20), slice(0, 144)  # of 160x144 px, less the edge, where JPEG mixes in the flow beside it
    assert np.abs(before[tile] - after[tile]).max() < 8  # the frame is the same
    flow = slice(20, -20), slice(164, 324)
    assert (before[flow] != after[flow]).any()
    images = {
        (value.tag, event.step): value.image
        for event in events(tmp_path / f"logs/{run}.tensorboard")
        for value in event.summary.value
        if value.HasField("image")
    }
    assert set(images) == {(f"synthetic.val/{i}", step) for i in (0, 1) for step in (2, 3)}
    image = images["synthetic.val/0", 3]
    assert image.encoded_image_string == (folder / names[1]).read_bytes()
    assert (image.height, image.width) == after.shape[:2]
