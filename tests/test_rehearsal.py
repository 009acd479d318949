"""The six stages, validation and submission on dummy trees of all data sets."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from maskflownet.checkpoints.checkpoint import beside, load_checkpoint
from maskflownet.checkpoints.params import read_params
from maskflownet.reader.formats import read_flow
from maskflownet.settings.cli import run
from maskflownet.settings.folders import CONFIGS

import main
import run_stages
from tests import trees

SIZE = (64, 128)
SCALE = "0.0000014"  # of the schedules: one or two steps a stage


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Dummy trees of all data sets, and the shipped configs with small crops and batches."""
    place = tmp_path_factory.mktemp("rehearsal")
    roots = {
        "chairs": trees.make_chairs(place / "chairs", size=SIZE),
        "things3d": trees.make_things3d_subset(place / "things3d", size=SIZE),
        "sintel": trees.make_sintel(place / "sintel", size=SIZE),
        "kitti": trees.make_kitti(place / "kitti", size=SIZE),
        "hd1k": trees.make_hd1k(place / "hd1k", size=SIZE),
    }
    (place / "configs").mkdir()
    stages = yaml.safe_load((CONFIGS / "six_stages.yaml").read_text())
    for stage in stages["stages"]:
        data = yaml.safe_load((CONFIGS / stage["dataset"]).read_text())
        data.update(orig_shape=[60, 100], target_shape=[64, 64], batch_size=4)
        if "resize" in data:
            data["resize"] = list(SIZE)
        path = place / "configs" / stage["dataset"]
        path.write_text(yaml.safe_dump(data))
        stage["dataset"] = str(path)
    (place / "stages.yaml").write_text(yaml.safe_dump(stages))
    return place, [f"--data_root={name}={root}" for name, root in roots.items()]


@pytest.fixture(scope="module")
def finished(place):
    """The last checkpoints of the six stages, run in one go; the log of each."""
    folder, roots = place
    home = folder / "home"
    line = [str(folder / "stages.yaml"), "--scale", SCALE, "--debug", "--output_root", str(home), *roots]
    with pytest.MonkeyPatch.context() as few:
        few.setattr("maskflownet.settings.datasets.DEBUG_SAMPLES", 1)  # of every set; validation takes time
        assert run(run_stages.main, line) == 0
        yield home, yaml.safe_load((home / "logs/stages.stages.yaml").read_text())["runs"], line


def last(home, run_id) -> Path:
    paths = (home / "weights").glob(f"{run_id}_*.params")
    return max(paths, key=lambda path: int(path.stem.rsplit("_", 1)[1]))


def test_the_six_stages(finished):
    home, runs, _ = finished
    assert len(runs) == 6
    paths = [last(home, run_id) for run_id in runs]
    records = [load_checkpoint(path).record for path in paths]
    assert [r.network for r in records] == ["MaskFlownet_S"] * 3 + ["MaskFlownet"] * 3
    # Steps are cleared at every stage, and each starts from the one before.
    assert [r.step for r in records] == [2, 1, 1, 1, 1, 1]
    assert [r.parent for r in records] == [None, *(path.stem for path in paths[:-1])]
    robust = [r.config["network"]["optimizer"].get("q") for r in records]
    assert robust == [None, None, 0.4, None, None, 0.4]
    # The first stage validates on all of Sintel, the full network on its validation part.
    first, fourth = (set(records[i].metrics) for i in (0, 3))
    assert {"sintel.training.clean", "sintel.training.final", "chairs.val"} <= first
    assert "sintel.training2.clean" in fourth
    assert "sintel.training.clean" not in fourth


def test_the_head_of_the_later_stages_is_the_third(finished):
    home, runs, _ = finished
    third = read_params(last(home, runs[2]))
    for run_id in runs[3:]:
        later = read_params(last(home, run_id))
        for name, array in third.items():
            assert (later[f"MaskFlownet_S.{name}"] == array).all()
        state = read_params(beside(last(home, run_id), ".states"))
        assert not [name for name in state if "MaskFlownet_S" in name]
    fourth, sixth = (read_params(last(home, runs[i])) for i in (3, 5))
    assert any((fourth[name] != sixth[name]).any() for name in fourth)


def test_a_finished_schedule_does_nothing_more(finished, capsys):
    home, runs, line = finished
    before = {path: path.stat().st_mtime_ns for path in (home / "weights").iterdir()}
    assert run(run_stages.main, line) == 0
    assert {path: path.stat().st_mtime_ns for path in (home / "weights").iterdir()} == before
    assert "stage 6 of 6 has ended" in capsys.readouterr().out


def test_validation_of_the_last_checkpoint(finished, place, capsys):
    home, runs, _ = finished
    line = ["MaskFlownet", "-c", runs[5][:9], "--valid", "--debug", "--output_root", str(home)]
    assert run(main.main, [*line, *place[1]]) == 0
    out, err = capsys.readouterr()
    assert "sintel.training.clean: epe" in out
    assert "skipped " in err and "pairs.all: no root" in err
    log = (home / f"logs/val/{runs[5]}.val.log").read_text()
    assert "steps=1, " in log
    measures = [f"sintel.training{part}.{render}:epe=" for part in ("", 1, 2) for render in ("clean", "final")]
    assert all(measure in log for measure in [*measures, "kitti.2012.val:fl="])
    rows = (home / f"logs/val/{runs[5]}_1.csv").read_text().splitlines()
    assert len(rows) == 1 + len({line.split(",")[0] for line in rows[1:]})


def test_clear_steps_changes_nothing_for_a_validation(finished, place, capsys):
    home, runs, _ = finished
    line = ["MaskFlownet_S", "-c", runs[0], "--valid", "--debug", "--output_root", str(home)]
    line.append(place[1][0])  # chairs alone
    assert run(main.main, line) == 0
    first = capsys.readouterr().out
    assert run(main.main, [*line, "--clear_steps"]) == 0
    assert capsys.readouterr().out == first


def test_submissions_of_the_last_checkpoint(finished, place):
    home, runs, _ = finished
    stem = last(home, runs[5]).stem
    line = ["MaskFlownet", "-c", runs[5], "--predict", "--output_root", str(home)]
    assert run(main.main, [*line, "--resize", "64,128", *place[1]]) == 0
    flows = home / "flows"
    names = zipfile.ZipFile(flows / f"{stem}_sintel.zip").namelist()
    assert {name.split("/")[0] for name in names} == {"clean", "final"}
    flow, _ = read_flow(flows / f"{stem}_sintel" / names[0])
    assert flow.shape == (*SIZE, 2) and np.isfinite(flow).all()
    for year, prefix in ((2012, ""), (2015, "flow/")):
        names = zipfile.ZipFile(flows / f"{stem}_kitti_{year}.zip").namelist()
        assert names[0] == f"{prefix}000000_10.png"
        assert read_flow(flows / f"{stem}_kitti/{year}/000000_10.png")[0].shape == (*SIZE, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: []", "stages must not be empty"),
        ("stages: [{network: MaskFlownet.yaml}]", r"stages\[1\].dataset is missing"),
        ("stages: [{network: X.yaml, dataset: chairs.yaml}]", "no config X.yaml"),
        (
            "stages: [{network: 1, dataset: x}]",
            r"stages\[1\].network must be the name or path of a config, or its content",
        ),
        ("stages: [{network: {base: MaskFlownet_S, o: 1}, dataset: chairs}]", "s.yaml: unknown key o"),
        ("stages: [{network: {base: chairs}, dataset: chairs}]", "s.yaml: a stage is no network config"),
        ("stage: []", "unknown key stage, did you mean 'stages'"),
        ("dataset: chairs", "s.yaml is no schedule of stages but the config of a single one"),
    ],
)
def test_wrong_schedules_are_one_sentence(tmp_path, capsys, text, message):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    assert run(run_stages.main, [str(path)]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err)
    assert err.count("\n") == 1
