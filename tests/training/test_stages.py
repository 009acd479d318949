"""Schedules whose stages begin with parts of earlier ones, or that begin with a later stage."""

import numpy as np
import pytest
import yaml

pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet.checkpoints.checkpoint import load_checkpoint  # noqa: E402
from maskflownet.errors import UserError  # noqa: E402
from maskflownet.network.architecture import HEAD  # noqa: E402
from maskflownet.settings.cli import run  # noqa: E402
from maskflownet.settings.folders import WEIGHTS  # noqa: E402
from maskflownet.training.stages import load_schedule  # noqa: E402

import run_stages  # noqa: E402
from tests.training_runs import NETWORK, write_configs  # noqa: E402


def stages_of(folder, *changes) -> str:
    """A schedule of S, full, S, full on tiny data; `changes` go to its last stages."""
    stages = []
    for network in ("MaskFlownet_S", "MaskFlownet"):
        write_configs(folder / network, {**NETWORK, "network": {"class": network}})
        files = {part: str(folder / network / f"{part}.yaml") for part in ("network", "data")}
        stages.append({"network": files["network"], "dataset": files["data"]})
    stages += [{**stage, **change} for stage, change in zip(stages, changes)]
    path = folder / "stages.yaml"
    path.write_text(yaml.safe_dump({"stages": stages}))
    return str(path)


@pytest.mark.parametrize("coarse", [True, False])
def test_a_schedule_takes_up_the_first_stage_and_keeps_a_second_stage(tmp_path, coarse):
    schedule = stages_of(tmp_path, {"coarse_levels": coarse}, {"second_stage": 2})
    line = [schedule, "--output_root", str(tmp_path), "--scale", "0.01", "--engine", "torch"]
    assert run(run_stages.main, line) == 0
    runs = yaml.safe_load((tmp_path / "logs/stages.stages.yaml").read_text())["runs"]
    s, full, again, last = (load_checkpoint(tmp_path / f"weights/{r}_1.params") for r in runs)
    assert again.record.parent == f"{runs[1]}_1" and last.record.parent == f"{runs[2]}_1"
    # One step at 1e-4 moves no weight by more than that.
    if coarse:
        blurred = np.diagonal(again.parameters["conv5a.0.weight"][:96, :96, 1, 1])
        assert np.ptp(blurred) < 3e-4 and blurred.mean() > 0.1
    else:
        for name, array in again.parameters.items():
            assert np.abs(array - full.parameters[HEAD + name]).max() < 1.1e-4, name
    for name, array in last.parameters.items():
        if name.startswith(HEAD):
            assert np.array_equal(array, again.parameters[name[len(HEAD) :]]), name
        else:
            assert np.abs(array - full.parameters[name]).max() < 1.1e-4, name


def test_a_schedule_begins_with_a_later_stage(tmp_path, capsys):
    schedule = stages_of(tmp_path, {}, {"second_stage": 2})
    (path,) = WEIGHTS.glob("*.params")
    common = [schedule, "--output_root", str(tmp_path), "--scale", "0.01", "--engine", "torch"]
    line = [*common, "--begin", "3", "-c", str(path)]
    assert run(run_stages.main, line) == 0
    out = capsys.readouterr().out
    assert "stage 3 of 4 has ended" in out and "stage 2" not in out
    state = yaml.safe_load((tmp_path / "logs/stages.stages.yaml").read_text())
    third, fourth = (load_checkpoint(tmp_path / f"weights/{r}_1.params") for r in state["runs"])
    start = load_checkpoint(path)
    for name, array in fourth.parameters.items():  # one step at 1e-4
        assert np.abs(array - start.parameters[name]).max() < 1.1e-4, name
        if name.startswith(HEAD):
            assert np.array_equal(array, third.parameters[name[len(HEAD) :]]), name
    assert third.record.parent == path.stem and fourth.record.parent == third.path.stem

    fourth.path.unlink()  # as after a kill: the same command goes on, others do not
    assert run(run_stages.main, common) == 2
    assert run(run_stages.main, [*line, "--begin", "4"]) == 2
    assert capsys.readouterr().err.count("begin again with --fresh") == 2
    assert run(run_stages.main, line) == 0
    assert fourth.path.exists()
    assert yaml.safe_load((tmp_path / "logs/stages.stages.yaml").read_text()) == state


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--begin", "5", "-c", "x"], "has 4 stages: there is no stage 5 to begin with"),
        (["--begin", "2"], "--begin 2 needs -c: a checkpoint that stands for the stages before"),
        (["--begin", "0"], "--begin: '0' is not a whole number above 0"),
    ],
)
def test_a_wrong_stage_to_begin_with_is_refused(tmp_path, capsys, arguments, message):
    line = [stages_of(tmp_path, {}, {}), "--output_root", str(tmp_path / "home"), *arguments]
    assert run(run_stages.main, line) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (({"coarse_levels": "yes"}, {}), r"coarse_levels must be true or false, not 'yes'"),
        (({}, {"coarse_levels": True}), r"stages\[4\].coarse_levels is for a later stage of"),
        (({}, {"second_stage": 0}), r"second_stage must be at least 1, not 0"),
        (({}, {"second_stage": 1}), r"stages\[4\].second_stage .* names an earlier stage of it"),
        (({}, {"second_stage": 4}), r"stages\[4\].second_stage .* names an earlier stage of it"),
        (({"second_stage": 2}, {}), r"stages\[3\].second_stage is for MaskFlownet"),
    ],
)
def test_a_schedule_with_a_wrong_start_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        load_schedule(stages_of(tmp_path, *changes))
