"""Spring."""

import shutil

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.spring import Spring

from tests import trees


@pytest.fixture
def root(tmp_path):
    return trees.make_spring(tmp_path)


def test_partner_and_label_follow_direction_and_camera(root):
    dataset = Spring(root)
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


def test_the_test_images_have_no_labels(root):
    dataset = Spring(root, "test", ("BW_left",))
    assert [pair.name for pair in dataset.pairs] == [f"0003/flow_BW_left/flow_BW_left_{n:04d}" for n in (2, 3)]
    assert dataset[0].flow is dataset[0].fine is None
    np.testing.assert_array_equal(dataset[0].img2, trees.picture(31))


def test_versions_that_a_root_lacks(root):
    shutil.rmtree(root / "test")
    for sequence in (root / "train").iterdir():
        shutil.rmtree(sequence / "frame_right")
        shutil.rmtree(sequence / "flow_BW_left")
    lost = {version: Spring.lacks(root, "all", version) for version in Spring.versions}
    assert lost["FW_left"] is None
    assert "no flow_BW_left" in lost["BW_left"] and "no frame_right" in lost["FW_right"]
    assert Spring.lacks(root, "test", "FW_left")
    assert len(Spring(root, "all", ("FW_left",))) == 4
    with pytest.raises(UserError, match="frame_right is not a folder"):
        Spring(root)


def test_a_label_of_the_images_own_size_is_an_error(root):
    path = root / "train/0001/flow_FW_left/flow_FW_left_0001.flo5"
    trees.write_flo5(path, trees.flow(1))
    with pytest.raises(UserError, match="64x128 .HxW. where .* is 64x128, not 2 times the size"):
        Spring(root)[0]
