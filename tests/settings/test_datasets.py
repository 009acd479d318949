"""From a dataset config and roots to readers, and where the roots come from."""

from dataclasses import replace

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.dataset import FlowDataset, list_numbers
from maskflownet.reader.dataset import Pair as DiskPair
from maskflownet.reader.formats import write_image
from maskflownet.reader.loader import TrainLoader
from maskflownet.settings.datasets import (
    SETS,
    Roots,
    endless_scenes,
    load_data_config,
    parse_roots,
    training_parts,
    validation_sets,
)  # fmt: skip
from maskflownet.tools.check import check

from tests import trees

NAMES = ("chairs", "things3d", "sintel", "kitti", "hd1k", "pairs", "chairs2", "chairs_sdhom", "spring")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every data set; Sintel and KITTI with the published numbers of pairs."""
    root = tmp_path_factory.mktemp("roots")
    size = (16, 32)
    trees.make_chairs(root / "chairs", train=70, val=40, size=size)
    trees.make_things3d_subset(root / "things3d", sequences=2, frames=6, size=size, final=True)
    trees.make_sintel(root / "sintel", size=size)
    trees.make_kitti(root / "kitti", {2012: 194, 2015: 200}, size=size)
    trees.make_hd1k(root / "hd1k", size=size)
    trees.make_pairs(root / "pairs", size=size, unlabelled=False)
    trees.make_chairs2(root / "chairs2", size=size)
    trees.make_chairs_sdhom(root / "chairs_sdhom", size=size)
    trees.make_spring(root / "spring", size=size)
    return {name: str(root / name) for name in NAMES}


@pytest.fixture
def roots(folders, tmp_path):
    return only(folders, tmp_path, *NAMES)


def only(folders, tmp_path, *names):
    empty = tmp_path / "paths.yaml"  # so that one beside the programs plays no part
    empty.write_text("")
    return Roots({name: folders[name] for name in names}, empty)


def lengths(parts):
    return [(len(dataset), samples) for dataset, samples in parts]


def listed(dataset):
    return [dataset[i].name for i in range(len(dataset))]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chairs", [(70, 8)]),
        ("things3d", [(40, 4)]),
        ("sintel", [(2 * 816, 4)]),
        ("sintel_kitti2015_hd1k", [(2 * 816, 2), (200, 1), (3 + 1 + 1, 1)]),
        ("kitti", [(155 + 160, 4)]),
        ("synthetic", [(100000, 8)]),
    ],
)
def test_training_parts_of_the_shipped_configs(roots, name, expected):
    assert lengths(training_parts(load_data_config(name), roots)) == expected


def test_passes(roots):
    config = load_data_config("things3d")
    both = replace(config, passes={"things3d": ("clean", "final")})
    assert lengths(training_parts(both, roots)) == [(80, 4)]
    clean = replace(load_data_config("sintel"), passes={"sintel": ("final",)})
    ((dataset, _),) = training_parts(clean, roots)
    assert len(dataset) == 816 and dataset[0].name.startswith("final/")
    assert list(validation_sets(clean, roots, "MaskFlownet").sets) == ["sintel.training2.final"]


def test_shard_and_debug_thin_the_parts(roots):
    config = replace(load_data_config("chairs"), validation=("chairs",))
    ((whole, _),) = training_parts(config, roots)
    for shard, debug, wanted in ((3, False, listed(whole)[::3]), (2, True, listed(whole)[::2][:32])):
        ((thin, samples),) = training_parts(config, roots, shard, debug)
        assert (listed(thin), samples) == (wanted, 8)
    (val,) = validation_sets(config, roots, "MaskFlownet").sets.values()
    (short,) = validation_sets(config, roots, "MaskFlownet", debug=True).sets.values()
    assert len(val) == 40 and listed(short) == listed(val)[:32] and not set(listed(val)) & set(listed(whole))


@pytest.mark.parametrize(
    ("network", "part", "count"), [("MaskFlownet_S", "training", 1041), ("MaskFlownet", "training2", 225)]
)
def test_validation_of_sintel_follows_the_network(roots, network, part, count):
    found = validation_sets(load_data_config("chairs"), roots, network)
    assert {title: len(dataset) for title, dataset in found.sets.items()} == {
        "chairs.val": 40,
        f"sintel.{part}.clean": count,
        f"sintel.{part}.final": count,
    }
    assert (found.skipped, found.unions) == ({}, {})


@pytest.mark.parametrize("network", ["MaskFlownet_S", "MaskFlownet"])
@pytest.mark.parametrize("name", ["sintel", "sintel_kitti2015_hd1k", "kitti"])
def test_what_is_trained_on_is_validated_on_its_validation_part(roots, name, network):
    found = validation_sets(load_data_config(name), roots, network).sets
    counts = {"sintel": 225, "kitti.2012": 39, "kitti.2015": 40, "hd1k": 2}
    assert found
    for title, dataset in found.items():
        assert len(dataset) == next(count for start, count in counts.items() if title.startswith(start))


def test_every_labelled_set(roots):
    found = validation_sets(None, roots, "MaskFlownet")
    assert {title: len(dataset) for title, dataset in found.sets.items()} == {
        "chairs.val": 40,
        "chairs_sdhom.val": 2,
        "chairs2.forward.val": 2,
        "chairs2.backward.val": 2,
        **{f"spring.{way}_{view}.all": 4 for way in ("FW", "BW") for view in ("left", "right")},
        "sintel.training1.clean": 816,
        "sintel.training1.final": 816,
        "sintel.training2.clean": 225,
        "sintel.training2.final": 225,
        "kitti.2012.train": 155,
        "kitti.2012.val": 39,
        "kitti.2015.train": 160,
        "kitti.2015.val": 40,
        "hd1k.val": 2,
        "pairs.all": 5,
    }
    assert found.unions == {
        "sintel.training.clean": ["sintel.training1.clean", "sintel.training2.clean"],
        "sintel.training.final": ["sintel.training1.final", "sintel.training2.final"],
        "kitti.2012.all": ["kitti.2012.train", "kitti.2012.val"],
        "kitti.2015.all": ["kitti.2015.train", "kitti.2015.val"],
    }
    assert not found.skipped


def test_a_missing_root_is_an_error_of_training_and_skipped_in_validation(folders, monkeypatch, tmp_path):
    roots = only(folders, tmp_path, "sintel")
    config = load_data_config("sintel_kitti2015_hd1k")
    with pytest.raises(UserError, match=r"kitti=DIR.* MASKFLOWNET_KITTI .*kitti: DIR .*paths.yaml"):
        training_parts(config, roots)
    found = validation_sets(load_data_config("chairs"), roots, "MaskFlownet")
    assert list(found.sets) == ["sintel.training2.clean", "sintel.training2.final"]
    assert "--data_root NAME=DIR" in found.skipped["chairs.val"]
    monkeypatch.setenv("MASKFLOWNET_KITTI", folders["kitti"])
    (tmp_path / "paths.yaml").write_text(f"hd1k: {folders['hd1k']}\n")
    assert len(training_parts(config, roots)) == 3


@pytest.mark.parametrize(("year", "other"), [(2012, 2015), (2015, 2012)])
def test_one_year_of_kitti(tmp_path, folders, year, other):
    one_year = {**folders, "kitti": f"{folders['kitti']}/{year}"}
    roots = only(one_year, tmp_path, "kitti")
    found = validation_sets(load_data_config("kitti"), roots, "MaskFlownet")
    assert list(found.sets) == [f"kitti.{year}.val"]
    assert f"does not hold KITTI {other}" in found.skipped[f"kitti.{other}.val"]
    with pytest.raises(UserError, match=f"{year} only, not {other}"):
        training_parts(load_data_config("kitti"), roots)


@pytest.fixture
def synthetic():
    config = load_data_config("synthetic")
    return replace(config, synthetic=replace(config.synthetic, length=5, validation_length=3, size=(64, 64)))


def test_synthetic_needs_no_root_and_holds_its_validation_out(synthetic, tmp_path):
    roots, config = only({}, tmp_path), synthetic
    ((train, samples),) = training_parts(config, roots)
    val = validation_sets(config, roots, "MaskFlownet").sets["synthetic.val"]
    assert (len(train), len(val), samples) == (5, 3, 8)
    assert not set(listed(train)) & set(listed(val))
    longer = replace(config, synthetic=replace(config.synthetic, length=9))
    again = validation_sets(longer, roots, "MaskFlownet").sets["synthetic.val"]
    np.testing.assert_array_equal(val[1].img1, again[1].img1)
    assert train[0].img1.shape == (64, 64, 3)
    assert endless_scenes(config, roots)[1] == 3
    assert endless_scenes(replace(config, training_split={"synthetic": "val"}), roots) is None  # the other way round


def test_the_pictures_of_synthetic_scenes_have_a_root_of_their_own(synthetic, tmp_path):
    roots = only({}, tmp_path)
    write_image(tmp_path / "grey.png", np.full((80, 80, 3), 128, np.uint8))
    (shipped,) = validation_sets(synthetic, roots, "MaskFlownet").sets.values()
    (own,) = validation_sets(synthetic, Roots({"textures": tmp_path}), "MaskFlownet").sets.values()
    assert not np.array_equal(shipped[0].img1, own[0].img1)
    with pytest.raises(UserError, match="none"):
        training_parts(synthetic, Roots({"textures": tmp_path / "none"}))


class Numbered(FlowDataset):
    """A data set of somebody's own: all that it takes is this class and an entry in SETS."""

    name = "numbered"
    versions = ("day", "night")
    default_versions = ("day",)
    measured = ("val",)
    counts = {("all", "day"): 5}

    def list_pairs(self, root, split, version):
        for (number,) in list_numbers(f"{root}/{version}", r"(\d+)_1\.png"):
            if split == "all" or (number == 0) == (split == "val"):
                stem = f"{root}/{version}/{number}"
                yield DiskPair(f"{version}/{number}", f"{stem}_1.png", f"{stem}_2.png", f"{stem}.flo")


def test_a_new_data_set_is_one_class_and_one_entry(monkeypatch, tmp_path):
    """It trains, is validated by a config and without one, is checked, and has a root of its own."""
    writer = trees.Writer()
    for version in Numbered.versions:
        folder = tmp_path / "own" / version
        for k in range(4):
            writer.picture(folder / f"{k}_1.png", 2 * k)
            writer.picture(folder / f"{k}_2.png", 2 * k + 1)
            writer.label(folder / f"{k}.flo", k)
    monkeypatch.setitem(SETS, Numbered.name, Numbered)
    roots = only({"numbered": tmp_path / "own"}, tmp_path, "numbered")

    path = tmp_path / "own.yaml"
    path.write_text(
        "dataset: numbered\nbatch_size: 2\norig_shape: [64, 128]\ntarget_shape: [64, 128]\naugmentation:\n"
        "passes: {numbered: [day, night]}\nvalidation: [numbered]\nvalidation_split: {numbered: all}\n"
    )
    config = load_data_config(path)
    parts = training_parts(config, roots)
    assert lengths(parts) == [(6, 2)]
    batch = next(TrainLoader(parts, config.orig_shape).batches())
    assert all(name.split("/")[0] in Numbered.versions for name in batch.names)

    found = validation_sets(config, roots, "MaskFlownet").sets
    assert {title: len(part) for title, part in found.items()} == {"numbered.day.all": 4, "numbered.night.all": 4}
    assert list(validation_sets(None, roots, "MaskFlownet").sets) == ["numbered.day.val"]

    (report,) = check(roots.given)
    assert (report.name, report.count) == ("numbered/day", "4 pairs")
    assert report.problems == [f"{tmp_path / 'own'} has 4 pairs where 5 are expected"]

    path.write_text(path.read_text().replace("all}", "test}"))
    with pytest.raises(UserError, match="validation_split of numbered must be one of train, val, all"):
        load_data_config(path)


@pytest.fixture
def three(tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    return tmp_path


def find(name, given, paths_file):
    return Roots(given, paths_file).look_up(name)


def test_command_line_before_environment_before_file(three, monkeypatch):
    paths = three / "paths.yaml"
    paths.write_text("chairs: three\n")
    assert find("chairs", {}, paths) == three / "three"
    monkeypatch.setenv("MASKFLOWNET_CHAIRS", str(three / "two"))
    assert find("chairs", {}, paths) == three / "two"
    assert find("chairs", {"chairs": str(three / "one")}, paths) == three / "one"
    monkeypatch.setenv("MASKFLOWNET_KITTI", "")
    for nothing in ("chairs: three\n", "", "# nothing yet\n"):
        paths.write_text(nothing)
        assert find("kitti", {"chairs": str(three / "one")}, paths) is None


def test_home_and_absolute_folders_in_a_file(three, monkeypatch):
    monkeypatch.setenv("HOME", str(three))
    paths = three / "one" / "paths.yaml"
    paths.write_text(f"sintel: {three / 'two'}\nhd1k: ~/three\n")
    assert find("sintel", {}, paths) == three / "two"
    assert find("hd1k", {}, paths) == three / "three"
    assert find("hd1k", {"hd1k": "~/one"}, paths) == three / "one"


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "x" * 5000, "/nowhere"])
def test_a_root_that_does_not_exist_is_an_error_wherever_it_is_said(three, name, monkeypatch):
    paths = three / "paths.yaml"
    paths.write_text(f"sintel: {name}\n")
    given = Roots({"sintel": name}, None)
    with pytest.raises(UserError, match="sintel from the command line, is not an existing folder"):
        validation_sets(load_data_config("chairs"), given, "MaskFlownet")
    with pytest.raises(UserError, match="sintel from .*paths.yaml, is not an existing folder"):
        find("sintel", {}, paths)
    monkeypatch.setenv("MASKFLOWNET_SINTEL", name)
    with pytest.raises(UserError, match="sintel from MASKFLOWNET_SINTEL, is not an existing folder"):
        find("sintel", {}, paths)
    with pytest.raises(UserError, match=r"absent\.yaml"):
        find("chairs", {}, three / "absent.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("chair: one\n", "'chair'"),
        ("chairs: 3\n", "chairs"),
        (f"chairs: 0x{'f' * 5000}\n", "root 0xfff"),
        ("chairs:\n", "chairs"),
        ("chairs: one\nchairs: two\n", "chairs stands twice"),
        ("[1, 2]: one\n", "is not valid YAML|no data set"),
    ],
)
def test_a_wrong_file_is_named(three, content, message):
    paths = three / "paths.yaml"
    paths.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        find("chairs", {}, paths)
    assert str(paths) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arguments():
    assert parse_roots(["chairs=/a", "sintel=b=c"]).given == {"chairs": "/a", "sintel": "b=c"}
    for wrong in (["chairs"], ["chairs="], ["=/a"], ["chairs=/a", "chairs=/b"]):
        with pytest.raises(UserError):
            parse_roots(wrong)
    with pytest.raises(UserError, match="'chair' from the command line is no data set"):
        parse_roots(["chair=/somewhere"])
