"""FlyingThings3D in both layouts."""

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.dataset import MissingFiles
from maskflownet.reader.things3d import Things3D

from tests import trees

MAKE = {"subset": trees.make_things3d_subset, "full": trees.make_things3d_full}


@pytest.mark.parametrize("layout", MAKE)
def test_partner_and_label_follow_view_direction_and_pass(tmp_path, layout):
    MAKE[layout](tmp_path, sequences=2, frames=3, final=True)
    dataset = Things3D(tmp_path, "all", ("clean", "final"))
    assert len(dataset) == 2 * 2 * 2 * 2 * 2  # passes, sequences, views, directions, pairs
    assert len({pair.name for pair in dataset.pairs}) == len(dataset)
    for sample in dataset:
        parts = sample.name.split("/")
        render, view, direction, number = parts[0], parts[-3], parts[-2], int(parts[-1])
        seed = number + 100 * (view == "right") + 200 * (render == "final")
        step = 1 if direction == "into_future" else -1
        np.testing.assert_array_equal(sample.img1, trees.picture(seed))
        np.testing.assert_array_equal(sample.img2, trees.picture(seed + step))
        label = number + 10 * (direction == "into_past")
        np.testing.assert_array_equal(sample.flow, trees.flow(label))


def test_labels_at_a_sequences_end_are_left_out_and_counted(tmp_path):
    full = Things3D(trees.make_things3d_full(tmp_path / "full", sequences=3, frames=4))
    assert (len(full), full.left_out) == (3 * 4 * 3, 3 * 4)
    subset = Things3D(trees.make_things3d_subset(tmp_path / "subset", sequences=3, frames=4))
    assert (len(subset), subset.left_out) == (3 * 4 * 3, 0)


def test_the_default_pass_is_clean(tmp_path):
    trees.make_things3d_full(tmp_path, final=True)
    assert {pair.name.split("/")[0] for pair in Things3D(tmp_path).pairs} == {"clean"}


@pytest.mark.parametrize("layout", MAKE)
def test_a_missing_last_picture_is_a_missing_file(tmp_path, layout):
    MAKE[layout](tmp_path, sequences=1, frames=3)
    picture = sorted(tmp_path.rglob("right/*.png"))[-1]
    picture.unlink()
    with pytest.raises(MissingFiles) as caught:
        Things3D(tmp_path)
    assert str(picture) in caught.value.paths


def test_a_missing_sequence_of_labels_is_named(tmp_path):
    trees.make_things3d_full(tmp_path)
    folder = tmp_path / "optical_flow" / "TRAIN" / "B" / "0001" / "into_past" / "left"
    for label in folder.iterdir():
        label.unlink()
    folder.rmdir()
    with pytest.raises(UserError, match=str(folder)):
        Things3D(tmp_path)


def test_a_root_with_both_layouts_is_an_error(tmp_path):
    trees.make_things3d_full(tmp_path)
    trees.make_things3d_subset(tmp_path)
    with pytest.raises(UserError, match="both layouts"):
        Things3D(tmp_path)


def test_wrong_roots_passes_and_layouts_are_errors(tmp_path):
    with pytest.raises(UserError, match="neither layout"):
        Things3D(tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        Things3D(tmp_path / "nowhere")
    trees.make_things3d_subset(tmp_path)
    with pytest.raises(UserError, match="'dirty'"):
        Things3D(tmp_path, "all", ("dirty",))
    with pytest.raises(UserError, match="image_final"):
        Things3D(tmp_path, "all", ("final",))
