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
    assert heads == [
        "kind", "mean flow, px", "MaskFlownet_S: EPE, px", "% of the flow", "EPE where visible, px"
    ]  # fmt: skip
    assert [row[0] for row in rows] == ["large motion", "small motion", "mean of 2"]

    predictor = load("MaskFlownet_S", str(checkpoint))
    scenes = Synthetic(2, 64, 128, SEED, None, SceneOptions(motion_scale=2.5))
    lengths, errors, visible = [], [], []
    for i in range(2):
        scene = scenes.scene(i)
        error = np.sqrt(((predictor(scene.img1, scene.img2).flow - scene.flow) ** 2).sum(axis=2))
        lengths.append(np.sqrt((scene.flow**2).sum(axis=2)).mean())
        errors.append(error.mean())
        visible.append(error[scene.occlusion[..., 0] == 0].mean())
    large, small, mean = np.array([row[1:] for row in rows], float)
    share = 100 * np.mean(errors) / np.mean(lengths)
    assert large[0] == pytest.approx(np.mean(lengths), abs=6e-3)
    assert large[[1, 3]] == pytest.approx([np.mean(errors), np.mean(visible)], abs=6e-4)
    assert large[2] == pytest.approx(share, abs=0.06)
    assert large[1] != large[3]  # there are occlusions to be left out
    assert small[0] < large[0] / 5
    assert mean == pytest.approx((large + small) / 2, abs=0.06)

    assert run(scene_kinds.main, line) == 0
    assert capsys.readouterr().out == printed


def test_columns_for_every_checkpoint(random_checkpoints, tmp_path, capsys):
    copy = tmp_path / "other.params"
    copy.write_bytes(random_checkpoints["MaskFlownet_S"].read_bytes())
    line = command(random_checkpoints["MaskFlownet_S"], "-c", str(copy), "--count", "1")
    assert run(scene_kinds.main, [*line, "--kinds", "fog"]) == 0
    heads, _, fog, mean = map(cells, capsys.readouterr().out.splitlines())
    assert heads[2::3] == ["MaskFlownet_S: EPE, px", "other: EPE, px", "other less the first, px"]
    assert fog[2:5] == fog[5:8]  # the same parameters on the same scene
    assert fog[8] == "+0.000"  # and of one scene there is no standard error
    assert mean[1:] == fog[1:]


def test_differences_have_the_standard_error_of_paired_images():
    def images(*errors):
        return [{"epe": (4 * error, 4), "matched": (2 * error, 2)} for error in errors]

    def row(kind, *errors):
        found = scene_kinds.differences([images(1, 2, 3, 4), images(*errors)])
        return scene_kinds.Row(kind, 5.0, np.ones((3, 2)), found)

    rows = [row("a", 0.9, 1.7, 3.1, 3.5), row("b", 1.1, 2.3, 2.9, 4.5)]
    first, second = rows[0].changes().T
    assert first == pytest.approx([0, 0])
    differences = np.array([-0.1, -0.3, 0.1, -0.5])
    assert second == pytest.approx([-0.2, differences.std(ddof=1) / 2])
    # The second kind's are their opposites, image by image: no difference on average, for certain.
    assert scene_kinds.over_kinds(rows).changes()[:, 1] == pytest.approx([0, 0])
    assert scene_kinds.over_kinds([rows[0]] * 2).changes()[:, 1] == pytest.approx(second)
    line = scene_kinds.table(rows, ["x", "y"]).splitlines()[2]
    assert cells(line)[5:] == ["1.000", "1.0", "1.000", "-0.200 ± 0.129"]


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
