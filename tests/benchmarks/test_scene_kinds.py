"""The table of errors by kind of synthetic scene."""

import numpy as np
import pytest
from maskflownet.benchmarks import scene_kinds
from maskflownet.benchmarks.scene_kinds import KINDS
from maskflownet.inference.predictor import load
from maskflownet.scenes.draw import SceneOptions
from maskflownet.scenes.synthetic import Synthetic
from maskflownet.settings.cli import run

SEED = 77


def command(checkpoint, *others):
    line = ["MaskFlownet_S", "-c", str(checkpoint), "--size", "64,128", "--seed", str(SEED)]
    return [*line, *others]


def cells(line):
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def test_the_numbers_are_those_of_a_direct_computation(random_checkpoints, capsys):
    checkpoint = random_checkpoints["MaskFlownet_S"]
    line = command(checkpoint, "--count", "2", "--kinds", "large motion, small motion")
    assert run(scene_kinds.main, line) == 0
    printed = capsys.readouterr().out
    heads, _, *rows = map(cells, printed.splitlines())
    assert heads == ["kind", "mean flow, px", "MaskFlownet_S: EPE, px"]
    assert [row[0] for row in rows] == ["large motion", "small motion", "mean of 2"]

    predictor = load("MaskFlownet_S", str(checkpoint))
    scenes = Synthetic(2, 64, 128, SEED, None, SceneOptions(motion_scale=2.5))
    expected = []
    for scene in map(scenes.scene, range(2)):
        flow = predictor(scene.img1, scene.img2).flow
        expected.append([np.linalg.norm(values, axis=2).mean() for values in (scene.flow, flow - scene.flow)])
    large, small, mean = np.array([row[1:] for row in rows], float)
    assert large == pytest.approx(np.mean(expected, axis=0), abs=6e-4)
    assert small[0] < large[0] / 5
    assert mean == pytest.approx((large + small) / 2, abs=2e-3)

    assert run(scene_kinds.main, line) == 0
    assert capsys.readouterr().out == printed


def test_columns_for_every_checkpoint(random_checkpoints, tmp_path, capsys):
    copy = tmp_path / "other.params"
    copy.write_bytes(random_checkpoints["MaskFlownet_S"].read_bytes())
    line = command(random_checkpoints["MaskFlownet_S"], "-c", str(copy), "--count", "1")
    assert run(scene_kinds.main, [*line, "--kinds", "fog"]) == 0
    heads, _, fog, mean = map(cells, capsys.readouterr().out.splitlines())
    assert heads[2:] == ["MaskFlownet_S: EPE, px", "other: EPE, px"]
    assert fog[2] == fog[3]  # the same parameters on the same scene, and of one scene there is no standard error
    assert mean[1:] == fog[1:]


def test_differences_have_the_standard_error_of_paired_images():
    rows = {"a": np.array([[5, 5, 5, 5], [1, 2, 3, 4], [0.9, 1.7, 3.1, 3.5]])}
    *_, kind, mean = map(cells, scene_kinds.table(rows, ["x", "y"]).splitlines())
    assert kind == ["a", "5.000", "2.500", "2.300 ± 0.129"]  # differences of -0.1, -0.3, 0.1, -0.5
    assert mean == ["mean of 1", "5.000", "2.500", "2.300"]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--kinds", "fog,small motoin"], "no kind 'small motoin', did you mean 'small motion'?"),
        (["--kinds", ""], "no kind ''"),
        (["--count", "0"], "'0' is not a whole number above 0"),
        (["--size", "8,64"], "a scene of 8x64 px is smaller than 16 px"),
        (["--textures", "nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_are_one_sentence(others, message, capsys):
    assert run(scene_kinds.main, command("any", *others)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_every_kind_but_the_first_differs_from_the_standard():
    scenes = {kind: Synthetic(12, 64, 128, SEED, None, options) for kind, options in KINDS.items()}
    standard = [scenes["standard"].scene(i) for i in range(12)]
    for kind, dataset in scenes.items():
        same = all((dataset.scene(i).img1 == standard[i].img1).all() for i in range(12))
        assert same == (kind == "standard"), kind
