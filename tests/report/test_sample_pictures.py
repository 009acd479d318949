"""Pictures of validation pairs while a run is trained."""

import struct

import numpy as np
import pytest
from maskflownet.engine.contract import Prediction
from maskflownet.errors import UserError
from maskflownet.inference.metrics import Labelled, Measured
from maskflownet.reader.colour import flow_to_colour
from maskflownet.reader.formats import read_image
from maskflownet.reader.sample import Sample
from maskflownet.report.pictures import SamplePictures, choose, draw_strip
from maskflownet.settings.datasets import load_data_config
from tensorboardX.proto.event_pb2 import Event

from tests.known_engine import KnownEngine, validated
from tests.training_runs import train_in, write_configs


def make_pair(size=(64, 256), speed=8.0, mask=None):
    """A picture of one grey, whose label is `speed` px to the right everywhere."""
    img = np.full((*size, 3), 90, np.uint8)
    flow = np.zeros((*size, 2), np.float32)
    flow[..., 0] = speed
    return Labelled(Sample(img, img, flow, mask, "scene/frame_0001"))


def measured(pair, flow, mask=None, epe=(1.0, 1)):
    if mask is not None:
        mask = np.full((*flow.shape[:2], 1), mask, np.float32)
    return Measured({"epe": epe}, Prediction(flow, mask, None))


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
    pair = make_pair()
    flow = pair.sample.flow * [0.5, 1]
    strip = draw_strip(pair, measured(pair, flow, 0.25, (4 * 64 * 256, 64 * 256)), "step 3")
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
    worse = measured(pair, flow, 0.25, (9 * 64 * 256, 64 * 256))
    others = draw_strip(pair, worse, "step 3")
    assert (others[:-20] == strip[:-20]).all()
    assert (others[-20:] != text).any()  # its EPE is another


def test_small_pictures_grow_large_ones_shrink_and_a_missing_mask_is_left_out():
    for size, shown in (((32, 48), (96, 144)), ((540, 960), (144, 256)), ((512, 256), (512, 256))):
        pair = make_pair(size)
        strip = draw_strip(pair, measured(pair, pair.sample.flow), "")
        height, width = shown
        assert strip.shape == (height + 40, 4 * width + 3 * 4, 3)


def test_labels_without_a_valid_pixel_and_flows_that_are_no_number_are_drawn():
    unknown = np.zeros((64, 256, 1), np.uint8)
    for mask in (None, unknown):
        pair = make_pair(mask=mask)
        flow = np.full_like(pair.sample.flow, np.nan)
        assert draw_strip(pair, measured(pair, flow, 1, (0.0, 0)), "").any()


class Moving:
    """Labelled pairs of distinct grey levels."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        pair = make_pair((64, 128), speed=index + 1)
        image = np.full((64, 128, 3), 50 * index, np.uint8)
        return pair.sample._replace(img1=image, img2=image)

    occlusion = noc = lambda self, index: None


def test_a_validation_draws_what_was_chosen_without_predicting_twice(tmp_path):
    dataset = Moving()
    engine = KnownEngine.of_labels(dataset, offset=(3, 4))
    shown = []
    pictures = SamplePictures(tmp_path / "run.samples", 2500, {"s": [0, 2]}, lambda *args: shown.append(args))
    totals = validated(engine, {"s": dataset, "t": dataset}, batch=2, watcher=pictures).totals
    assert totals["s"]["epe"] == 5
    assert sum(shape[0] for shape, _ in engine.calls) == 6
    files = sorted((tmp_path / "run.samples").iterdir())
    assert [path.name for path in files] == ["s_0000_0002500.jpg", "s_0002_0002500.jpg"]
    for path, level in zip(files, (0, 100)):
        assert abs(int(read_image(path)[52, 64, 0]) - level) < 5
    assert [(name, step) for name, _, step in shown] == [("s/0", 2500), ("s/2", 2500)]
    assert shown[0][1] == files[0].read_bytes()


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
    train_in(tmp_path, steps=3, run=run)
    names = [f"synthetic.val_{i:04d}_{step:07d}.jpg" for i in (0, 1) for step in (2, 3)]
    folder = tmp_path / f"logs/{run}.samples"
    assert sorted(path.name for path in folder.iterdir()) == names
    before, after = (read_image(folder / name).astype(int) for name in names[:2])
    tile = slice(20, -20), slice(0, 160)  # 80x72 px, enlarged twice
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


def test_no_pictures_where_none_are_wanted(tmp_path):
    write_configs(tmp_path, validation=["synthetic"], validation_steps=1, validation_samples=0)
    train_in(tmp_path, steps=1, run="abcJan01-0000")
    assert not (tmp_path / "logs/abcJan01-0000.samples").exists()
    write_configs(tmp_path, validation_samples=-1)
    with pytest.raises(UserError, match="validation_samples"):
        load_data_config(tmp_path / "data.yaml")


def test_the_torch_engine_draws_the_same(tmp_path):
    pytest.importorskip("torch")
    from tests.torch_runs import train_torch_in  # noqa: PLC0415

    write_configs(
        tmp_path, validation=["synthetic"], validation_samples=1, augmentation=None,
        orig_shape=[64, 64],
    )  # fmt: skip
    pictures = []
    train_torch_in(tmp_path, steps=1, run="one")
    train_in(tmp_path, steps=1, run="two")
    for run in ("one", "two"):
        (path,) = (tmp_path / f"logs/{run}.samples").iterdir()
        assert path.name == "synthetic.val_0000_0000001.jpg"
        pictures.append(read_image(path).astype(int))
    # Both began with parameters of their own: frame and truth are equal.
    frame, truth = slice(0, 160), slice(328, 488)
    for tile in (frame, truth):
        assert np.abs(pictures[0][20:-20, tile] - pictures[1][20:-20, tile]).mean() < 3
    flow = slice(164, 324)
    assert np.abs(pictures[0][20:-20, flow] - pictures[1][20:-20, flow]).mean() > 3
