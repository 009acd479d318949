"""The check of data sets on disk, as a function and as a program."""

import shutil

import pytest
from maskflownet.scenes.synthetic import Synthetic
from maskflownet.settings import datasets
from maskflownet.settings.cli import run
from maskflownet.tools.check import check, main
from maskflownet.tools.synthetic import write_chairs

from tests import trees


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Trees with the counts of the published sets, the two very large ones left out."""
    root = tmp_path_factory.mktemp("whole")
    tiny = (8, 12)
    trees.make_sintel(root / "sintel", test_frames={"wall": 553}, size=tiny)
    trees.make_kitti(root / "kitti", {2012: 194, 2015: 200}, test=200, size=tiny)
    for part in ("10", "11"):
        for k in range(195, 200):
            (root / f"kitti/2012/testing/colored_0/{k:06d}_{part}.png").unlink()
    trees.make_hd1k(root / "hd1k", dict.fromkeys(range(36), 2), size=tiny)
    trees.make_pairs(root / "pairs", size=tiny)
    return {name: root / name for name in ("sintel", "kitti", "hd1k", "pairs")}


def test_whole_sets_are_fine(whole, capsys):
    assert main([*(f"{name}={root}" for name, root in whole.items()), "--decode", "--workers", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "kitti/2012/all: 194 pairs, ok" in lines
    assert "kitti/2015/test: 200 pairs, ok" in lines
    assert "sintel/final/val: 225 pairs, ok" in lines
    assert "hd1k/train: 35 pairs in 35 sequences, 35 labels at a sequence's end left out, ok" in lines
    assert len(lines) == 6 + 4 + 2 + 1


def test_counts_are_compared(tmp_path, capsys):
    trees.make_chairs(tmp_path)
    assert main([f"chairs={tmp_path}"]) == 2
    out = capsys.readouterr().out
    assert "chairs/train: 6 pairs, FAULTY" in out
    assert f"{tmp_path} has 2 pairs where 640 are expected" in out


def test_a_synthetic_set_may_have_any_length(tmp_path, capsys):
    write_chairs(Synthetic(3, 64, 64), tmp_path, validation_every=2)
    assert main([f"chairs={tmp_path}", "--decode"]) == 0
    assert "chairs/all: 3 pairs, ok" in capsys.readouterr().out
    (tmp_path / "data/00002_flow.flo").unlink()
    assert main([f"chairs={tmp_path}"]) == 2


@pytest.mark.parametrize("make", [trees.make_things3d_subset, trees.make_things3d_full])
def test_things3d(tmp_path, make):
    make(tmp_path, final=True)
    reports = list(check({"things3d": tmp_path}))
    assert [report.name for report in reports] == ["things3d/clean", "things3d/final"]
    subset = make is trees.make_things3d_subset
    assert [bool(report.problems) for report in reports] == [subset, subset]
    assert all(report.count.startswith("16 pairs") for report in reports)
    assert all(("8 labels" in report.count) == (not subset) for report in reports)


def test_every_missing_partner_is_named(tmp_path):
    trees.make_kitti(tmp_path)
    lost = [tmp_path / f"2012/training/colored_0/{name}.png" for name in ("000003_11", "000007_10")]
    for path in lost:
        path.unlink()
    reports = {report.name: report for report in check({"kitti": tmp_path})}
    assert reports["kitti/2012/all"].problems == [f"{path} is missing" for path in lost]
    assert reports["kitti/2015/all"].count == "20 pairs"


def test_damaged_files_are_found_by_decoding_only(tmp_path):
    trees.make_pairs(tmp_path)
    damaged = [tmp_path / name for name in ("flat/b_flow.flo", "kitti/flow_noc.png", "own/shot10.png")]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-9])
    (report,) = check({"pairs": tmp_path})
    assert report.problems == []
    (report,) = check({"pairs": tmp_path}, decode=True, workers=3)
    assert len(report.problems) == 3
    assert all(str(path) in text for path, text in zip(damaged, report.problems))


def test_a_root_of_something_else_is_a_fault(tmp_path, capsys):
    names = [name for name, cls in datasets.SETS.items() if cls.counts and name == cls.root_name]
    assert main([f"{name}={tmp_path}" for name in names]) == 2
    out = capsys.readouterr().out
    assert "ok" not in out
    assert all(f"{name}" in out for name in names)


def test_only_one_year_and_no_test_images_are_fine_too(tmp_path):
    trees.make_kitti(tmp_path)
    shutil.rmtree(tmp_path / "2015/testing")
    assert [report.name for report in check({"kitti": tmp_path / "2015"})] == ["kitti/2015/all"]


@pytest.mark.parametrize(
    "wrong", [["chair=."], ["chairs"], ["chairs=/nowhere/at/all"], ["pairs=.", "--workers", "0"], ["--what"]]
)
def test_wrong_arguments_exit_with_2(wrong, capsys):
    assert run(main, wrong) == 2
    assert "error:" in capsys.readouterr().err
