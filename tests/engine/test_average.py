"""The mean of checkpoints: its numbers, its record, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from engine.average import average, main
from engine.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from engine.cli import run
from engine.derived import is_taken
from engine.errors import UserError
from engine.folders import WEIGHTS
from engine.loading import read_checkpoint
from engine.params_file import read_params
from engine.records import Record, record_path
from engine.snapshots import state_path
from tests.training_runs import train_in, write_configs

RUN = "abcJan01-0000"
NAME = "conv6a.0.weight"


def save(folder, step, values, **settings):
    record = Record(**{"network": "MaskFlownet_S", "run": RUN, "step": step, **settings})
    path = folder / f"{RUN}_{step}.params"
    save_checkpoint(path, values, record)
    return path


def command(paths, folder):
    return [*(part for path in paths for part in ("-c", str(path))), "--folder", str(folder)]


def test_the_mean_is_summed_in_float64_and_rounded_once(tmp_path):
    values = [1e8, 1, -1e8, 1]  # whose sum in float32 is 1
    paths = [
        save(tmp_path, i, {NAME: np.full((2, 3), v), "b": np.full(2, v / 4)})
        for i, v in enumerate(values)
    ]
    main(command(paths, tmp_path / "mean"))
    (path,) = (tmp_path / "mean").glob("*.params")
    arrays = read_params(path)
    assert {name: array.dtype for name, array in arrays.items()} == {NAME: "f4", "b": "f4"}
    np.testing.assert_array_equal(arrays[NAME], np.full((2, 3), 0.5, "f4"))
    np.testing.assert_array_equal(arrays["b"], np.full(2, 0.125, "f4"))


def test_the_record_is_the_newest_ones_and_says_what_it_was_made_of(tmp_path, capsys):
    settings = {"colour": "BGR", "flow_multiplier": 2.0, "config": {"options": {"shard": 3}}}
    paths = [
        save(tmp_path, step, {NAME: np.ones(1)}, **settings, seed=step, metrics={"mean_epe": 1.0})
        for step in (5, 20, 10)
    ]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):
        assert run(main, command(paths, tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    made = sorted(set(tmp_path.iterdir()) - set(before))
    assert sorted(path.suffix for path in made) == [".params", ".params", ".yaml", ".yaml"]
    assert {path: path.read_bytes() for path in before} == before
    parent = f"mean of {RUN}_5, {RUN}_20, {RUN}_10"
    for line in lines:
        path, told = line.split(": ")
        assert told == parent
        record = load_checkpoint(path).record
        assert path.endswith(f"/{record.run}_20.params") and record.run != RUN
        assert find_checkpoint(record.run, tmp_path) == find_checkpoint(path)
        wanted = load_checkpoint(paths[1]).record
        changed = {"run", "parent", "time", "metrics", "sha256"}
        same = {key: getattr(record, key) for key in changed}
        assert replace(wanted, **same) == record
        assert (record.parent, record.metrics) == (parent, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "MaskFlownet"}, "its network is MaskFlownet, not MaskFlownet_S"),
        ({"pyramid": "released"}, "its pyramid is released, not paper"),
        ({"colour": "BGR"}, "its colour is BGR, not RGB"),
        ({"flow_multiplier": 2.0}, r"its flow_multiplier is 2\.0, not 1\.0"),
    ],
)
def test_other_settings_are_refused(tmp_path, settings, message):
    mark = "conv6x.0.weight" if "network" in settings else NAME
    paths = [
        save(tmp_path, 1, {NAME: np.ones(1)}),
        save(tmp_path, 2, {mark: np.ones(1)}, **settings),
    ]
    with pytest.raises(UserError, match=f"{RUN}_2.params cannot be averaged with .*: {message}"):
        main(command(paths, tmp_path / "mean"))
    assert not (tmp_path / "mean").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({NAME: np.ones(1)}, "it lacks b"),
        ({NAME: np.ones(1), "b": np.ones(2), "c": np.ones(1)}, "it alone has c"),
        ({NAME: np.ones(1), "b": np.ones(1)}, r"its b has shape \(1,\), not \(2,\)"),
    ],
)
def test_other_arrays_are_refused(tmp_path, values, message):
    paths = [save(tmp_path, 1, {NAME: np.ones(1), "b": np.ones(2)}), save(tmp_path, 2, values)]
    with pytest.raises(UserError, match=f"{RUN}_2.params cannot be averaged with .*: {message}"):
        average(map(load_checkpoint, paths))


def test_one_checkpoint_or_one_given_twice_is_no_mean(tmp_path, capsys):
    path = save(tmp_path, 1, {NAME: np.ones(1)})
    assert run(main, command([path], tmp_path / "mean")) == 2
    assert "at least two checkpoints" in capsys.readouterr().err
    again = tmp_path / "." / ".." / tmp_path.name / path.name
    assert run(main, command([path, again], tmp_path / "mean")) == 2
    assert "is given twice" in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()


def test_a_run_id_that_is_taken_is_not_taken_again(tmp_path):
    save(tmp_path, 1, {NAME: np.ones(1)})
    assert is_taken(RUN, tmp_path)
    assert not is_taken("fffJan01-0000", tmp_path)
    shipped = next(WEIGHTS.glob("*_*.params")).stem.rpartition("_")[0]
    assert is_taken(shipped, tmp_path / "none")


def test_files_without_record_are_averaged_under_the_step_of_their_names(tmp_path):
    paths = [save(tmp_path, step, {NAME: np.full(1, step, "f4")}) for step in (3, 4)]
    for path in paths:
        record_path(path).unlink()
    main(command(paths, tmp_path / "mean"))
    (path,) = (tmp_path / "mean").glob("*.params")
    made = load_checkpoint(path)
    assert made.parameters[NAME] == 3.5
    assert (made.record.step, made.record.pyramid) == (4, "released")


def test_a_run_does_not_go_on_from_a_mean(tmp_path):
    write_configs(tmp_path, checkpoint_steps=1)
    train_in(tmp_path, steps=2, run=RUN)
    weights = tmp_path / "weights"
    paths = [weights / f"{RUN}_{step}.params" for step in (1, 2)]
    main(command(paths, weights))
    (path,) = set(weights.glob("*_2.params")) - set(paths)
    assert not state_path(path).exists()
    mean = read_checkpoint(path)
    old, new = (read_params(path) for path in paths)
    for name, array in mean.parameters.items():
        np.testing.assert_allclose(array, (old[name] + new[name]) / 2, rtol=1e-6, atol=1e-9)
    with pytest.raises(UserError, match="state .* is not beside it .--clear_steps starts a new"):
        train_in(tmp_path, checkpoint=mean, steps=3)
