"""MPI Sintel and its split, and Spring."""

import shutil
from collections import Counter

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.films import Sintel, Spring

from tests import trees

VAL = {"ambush_2", "ambush_6", "bamboo_2", "cave_4", "market_6", "temple_2"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.make_sintel(tmp_path_factory.mktemp("sintel"))


def sequences(dataset):
    return Counter(pair.name.split("/")[1] for pair in dataset.pairs)


@pytest.mark.parametrize("render", ["clean", "final"])
def test_val_is_the_six_documented_sequences(root, render):
    train, val = Sintel(root, "train", (render,)), Sintel(root, "val", (render,))
    assert (len(train), len(val)) == (816, 225)
    pairs = {name: count - 1 for name, count in trees.SINTEL_FRAMES.items()}
    assert sequences(val) == {name: pairs[name] for name in VAL}
    assert sequences(train) == {name: n for name, n in pairs.items() if name not in VAL}
    names = [pair.name for pair in Sintel(root, "all", (render,)).pairs]
    assert len(names) == 1041 and names == sorted(names)
    assert [len(Sintel(root, split)) for split in (None, "all")] == [2 * 816, 2 * 1041]  # both passes by default


def test_reads_the_pictures_and_the_label_of_the_pair(root):
    order = sorted(trees.SINTEL_FRAMES)
    dataset = Sintel(root, "all")
    for index in range(0, len(dataset), 97):
        sample = dataset[index]
        render, sequence, frame = sample.name.split("/")
        number = order.index(sequence) + int(frame[-4:])
        start = 100 * (render == "final")
        np.testing.assert_array_equal(sample.img1, trees.picture(number % 20 + start))
        np.testing.assert_array_equal(sample.img2, trees.picture((number + 1) % 20 + start))
        np.testing.assert_array_equal(sample.flow, trees.flow(number))


def test_invalid_and_occlusion_masks_are_told_apart(root):
    dataset = Sintel(root, "val", ("final",))
    height = trees.SIZE[0]
    mask, occlusion = dataset[3].mask, dataset.labelled(3).occlusion
    np.testing.assert_array_equal(mask, trees.holes())
    assert occlusion.shape == (*trees.SIZE, 1)
    assert (occlusion[: height // 2] == 255).all()
    assert (occlusion[height // 2 :] == 0).all()


def test_test_images_come_from_test_and_have_no_label(root):
    dataset = Sintel(root, "test")
    names = ["ambush_1/frame_0001", "ambush_1/frame_0002", "wall/frame_0001"]
    assert [pair.name for pair in dataset.pairs] == [
        f"{render}/{name}" for render in ("clean", "final") for name in names
    ]
    sample = dataset[1]
    assert sample.flow is None
    assert sample.mask is None
    np.testing.assert_array_equal(sample.img1, trees.picture(50 % 20 + 2))
    np.testing.assert_array_equal(sample.img2, trees.picture(50 % 20 + 3))


def test_occlusions_may_be_missing(tmp_path):
    root = trees.make_sintel(tmp_path, {"alley_1": 3}, occlusions=False)
    assert Sintel(root, "all").labelled(0).occlusion is None


@pytest.fixture
def spring(tmp_path):
    return trees.make_spring(tmp_path)


def test_partner_and_label_follow_direction_and_camera(spring):
    dataset = Spring(spring)
    assert len(dataset) == 4 * 2 * 2  # versions, sequences, pairs
    assert len({pair.name for pair in dataset.pairs}) == len(dataset)
    for sample in dataset:
        sequence, version, file = sample.name.split("/")
        number, right, back = int(file[-4:]), 100 * version.endswith("right"), "BW" in version
        seed = 10 * int(sequence) + number + right
        np.testing.assert_array_equal(sample.img1, trees.picture(seed))
        np.testing.assert_array_equal(sample.img2, trees.picture(seed - 1 if back else seed + 1))
        np.testing.assert_array_equal(sample.mask, trees.holes())
        flow = trees.flow(number + 10 * back)
        np.testing.assert_array_equal(sample.flow, np.where(sample.mask > 0, flow, 0))
        np.testing.assert_array_equal(
            sample.fine[0][-2:, -2:].reshape(4, 2) - flow[0, 0], [[0, 0], [1, 0], [0, 1], -flow[0, 0]]
        )
        assert sample.fine[1][-2:, -2:].ravel().tolist() == [255, 255, 255, 0]


def test_springs_test_images_have_no_labels(spring):
    dataset = Spring(spring, "test", ("BW_left",))
    assert [pair.name for pair in dataset.pairs] == [f"0003/flow_BW_left/flow_BW_left_{n:04d}" for n in (2, 3)]
    assert dataset[0].flow is dataset[0].fine is None
    np.testing.assert_array_equal(dataset[0].img2, trees.picture(31))


def test_versions_that_a_root_lacks(spring):
    shutil.rmtree(spring / "test")
    for sequence in (spring / "train").iterdir():
        shutil.rmtree(sequence / "frame_right")
        shutil.rmtree(sequence / "flow_BW_left")
    lost = {version: Spring.lacks(spring, "all", version) for version in Spring.versions}
    assert lost["FW_left"] is None
    assert "no flow_BW_left" in lost["BW_left"] and "no frame_right" in lost["FW_right"]
    assert Spring.lacks(spring, "test", "FW_left")
    assert len(Spring(spring, "all", ("FW_left",))) == 4
    with pytest.raises(UserError, match="frame_right is not a folder"):
        Spring(spring)


def test_a_label_of_the_images_own_size_is_an_error(spring):
    path = spring / "train/0001/flow_FW_left/flow_FW_left_0001.flo5"
    trees.write_flow(path, trees.flow(1))
    with pytest.raises(UserError, match="64x128 .HxW. where .* is 64x128, not 2 times the size"):
        Spring(spring)[0]
