"""Folders of a user's own pairs."""

from collections import Counter

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.pairs import Pairs

from tests import trees

NAMES = ["flat/a", "flat/b", "kitti", "middlebury/Grove2", "middlebury/Venus", "own"]


def test_every_kind_of_folder(tmp_path):
    dataset = Pairs(trees.make_pairs(tmp_path), "test")
    assert [pair.name for pair in dataset.pairs] == NAMES
    for k, sample in enumerate(dataset):
        np.testing.assert_array_equal(sample.img1, trees.picture(2 * k))
        np.testing.assert_array_equal(sample.img2, trees.picture(2 * k + 1))
        if sample.name == "own":
            assert sample.flow is None
        else:
            np.testing.assert_array_equal(sample.flow, trees.flow(k))
    np.testing.assert_array_equal(dataset.labelled(2).noc, trees.holes())


def test_a_root_may_be_one_pair_and_a_middlebury_sequence_of_eight_frames(tmp_path):
    folder = trees.make_pairs(tmp_path) / "middlebury" / "Venus"
    for number in (7, 8, 9, 12, 13, 14):
        trees.Writer().picture(folder / f"frame{number:02d}.png", number)
    with pytest.warns(UserWarning, match="6 files or folders .*: frame07.png, frame08.png, frame09.png and 3 more$"):
        (pair,) = Pairs(folder, "test").pairs
    assert (pair.name, pair.img1[-11:], pair.img2[-11:]) == ("Venus", "frame10.png", "frame11.png")


@pytest.mark.parametrize(
    "name", ["kitti/flow_vis.png", "own/flow_vis.jpg", "own/flower.npy", "flat/a_flow_vis.png", "labels/flow.flo"]
)
def test_what_is_left_out_is_counted_and_named(tmp_path, name):
    trees.make_pairs(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.warns(UserWarning, match=f"{tmp_path}: 1 files or folders are left out: {name}$"):
        dataset = Pairs(tmp_path, "test")
    assert [pair.name for pair in dataset.pairs] == NAMES
    np.testing.assert_array_equal(dataset[2].flow, trees.flow(2))  # KITTI's PNG is a label all the same


def test_a_flower_is_no_flow(shared, tmp_path):
    for name in ("flower1.png", "flower2.png"):
        (tmp_path / name).write_bytes((shared / "cases/pairs_flower/flowers/flower1.png").read_bytes())
    (pair,) = Pairs(tmp_path, "test").pairs
    assert (pair.img1[-11:], pair.img2[-11:], pair.flow) == ("flower1.png", "flower2.png", None)
    with pytest.raises(UserError, match="holds 1 pictures"):
        Pairs(shared / "cases/pairs_flower", "test")


def test_labels_can_be_required(tmp_path):
    trees.make_pairs(tmp_path / "with", unlabelled=False)
    assert all(sample.flow is not None for sample in Pairs(tmp_path / "with"))
    trees.make_pairs(tmp_path / "without")
    with pytest.raises(UserError, match="shot9"):
        Pairs(tmp_path / "without")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own/third.png", "holds 3 pictures"),
        ("middlebury/Venus/flow11.flo", r"flow10\.flo and flow11\.flo"),
        ("flat/a_img1.jpg", r"a_img1\.jpg and a_img1\.png"),
        ("flat/c_img1.png", "c_img2 is missing"),
        ("flat/c_flow.flo", "c_img1 is missing"),
        ("single/one.png", "holds 1 pictures"),
    ],
)
def test_a_folder_that_follows_no_rule_is_named(tmp_path, name, message):
    path = trees.make_pairs(tmp_path) / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(UserError, match=message) as caught:
        Pairs(tmp_path, "test")
    assert str(path.parent) in str(caught.value)


def test_other_and_hidden_files_do_not_matter(tmp_path):
    trees.make_pairs(tmp_path)
    (tmp_path / ".cache").mkdir()
    for name in ("README.md", ".hidden.png", "own/notes.txt", "own/._shot9.png", ".cache/one.png"):
        (tmp_path / name).touch()
    assert [pair.name for pair in Pairs(tmp_path, "test").pairs] == NAMES


def test_the_real_pairs(shared):
    dataset = Pairs(shared / "data" / "pairs")
    samples = {sample.name: sample for sample in dataset}
    names = list(samples)
    counts = Counter(name.split("/")[0] for name in names)
    assert counts == {"flyingchairs": 4, "kitti": 1, "middlebury": 4, "sintel": 2}
    for sample in samples.values():
        assert sample.img1.shape == sample.img2.shape == (*sample.flow.shape[:2], 3)
        valid = sample.mask[..., 0] > 0
        assert np.isfinite(sample.flow).all()
        assert 0 < np.abs(sample.flow[valid]).max() < 300
    assert samples["flyingchairs/flownet2_0000000"].img1.shape == (384, 512, 3)
    assert dataset.labelled(names.index("kitti/flowpy_000010")).noc is not None
    for name in ("sintel/alley_1_0002_clean", "sintel/cave_2_0002_final"):
        occlusion = dataset.labelled(names.index(name)).occlusion
        assert set(np.unique(occlusion)) == {0, 255}
