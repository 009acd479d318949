"""What every data set on disk has in common."""

import pickle

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.dataset import FlowDataset, MissingFiles, Pair, View, list_numbers, part_of
from maskflownet.reader.films import Sintel, Spring
from maskflownet.reader.flying import Chairs, Chairs2, ChairsSDHom, Things3D
from maskflownet.reader.formats import write_flo, write_image
from maskflownet.reader.kitti import HD1K, Kitti2015
from maskflownet.reader.pairs import Pairs

from tests import trees


class Listed(FlowDataset):
    """Pairs that are given instead of listed."""

    name = "listed"

    def __init__(self, root, pairs):
        self.pairs = pairs
        super().__init__(root)

    def list_pairs(self, root, split, version):
        return self.pairs


def make_pair(folder, **changes):
    """Write a pair with a label and return it."""
    writer = trees.Writer((8, 12))
    writer.picture(folder / "1.png", 1)
    writer.picture(folder / "2.png", 2)
    writer.label(folder / "flow.flo", 3)
    paths = {"img1": folder / "1.png", "img2": folder / "2.png", "flow": folder / "flow.flo"}
    return Pair("one", **{role: str(path) for role, path in {**paths, **changes}.items()})


def make_short_sintel(root):
    return trees.make_sintel(root, {"alley_1": 5})


LOST = [  # what a set needs wherever it is missing
    *((Chairs, trees.make_chairs, f"data/00003_{name}") for name in ("img1.ppm", "img2.ppm", "flow.flo")),
    *((Chairs2, trees.make_chairs2, f"train/0000002-{name}") for name in ("img_0.png", "img_1.png", "flow_10.flo")),
    *((ChairsSDHom, trees.make_chairs_sdhom, f"data/test/{n}") for n in ("t0/00004.png", "flow/00005.pfm")),
    *((Spring, trees.make_spring, f"train/0001/frame_left/frame_left_{n:04d}.png") for n in (1, 2, 3)),
    (Spring, trees.make_spring, "train/0002/flow_BW_right/flow_BW_right_0003.flo5"),
    *((HD1K, trees.make_hd1k, f"hd1k_{name}/000000_0001.png") for name in ("input/image_2", "flow_gt/flow_occ")),
    *((Kitti2015, trees.make_kitti, f"2015/training/image_2/000003_{number}.png") for number in (10, 11)),
    (Kitti2015, trees.make_kitti, "2015/training/flow_occ/000003_10.png"),
    *((Sintel, make_short_sintel, f"training/clean/alley_1/frame_{number:04d}.png") for number in (1, 3, 5)),
    (Sintel, make_short_sintel, "training/final/alley_1/frame_0003.png"),
    (Sintel, make_short_sintel, "training/invalid/alley_1/frame_0002.png"),
    (Sintel, make_short_sintel, "training/flow/alley_1/frame_0002.flo"),
    (Things3D, lambda root: trees.make_things3d_full(root, 1, 5), "frames_cleanpass/TRAIN/A/0000/left/0008.png"),
    (Things3D, lambda root: trees.make_things3d_subset(root, 1, 5), "train/image_clean/left/0000002.png"),
]


@pytest.mark.parametrize(("cls", "make", "name"), LOST)
def test_a_missing_file_of_a_pair_is_named(tmp_path, cls, make, name):
    lost = make(tmp_path) / name
    lost.unlink()
    with pytest.raises(MissingFiles) as caught:
        cls(tmp_path, "all")
    assert set(caught.value.paths) == {str(lost)}


@pytest.mark.parametrize(("cls", "make"), {Pairs: trees.make_pairs, **{cls: make for cls, make, _ in LOST}}.items())
def test_other_parts_other_folders_and_empty_sets_are_errors(tmp_path, cls, make):
    root = make(tmp_path / "whole")
    for part in ({"split": "dev"}, {"split": "all", "versions": ("dirty",)}):
        with pytest.raises(UserError, match="whole: .* has no part '(dev|dirty)', only "):
            cls(root, **part)
    with pytest.raises(UserError, match="nowhere"):
        cls(tmp_path / "nowhere")
    for file in root.rglob("*.*"):
        if file.suffix == ".txt":
            file.write_text("\n")
        elif file.is_file():
            file.unlink()
    with pytest.raises(UserError, match="whole holds no image pair"):
        cls(root, "all")


def test_nothing_is_dropped_and_the_end_is_an_end(tmp_path):
    pair = make_pair(tmp_path)
    dataset = Listed(tmp_path, [pair._replace(name=str(k)) for k in range(7)])
    assert len(dataset) == 7
    assert [sample.name for sample in dataset] == list("0123456")
    assert dataset[-1].name == "6"
    with pytest.raises(IndexError):
        dataset[7]


def test_missing_partners_are_all_named(tmp_path):
    pair = make_pair(tmp_path, img2=tmp_path / "gone.png", flow=tmp_path / "no" / "gone.flo")
    with pytest.raises(MissingFiles, match=r"gone\.png is missing .* 1 more") as caught:
        Listed(tmp_path, [pair])
    assert caught.value.paths == [str(tmp_path / "gone.png"), str(tmp_path / "no" / "gone.flo")]
    assert isinstance(caught.value, UserError)


def test_nothing_is_kept_between_reads(tmp_path):
    dataset = Listed(tmp_path, [make_pair(tmp_path)])
    before = pickle.dumps(dataset)
    dataset[0]
    assert pickle.dumps(dataset) == before
    write_flo(tmp_path / "flow.flo", trees.flow(4, (8, 12)))
    assert tuple(dataset[0].flow[0, 0]) == trees.label(4)


def test_a_file_is_read_by_its_role(tmp_path):
    mask = np.zeros((8, 12, 1), np.uint8)
    mask[:, :4] = 255
    write_image(tmp_path / "grey.png", mask)  # one channel
    write_image(tmp_path / "colour.png", np.repeat(mask, 3, axis=2))  # three channels
    pair = make_pair(tmp_path, img1=tmp_path / "grey.png", img2=tmp_path / "grey.png")
    for name in ("grey.png", "colour.png"):
        path = str(tmp_path / name)
        dataset = Listed(tmp_path, [pair._replace(invalid=path, occlusion=path)])
        sample = dataset[0]
        assert sample.img1.shape == (8, 12, 3)  # a grey picture has three channels
        np.testing.assert_array_equal(sample.mask, 255 - mask)
        np.testing.assert_array_equal(dataset.labelled(0).occlusion, mask)


def test_invalid_pixels_come_on_top_of_the_labels_own(tmp_path):
    flow = trees.flow(0, (8, 12))
    flow[0] = np.nan
    invalid = np.zeros((8, 12, 1), np.uint8)
    invalid[:, 0] = 255
    pair = make_pair(tmp_path, invalid=tmp_path / "invalid.png")
    write_image(tmp_path / "invalid.png", invalid)
    write_flo(tmp_path / "flow.flo", flow)
    mask = Listed(tmp_path, [pair])[0].mask
    assert (mask == 255).sum() == 7 * 11
    assert not mask[0].any()
    assert not mask[:, 0].any()


@pytest.mark.parametrize(("role", "write"), [("img2", "picture"), ("flow", "label"), ("invalid", "picture")])
def test_files_of_different_size_are_an_error(tmp_path, role, write):
    path = tmp_path / ("other.flo" if role == "flow" else "other.png")
    getattr(trees.Writer((12, 8)), write)(path, 0)
    dataset = Listed(tmp_path, [make_pair(tmp_path, **{role: path})])
    with pytest.raises(UserError, match=r"other.* 12x8 .*8x12"):
        dataset[0]


def test_list_numbers_sorts_by_number_and_skips_other_names(tmp_path):
    for name in ("10_b.png", "9_b.png", "9_a.png", "._9_a.png", "9_a.png.bak", "Thumbs.db"):
        (tmp_path / name).touch()
    assert list_numbers(str(tmp_path), r"(\d+)_[ab]\.png") == [(9,), (10,)]


def test_a_view_shows_the_given_samples_and_their_masks(tmp_path):
    write_image(tmp_path / "occlusion.png", trees.holes((8, 12)))
    pair = make_pair(tmp_path, occlusion=tmp_path / "occlusion.png", noc=tmp_path / "flow.flo")
    view = View(
        Listed(tmp_path, [pair._replace(name="0", occlusion=None, noc=None), pair._replace(name="1")]), [1, 0, 1]
    )
    assert [view[k].name for k in range(len(view))] == ["1", "0", "1"]
    np.testing.assert_array_equal(view.labelled(0).occlusion, trees.holes((8, 12)))
    assert (view.labelled(2).noc == 255).all()
    assert view.labelled(1)[1:] == (None, None)


def test_split_lines_of_either_line_end(tmp_path):
    path = tmp_path / "split.txt"
    for content in (b"\xef\xbb\xbf1\n2\n1\n", b"1\r\n2\r\n1", b"1\n2\n1\n\n"):
        path.write_bytes(content)
        parts = [part_of("abc", split, path) for split in ("train", "val", "all")]
        assert parts == [["a", "c"], ["b"], ["a", "b", "c"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1\n2\n", "holds 3 pairs where .* describes 2"),
        (b"1\n2\n0\n", "'0'"),
        (b"121\n", "'121'"),
        (b"\xff\n", "cannot be read"),
        (None, "there is no such file"),
    ],
)
def test_a_wrong_split_file_is_named(tmp_path, content, message):
    path = tmp_path / "split.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        part_of("abc", "train", path)
    assert str(path) in str(caught.value)
