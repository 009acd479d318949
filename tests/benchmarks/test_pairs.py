"""The table and the pictures of labelled pairs."""

import numpy as np
import pytest
from maskflownet.benchmarks import pairs
from maskflownet.benchmarks.pairs import GAP, LINE, grey, panels
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
    visible = read_image(tmp_path / "drawn/some_middlebury_Venus.jpg")[LINE:100, -pairs.WIDTH :]  # above on the right
    assert visible[:, : pairs.WIDTH // 2].mean() > 250
    assert visible[:, -pairs.WIDTH // 5 :].mean() < 5


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


def test_panels_keep_their_places():
    half = grey(np.full((20, 40), 0.5))
    drawn = panels([[("a", half), None], [("b", half), ("c", half)]], 80)
    assert drawn.shape == (2 * (40 + LINE + GAP) - GAP, 2 * (80 + GAP) - GAP, 3)
    assert (drawn[LINE : LINE + 40, :80] == 128).all()
    assert (drawn[: LINE + 40, 80:] == 255).all()
    assert (drawn[-40:, -80:] == 128).all()
