"""Schedules of stages: from one to the next, from a later one on, after an interruption."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet.checkpoints.checkpoint import load_checkpoint, read_checkpoint  # noqa: E402
from maskflownet.errors import UserError  # noqa: E402
from maskflownet.network.architecture import HEAD  # noqa: E402
from maskflownet.settings.cli import run  # noqa: E402
from maskflownet.settings.schema import read_yaml, yaml_text  # noqa: E402
from maskflownet.training.launch import EngineChoice, train_on  # noqa: E402
from maskflownet.training.snapshots import Lock  # noqa: E402

import run_stages  # noqa: E402
from tests.training_runs import NETWORK, write_configs  # noqa: E402


def test_a_port_that_is_no_number_is_refused(monkeypatch):
    for name, value in {"ROLE": "worker", "PS_ROOT_URI": "host", "PS_ROOT_PORT": "http"}.items():
        monkeypatch.setenv(f"DMLC_{name}", value)
    with pytest.raises(UserError, match="DMLC_PS_ROOT_PORT"):
        train_on(EngineChoice(engine="mxnet"), None, None, None, None)


def line_of(folder, networks) -> list[str]:
    """The command for a schedule on tiny data, one step each; the last stage is no file's name but what is in one."""
    stages = []
    for network in networks:
        write_configs(folder / network, {**NETWORK, "network": {"class": network}})
        stages.append({key: str(folder / network / f"{file}.yaml") for key, file in
                       (("network", "network"), ("dataset", "data"))})  # fmt: skip
    stages[-1] = {key: {"base": file} for key, file in stages[-1].items()}
    path = folder / "stages.yaml"
    path.write_text(yaml_text({"stages": stages}))
    return [str(path), "--output_root", str(folder), "--scale", "0.01", "--engine", "torch"]


def checkpoints(folder) -> list:
    runs = read_yaml(folder / "logs/stages.stages.yaml")["runs"]
    return [load_checkpoint(folder / f"weights/{run_id}_1.params") for run_id in runs]


def test_a_schedule_begins_with_a_later_stage(tmp_path, capsys):
    common = line_of(tmp_path, ["MaskFlownet_S", "MaskFlownet", "MaskFlownet"])
    path = read_checkpoint("97f").path
    line = [*common, "--begin", "2", "-c", str(path)]
    assert run(run_stages.main, [*common, "--begin", "2", "-c", "fff"]) == 2  # saves nothing, and so binds to nothing
    assert run(run_stages.main, line) == 0
    out = capsys.readouterr().out
    assert "stage 2 of 3 has ended" in out and "stage 1" not in out
    second, third = checkpoints(tmp_path)
    start = load_checkpoint(path)
    for name, array in third.parameters.items():  # two steps at 1e-4
        assert np.abs(array - start.parameters[name]).max() < 2.2e-4, name
        if name.startswith(HEAD):
            assert np.array_equal(array, start.parameters[name]), name
    assert second.record.parent == path.stem and third.record.parent == second.path.stem

    state = read_yaml(tmp_path / "logs/stages.stages.yaml")
    third.path.unlink()  # as after a kill: the same command goes on, others do not
    assert run(run_stages.main, common) == 2
    assert run(run_stages.main, [*line, "--begin", "3"]) == 2
    assert capsys.readouterr().err.count("begin again with --fresh") == 2
    assert run(run_stages.main, line) == 0
    assert third.path.exists()
    assert read_yaml(tmp_path / "logs/stages.stages.yaml") == state


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("null", "runs must be a list, not None"),
        ("['../x']", "runs[1] may have 1 to 100 letters, digits, _ and - only, not '../x'"),
    ],
)
def test_a_state_file_that_someone_wrote_into_is_one_sentence(tmp_path, capsys, runs, message):
    line = line_of(tmp_path, ["MaskFlownet_S"])
    state_file = tmp_path / "logs/stages.stages.yaml"
    stage = [str(tmp_path / f"MaskFlownet_S/{file}.yaml") for file in ("network", "data")]
    state = {"scale": 0.01, "seed": 0, "debug": False, "shard": 1, "checkpoint": None, "stages": [stage]}
    state_file.parent.mkdir()
    state_file.write_text(yaml_text(state) + f"runs: {runs}\n")
    assert run(run_stages.main, line) == 2
    assert capsys.readouterr().err == f"error: {state_file}: {message}\n"
    lock = Lock(tmp_path / "logs/.stages.stages.yaml.lock", "it")  # a second call at the same time
    assert run(run_stages.main, line) == 2
    assert f"the schedule of {state_file} is in the hands of process" in capsys.readouterr().err
    lock.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--begin", "3", "-c", "x"], "has 2 stages: there is no stage 3 to begin with"),
        (["--begin", "2"], "--begin 2 needs -c: a checkpoint that stands for the stages before"),
        (["--begin", "0"], "--begin: '0' is not a whole number above 0"),
    ],
)
def test_a_wrong_stage_to_begin_with_is_refused(tmp_path, capsys, arguments, message):
    line = line_of(tmp_path, ["MaskFlownet_S", "MaskFlownet_S"])
    assert run(run_stages.main, [*line, "--output_root", str(tmp_path / "home"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
