"""Coarse levels begun anew, and a first stage replaced."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: requirements-torch.txt")

import main  # noqa: E402
from benchmarks.levels import load  # noqa: E402
from engine import coarse_levels, replace_head  # noqa: E402
from engine.checkpoint import HEAD, load_checkpoint, save_checkpoint  # noqa: E402
from engine.cli import run  # noqa: E402
from engine.coarse_levels import WIDTHS, restart_coarse_levels  # noqa: E402
from engine.config import load_network_config  # noqa: E402
from engine.errors import UserError  # noqa: E402
from engine.folders import WEIGHTS  # noqa: E402
from engine.torch_prediction import centred, to_float  # noqa: E402
from reader.synthetic import Synthetic  # noqa: E402
from tests.training_runs import write_configs  # noqa: E402

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
