"""FlyingChairs."""

import shutil

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.chairs import Chairs

from tests import trees


@pytest.fixture
def root(tmp_path):
    return trees.make_chairs(tmp_path, train=5, val=2)


def test_reads_pictures_and_label_of_the_same_pair(root):
    dataset = Chairs(root, "all")
    assert len(dataset) == 7
    for index, sample in enumerate(dataset):
        k = index + 1
        assert sample.name == f"{k:05d}"
        np.testing.assert_array_equal(sample.img1, trees.picture(2 * k))
        np.testing.assert_array_equal(sample.img2, trees.picture(2 * k + 1))
        np.testing.assert_array_equal(sample.flow, trees.flow(k))
        assert (sample.mask == 255).all()


def test_occlusions_beside_a_synthetic_set_are_found(root):
    trees.Writer().mask(root / "data" / "00002_occ.png", trees.holes())
    dataset = Chairs(root, "all")
    np.testing.assert_array_equal(dataset.occlusion(1), trees.holes())
    assert dataset.occlusion(0) is None


def test_the_split_file_decides(root):
    lines = root / "FlyingChairs_train_val.txt"
    lines.write_text("2\n1\n1\n2\n1\n1\n2\n")
    assert [pair.name for pair in Chairs(root, "val").pairs] == ["00001", "00004", "00007"]
    assert [pair.name for pair in Chairs(root).pairs] == ["00002", "00003", "00005", "00006"]


def test_yields_22232_and_640(tmp_path):
    root = trees.make_chairs(tmp_path / "full", train=22232, val=640)
    try:
        train, val = Chairs(root, "train"), Chairs(root, "val")
        assert len(train) == 22232
        assert len(val) == 640
        names = [pair.name for dataset in (train, val) for pair in dataset.pairs]
        assert sorted(names) == [f"{k:05d}" for k in range(1, 22873)]
    finally:
        shutil.rmtree(root)  # 68,616 files that pytest would keep for three runs


def test_a_split_file_that_does_not_fit_is_an_error(root):
    lines = root / "FlyingChairs_train_val.txt"
    for content, message in (("1\n2\n", "2 pairs"), ("1\n" * 6 + "3\n", "'3'"), ("", "0 pairs")):
        lines.write_text(content)
        with pytest.raises(UserError, match=message) as caught:
            Chairs(root)
        assert str(lines) in str(caught.value)
    lines.unlink()
    with pytest.raises(UserError, match=r"FlyingChairs_train_val\.txt"):
        Chairs(root)


def test_a_part_without_a_pair_is_an_error(root, tmp_path):
    (root / "FlyingChairs_train_val.txt").write_text("1\n" * 7)
    with pytest.raises(UserError, match=str(root)):
        Chairs(root, "val")
    (tmp_path / "empty" / "data").mkdir(parents=True)
    (tmp_path / "empty" / "FlyingChairs_train_val.txt").touch()
    with pytest.raises(UserError, match="empty"):
        Chairs(tmp_path / "empty")
