"""Coarse levels begun anew, a first stage replaced, and both as stages of a schedule."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="PyTorch is not installed: requirements-torch.txt")

import main  # noqa: E402
import run_stages  # noqa: E402
from benchmarks.levels import load  # noqa: E402
from engine import coarse_levels, replace_head  # noqa: E402
from engine.checkpoint import HEAD, load_checkpoint, save_checkpoint  # noqa: E402
from engine.cli import run  # noqa: E402
from engine.coarse_levels import WIDTHS, restart_coarse_levels  # noqa: E402
from engine.config import load_network_config  # noqa: E402
from engine.errors import UserError  # noqa: E402
from engine.folders import WEIGHTS  # noqa: E402
from engine.stages import load_schedule  # noqa: E402
from engine.torch_prediction import centred, to_float  # noqa: E402
from reader.synthetic import Synthetic  # noqa: E402
from tests.training_runs import NETWORK, write_configs  # noqa: E402

KINDS = ("weight", "bias")
SCENES = {"synthetic": {"length": 12, "validation_length": 2, "size": [144, 144]}}
COARSE = ("conv5", "conv6", "upfeat5", "deform5", "pred_flow5", "pred_flow6", "pred_mask5")


@pytest.fixture(scope="module")
def shipped():
    """The first stage of the shipped checkpoint, its coarse levels made dead."""
    (path,) = WEIGHTS.glob("*.params")
    checkpoint = load_checkpoint(path).head()
    parameters = {
        name: np.zeros_like(array) if name.startswith((*COARSE, "pred_mask6")) else array
        for name, array in checkpoint.parameters.items()
    }
    return replace(checkpoint, parameters=parameters)


def flows_of(checkpoint, tmp_path, *images):
    save_checkpoint(tmp_path / "x_1.params", checkpoint.parameters, checkpoint.record)
    config = load_network_config("MaskFlownet_S")
    network, colour = load(config, tmp_path / "x_1.params", torch.device("cpu"))
    images = [to_float(torch.from_numpy(image[None])) for image in images]
    with torch.no_grad():
        flows = network(*centred(images, colour))[:5]
    return [flow[0].flip(0).permute(1, 2, 0).numpy() for flow in flows]


def test_restarted_levels_match_at_once(shipped, tmp_path):
    """A picture that moves by 50 px: nothing for dead levels, most of it for their successors."""
    picture = Synthetic(1, 384, 640).scene(0).img1
    pair = picture[:, 70:582], picture[:, 20:532]  # what was at x is at x + 50
    assert np.abs(flows_of(shipped, tmp_path, *pair)[1]).max() == 0
    found = flows_of(restart_coarse_levels(shipped), tmp_path, *pair)
    for flow in found[1:]:
        shape = flow.shape[:2]
        inner = flow[shape[0] // 4 : -shape[0] // 4, shape[1] // 4 : -shape[1] // 4]
        assert abs(np.median(inner[..., 0]) - 50) < 15
        assert abs(np.median(inner[..., 1])) < 15


def test_what_is_new_and_what_is_kept(shipped):
    found = restart_coarse_levels(shipped)
    again = restart_coarse_levels(shipped)
    old, new = shipped.parameters, found.parameters
    assert {n: array.shape for n, array in old.items()} == {n: a.shape for n, a in new.items()}
    for name, array in new.items():
        assert array.dtype == np.float32 and np.isfinite(array).all()
        assert np.array_equal(array, again.parameters[name]), name
        if not name.startswith((*COARSE, "pred_mask6", "upfeat4")):
            changed = array != old[name]
            if name.startswith(("conv4_", "pred_flow4", "pred_mask4")) and array.ndim > 1:
                changed = changed[:, :-2]  # the last two read the flow from above
            assert not changed.any(), name
    # Correlations of both levels are as strong as those of level 4.
    with torch.no_grad():
        features, _ = coarse_levels._measure(found, None)
    strength = features.square().mean().sqrt()
    for level in (5, 6):
        for part, stride in (("a", 2), ("b", 1), ("c", 1)):
            weight, bias = (torch.from_numpy(new[f"conv{level}{part}.0.{k}"]) for k in KINDS)
            convolved = torch.nn.functional.conv2d(features, weight, bias, stride, padding=1)
            features = torch.nn.functional.leaky_relu(convolved, 0.1)
        assert features.shape[1] == WIDTHS[level]
        assert features.square().mean().sqrt() == pytest.approx(float(strength), rel=1e-3)


def test_nothing_is_dead_for_good(shipped, tmp_path):
    """Where two factors were zero, each would keep the other's gradient zero."""
    write_configs(tmp_path, target_shape=[128, 128], orig_shape=[140, 140], **SCENES)
    checkpoint = restart_coarse_levels(shipped)
    save_checkpoint(tmp_path / "x_1.params", checkpoint.parameters, checkpoint.record)
    line = ["--dataset_cfg", str(tmp_path / "data.yaml"), "--output_root", str(tmp_path)]
    line += ["-c", str(tmp_path / "x_1.params"), "--clear_steps", "--debug", "--engine", "torch"]
    assert run(main.main, [str(tmp_path / "network.yaml"), *line]) == 0
    (path,) = (tmp_path / "weights").glob("*_4.params")
    found = load_checkpoint(path).parameters
    for name, array in checkpoint.parameters.items():
        assert (array != found[name]).any(), name


def test_programs_write_a_checkpoint_with_its_origin(shipped, tmp_path, capsys):
    (path,) = WEIGHTS.glob("*.params")
    assert run(coarse_levels.main, ["-c", str(path), "--folder", str(tmp_path / "a")]) == 0
    (head,) = (tmp_path / "a").glob("*.params")
    made = load_checkpoint(head)
    assert made.record.network == "MaskFlownet_S"
    assert made.record.parent == f"{path.stem}, coarse levels begun anew"
    line = ["-c", str(path), "--head", str(head), "--folder", str(tmp_path / "b")]
    assert run(replace_head.main, line) == 0
    (full,) = (tmp_path / "b").glob("*.params")
    found, before = load_checkpoint(full), load_checkpoint(path)
    assert found.record.parent == f"{path.stem} with the first stage of {head.stem}"
    for name, array in found.parameters.items():
        mine = made.parameters[name[len(HEAD) :]] if name.startswith(HEAD) else None
        assert np.array_equal(array, before.parameters[name] if mine is None else mine), name
    bare = tmp_path / "bare.params"  # one of the authors' has no record
    bare.write_bytes(path.read_bytes())
    line = ["-c", str(bare), "--head", str(head), "--folder", str(tmp_path / "c")]
    assert run(replace_head.main, line) == 0
    assert [path.stem.partition("_")[2] for path in (tmp_path / "c").iterdir()] == ["0", "0"]
    capsys.readouterr()
    line = ["-c", str(head), "--head", str(path), "--folder", str(tmp_path / "b")]
    assert run(replace_head.main, line) == 2
    assert "it has no second stage" in capsys.readouterr().err
    with pytest.raises(UserError, match="coarse levels are those of MaskFlownet_S"):
        restart_coarse_levels(before)
    other = replace(made, record=replace(made.record, colour="BGR"))
    with pytest.raises(UserError, match="do not fit: colour is RGB and BGR"):
        before.with_head(other)


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
