"""The table and the pictures of labelled pairs."""

import numpy as np
import pytest
from maskflownet.benchmarks import pairs
from maskflownet.benchmarks.pairs import COLUMNS, GAP, LINE
from maskflownet.inference.confidence import average_precision
from maskflownet.inference.metrics import means, measure
from maskflownet.inference.predictor import load
from maskflownet.reader.formats import read_image, write_image
from maskflownet.reader.pairs import Pairs
from maskflownet.settings.cli import run

from tests.trees import make_pairs


@pytest.fixture
def root(tmp_path):
    """Five pairs, of which the last one has occlusions: its right quarter."""
    root = make_pairs(tmp_path / "some", unlabelled=False)
    height, width = read_image(root / "middlebury/Venus/frame10.png").shape[:2]
    occlusion = np.zeros((height, width), np.uint8)
    occlusion[:, -width // 4 :] = 255
    write_image(root / "middlebury/Venus/occlusions.png", occlusion)
    return root


def cells(line):
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def test_the_table_and_the_pictures(root, random_checkpoints, tmp_path, capsys):
    line = ["MaskFlownet_S", str(root), "-c", str(random_checkpoints["MaskFlownet_S"])]
    assert run(pairs.main, [*line, "--pictures", str(tmp_path / "drawn")]) == 0
    heads, _, *rows = map(cells, capsys.readouterr().out.splitlines())
    assert heads[2:5] == ["EPE, px", "Fl, %", "occluded, %"]
    assert [row[0] for row in rows[:-2:2]] == [f"some/{p.name}" for p in Pairs(root).pairs]
    assert [row[1] for row in rows] == ["MaskFlownet_S", "OpenCV DIS"] * 6
    dataset = Pairs(root)
    sample, occlusion = dataset[4], dataset.occlusion(4)[..., 0] > 0
    found = pairs.dis(sample.img1, sample.img2)
    error = np.linalg.norm(found.flow - sample.flow, axis=2)
    venus = rows[9]
    assert float(venus[2]) == pytest.approx(error.mean(), abs=1e-3)
    assert venus[4:6] == ["25.0", ""]
    precision = average_precision(1 - found.confidence[..., 0], occlusion)
    assert venus[6].startswith(f"{precision:.3f} (")
    assert rows[8][5] != ""
    assert rows[0][4:] == ["", "", ""]
    means = [np.mean([float(row[2]) for row in rows[i:-2:2]]) for i in (0, 1)]
    assert [float(row[2]) for row in rows[-2:]] == pytest.approx(means, abs=1e-3)
    assert rows[-1][6] == f"{venus[6]}, 1 of 5 pairs"
    assert len(list((tmp_path / "drawn").iterdir())) == 5
    height, width = sample.img1.shape[:2]
    drawn = read_image(tmp_path / "drawn/some_middlebury_Venus.jpg")
    assert drawn.shape == (2 * (LINE + height + GAP), len(COLUMNS) * (width + GAP), 3)
    for row in np.split(drawn, 2):
        column = dict(zip(COLUMNS, np.split(row[LINE : LINE + height], len(COLUMNS), axis=1)))
        visible = column["occlusion"][:, :width]
        assert visible[:, : width // 2].mean() > 250 and visible[:, -width // 5 :].mean() < 5
        assert abs(column["second"][:, :width].astype(int) - sample.img2).mean() < 5
    assert column["mask"].mean() > 254  # DIS has none


def test_flows_are_compared_with_those_of_another_run(root, random_checkpoints, tmp_path, capsys):
    line = ["MaskFlownet_S", "-c", str(random_checkpoints["MaskFlownet_S"]), "--flows", str(tmp_path / "flows.npz")]
    line.append(str(root))
    assert run(pairs.main, [*line, "--engine", "mxnet"]) == 0
    assert "wrote" in capsys.readouterr().out
    assert run(pairs.main, [*line, "--engine", "torch"]) == 0
    difference = float(capsys.readouterr().out.split()[-2])
    assert 0 < difference < 1e-3
    assert run(pairs.main, [*line, str(make_pairs(root.parent / "more", unlabelled=False))]) == 2
    assert "other pairs" in capsys.readouterr().err


def test_the_network_sees_the_size_that_is_asked_for(root, random_checkpoints, capsys):
    line = ["MaskFlownet_S", str(root), "-c", str(random_checkpoints["MaskFlownet_S"])]
    predictor = load("MaskFlownet_S", line[-1], resize=(128, 192))
    sample = Pairs(root)[0]
    found = predictor(sample.img1, sample.img2).flow
    expected = means(measure(found, sample.flow, sample.mask))["epe"]
    tables = []
    for more in ([], ["--resize", "128,192"]):
        assert run(pairs.main, [*line, *more]) == 0
        tables.append([cells(row)[2] for row in capsys.readouterr().out.splitlines()[2:]])
    usual, resized = tables
    assert float(resized[0]) == pytest.approx(expected, abs=1e-3)
    assert usual[0] != resized[0] and usual[1::2] == resized[1::2]  # DIS sees the images
    assert run(pairs.main, [*line, "--resize", "128,192", "--pad"]) == 2
