"""Both years of KITTI, and HD1K."""

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.kitti import HD1K, VAL, Kitti, Kitti2015

from tests import trees


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.make_kitti(tmp_path_factory.mktemp("kitti"), {2012: 194, 2015: 200}, test=3)


@pytest.mark.parametrize(("year", "count", "val"), [(2012, 194, (39, 0, 190, 3684)), (2015, 200, (40, 10, 199, 3594))])
def test_yields_194_and_200_with_the_documented_validation_pairs(root, year, count, val):
    numbers = {
        split: [int(pair.name.split("/")[1]) for pair in Kitti(root, split, (year,)).pairs]
        for split in ("train", "val", "all")
    }
    assert numbers["all"] == list(range(count))
    assert tuple(numbers["val"]) == VAL[year]
    assert (len(VAL[year]), VAL[year][0], VAL[year][-1], sum(VAL[year])) == val
    assert sorted(numbers["train"] + numbers["val"]) == numbers["all"]


@pytest.mark.parametrize("year", [2012, 2015])
def test_reads_the_pictures_and_the_label_of_the_pair(root, year):
    dataset = Kitti(root, "all", (year,))
    for k in range(0, len(dataset), 31):
        sample = dataset[k]
        size = (trees.SIZE[0] + k % 2, trees.SIZE[1] + k % 3)
        seed = k % 20 + 400 * (year == 2015)
        assert sample.name == f"{year}/{k:06d}"
        np.testing.assert_array_equal(sample.mask, trees.holes(size))
        valid = sample.mask[..., 0] > 0
        np.testing.assert_array_equal(sample.flow[valid], trees.flow(k, size)[valid])
        np.testing.assert_array_equal(dataset.labelled(k).noc, trees.holes(size, 2))
        np.testing.assert_array_equal(sample.img1, trees.picture(seed, size))
        np.testing.assert_array_equal(sample.img2, trees.picture(seed + 100, size))


@pytest.mark.parametrize("year", [2012, 2015])
def test_test_images_come_from_testing(root, year):
    dataset = Kitti(root, "test", (year,))
    assert [pair.name for pair in dataset.pairs] == [f"{year}/{k:06d}" for k in range(3)]
    assert all("testing" in path and "training" not in path for p in dataset.pairs for path in p[1:3])
    sample = dataset[1]
    size = (trees.SIZE[0] + 1, trees.SIZE[1] + 1)
    np.testing.assert_array_equal(sample.img1, trees.picture(201 + 400 * (year == 2015), size))
    assert sample.flow is None
    assert dataset.labelled(1).noc is None


def test_years_mixed_in_one_folder_are_an_error(tmp_path):
    for images in ("colored_0", "image_2"):
        (tmp_path / "training" / images).mkdir(parents=True)
    with pytest.raises(UserError, match="mixes"):
        Kitti2015(tmp_path)


def names(dataset):
    return [pair.name for pair in dataset.pairs]


def test_pairs_of_hd1k_are_neighbours_inside_a_sequence(tmp_path):
    dataset = HD1K(trees.make_hd1k(tmp_path), "all")
    assert names(dataset) == [
        *("000000_0000", "000000_0001", "000000_0002"),
        *("000004_0000", "000005_0000", "000005_0001", "000006_0000"),
    ]
    assert dataset.left_out == 4
    for sample in dataset:
        sequence, frame = map(int, sample.name.split("_"))
        np.testing.assert_array_equal(sample.img1, trees.picture(sequence + frame))
        np.testing.assert_array_equal(sample.img2, trees.picture(sequence + frame + 1))
        np.testing.assert_array_equal(sample.mask, trees.holes())
        assert tuple(sample.flow[-1, -1]) == trees.label(sequence + frame)


def test_the_validation_sequence_of_hd1k_is_not_in_training(tmp_path):
    root = trees.make_hd1k(tmp_path)
    train, val = HD1K(root, "train"), HD1K(root, "val")
    assert names(val) == ["000005_0000", "000005_0001"]
    assert sorted(names(train) + names(val)) == names(HD1K(root, "all"))
    assert not any(name.startswith("000005") for name in names(train))
    assert (train.left_out, val.left_out) == (3, 1)


def test_the_labels_of_last_frames_of_hd1k_may_be_absent(tmp_path):
    root = trees.make_hd1k(tmp_path, {0: 3})
    (root / "hd1k_flow_gt" / "flow_occ" / "000000_0002.png").unlink()
    dataset = HD1K(root)
    assert (len(dataset), dataset.left_out) == (2, 0)
