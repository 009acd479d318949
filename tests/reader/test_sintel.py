"""MPI Sintel and its split."""

from collections import Counter

import numpy as np
import pytest
from maskflownet.reader.sintel import Sintel

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
    mask, occlusion = dataset[3].mask, dataset.occlusion(3)
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
    assert Sintel(root, "all").occlusion(0) is None
