"""FlyingChairs and its successors; FlyingThings3D in every layout, Monkaa and Driving."""

import shutil
from functools import partial

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.dataset import MissingFiles
from maskflownet.reader.flying import Chairs, Chairs2, ChairsSDHom, Driving, Monkaa, Things3D

from tests import trees

LAYOUTS = [
    (Things3D, trees.make_things3d_subset),
    (Things3D, trees.make_things3d_full),
    (Things3D, partial(trees.make_things3d_full, webp=True)),
    (Monkaa, partial(trees.make_things3d_full, name="scene_{number}_x2")),
    (Driving, partial(trees.make_things3d_full, name="15mm_focallength/scene_forwards/speed_{number}")),
]


@pytest.fixture
def root(tmp_path):
    return trees.make_chairs(tmp_path, train=5, val=2)


@pytest.mark.parametrize(
    ("cls", "make", "start"), [(Chairs, trees.make_chairs, 1), (ChairsSDHom, trees.make_chairs_sdhom, 0)]
)
def test_reads_pictures_and_label_of_the_same_pair(tmp_path, cls, make, start):
    make(tmp_path, train=5, val=2)
    assert [len(cls(tmp_path, split)) for split in ("train", "val", "all")] == [5, 2, 7]
    for k, sample in enumerate(cls(tmp_path, "all"), start):
        np.testing.assert_array_equal(sample.img1, trees.picture(2 * k))
        np.testing.assert_array_equal(sample.img2, trees.picture(2 * k + 1))
        np.testing.assert_array_equal(sample.flow, trees.flow(k))
        assert sample.name.endswith(f"{k:05d}") and (sample.mask == 255).all()


def test_occlusions_beside_a_synthetic_set_are_found(root):
    trees.Writer().mask(root / "data" / "00002_occ.png", trees.holes())
    dataset = Chairs(root, "all")
    np.testing.assert_array_equal(dataset.labelled(1).occlusion, trees.holes())
    assert dataset.labelled(0).occlusion is None


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


def test_chairs2_has_both_directions(tmp_path):
    trees.make_chairs2(tmp_path)
    dataset = Chairs2(tmp_path, "all")
    assert [len(Chairs2(tmp_path, split)) for split in ("train", "val")] == [8, 4]
    assert len({pair.name for pair in dataset.pairs}) == len(dataset) == 12
    for sample in dataset:
        version, _, stem = sample.name.split("/")
        k, i = int(stem), int(version == "backward")
        np.testing.assert_array_equal(sample.img1, trees.picture(2 * k + i))
        np.testing.assert_array_equal(sample.img2, trees.picture(2 * k + 1 - i))
        np.testing.assert_array_equal(sample.flow, trees.flow(k + 10 * i))
    forward, backward = (Chairs2(tmp_path, "train", (version,)) for version in Chairs2.versions)
    np.testing.assert_array_equal(forward.labelled(0).occlusion, trees.holes(share=2))
    np.testing.assert_array_equal(backward.labelled(0).occlusion, trees.holes(share=3))
    assert forward.labelled(1).occlusion is None


@pytest.mark.parametrize(("cls", "make"), LAYOUTS)
def test_partner_and_label_follow_view_direction_and_pass(tmp_path, cls, make):
    make(tmp_path, sequences=2, frames=3, final=True)
    for i, folder in enumerate({path.parent for path in tmp_path.rglob("into_future")}):
        folder.rename(tmp_path / f"elsewhere{i}")
        folder.symlink_to(tmp_path / f"elsewhere{i}")
    dataset = cls(tmp_path, "all", ("clean", "final"))
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
    assert {pair.name.split("/")[0] for pair in cls(tmp_path).pairs} == {"clean"}


@pytest.mark.parametrize(("cls", "make"), LAYOUTS)
@pytest.mark.parametrize("absent", ["right", "into_past"])
def test_one_view_or_one_direction_alone(tmp_path, cls, make, absent, recwarn):
    make(tmp_path)
    for folder in tmp_path.rglob(absent):
        shutil.rmtree(folder)
    assert len(cls(tmp_path)) == 8
    assert not any(absent in pair.name for pair in cls(tmp_path).pairs)
    assert not recwarn.list


@pytest.mark.parametrize(("cls", "make"), LAYOUTS)
@pytest.mark.parametrize("tops", [("frames", "image"), ("flow", "optical")])
def test_a_view_with_frames_or_labels_alone_is_left_out_with_a_warning(tmp_path, cls, make, tops):
    make(tmp_path)
    for folder in tmp_path.rglob("right"):
        if any(part.startswith(tops) for part in folder.relative_to(tmp_path).parts):
            shutil.rmtree(folder)
    with pytest.warns(UserWarning, match=r"right \(frames or labels alone\)"):
        assert len(cls(tmp_path)) == 8


def test_labels_at_a_sequences_end_are_left_out_and_counted(tmp_path):
    full = Things3D(trees.make_things3d_full(tmp_path / "full", sequences=3, frames=4))
    assert (len(full), full.left_out) == (3 * 4 * 3, 3 * 4)
    subset = Things3D(trees.make_things3d_subset(tmp_path / "subset", sequences=3, frames=4))
    assert (len(subset), subset.left_out) == (3 * 4 * 3, 0)


@pytest.mark.parametrize(("cls", "make"), LAYOUTS)
def test_a_missing_last_picture_is_a_missing_file(tmp_path, cls, make):
    make(tmp_path, sequences=1, frames=3)
    picture = sorted((*tmp_path.rglob("right/*.png"), *tmp_path.rglob("right/*.webp")))[-1]
    picture.unlink()
    with pytest.raises(MissingFiles) as caught:
        cls(tmp_path)
    assert str(picture) in caught.value.paths


def test_a_missing_sequence_of_labels_is_named(tmp_path):
    trees.make_things3d_full(tmp_path)
    folder = tmp_path / "optical_flow" / "TRAIN" / "B" / "0001" / "into_past" / "left"
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=str(folder)):
        Things3D(tmp_path)


def test_wrong_roots_and_passes_are_errors(tmp_path):
    with pytest.raises(UserError, match="neither layout"):
        Things3D(tmp_path)
    trees.make_things3d_subset(tmp_path)
    with pytest.raises(UserError, match="image_final"):
        Things3D(tmp_path, "all", ("final",))
    trees.make_things3d_full(tmp_path)
    with pytest.raises(UserError, match="both layouts"):
        Things3D(tmp_path)
