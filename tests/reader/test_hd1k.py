"""HD1K."""

import numpy as np
from maskflownet.reader.hd1k import HD1K

from tests import trees

FRAMES = {0: 4, 4: 2, 5: 3, 6: 2}


def names(dataset):
    return [pair.name for pair in dataset.pairs]


def test_pairs_are_neighbours_inside_a_sequence(tmp_path):
    dataset = HD1K(trees.make_hd1k(tmp_path, FRAMES), "all")
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


def test_the_validation_sequence_is_not_in_training(tmp_path):
    root = trees.make_hd1k(tmp_path, FRAMES)
    train, val = HD1K(root, "train"), HD1K(root, "val")
    assert names(val) == ["000005_0000", "000005_0001"]
    assert sorted(names(train) + names(val)) == names(HD1K(root, "all"))
    assert not any(name.startswith("000005") for name in names(train))
    assert (train.left_out, val.left_out) == (3, 1)


def test_the_labels_of_last_frames_may_be_absent(tmp_path):
    root = trees.make_hd1k(tmp_path, {0: 3})
    (root / "hd1k_flow_gt" / "flow_occ" / "000000_0002.png").unlink()
    dataset = HD1K(root)
    assert (len(dataset), dataset.left_out) == (2, 0)
