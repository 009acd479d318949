"""The benchmarks: speeds on the CPU, at a tiny size, with the code that times GPUs; the table of labelled pairs."""

from importlib import import_module

import numpy as np
import pytest
from maskflownet.benchmarks import pairs
from maskflownet.inference.confidence import average_precision
from maskflownet.reader.formats import read_image, write_image
from maskflownet.reader.pairs import Pairs
from maskflownet.settings.cli import run

from tests.trees import make_pairs


@pytest.mark.parametrize(
    ("program", "line", "said"),
    [
        ("inference", "--engines torch --size 64,64 --repeats 1", "MaskFlownet torch float32, 1 x 1.5 GMAC"),
        ("inference", "--nodes --size 64,64 --repeats 1", "| correlation6_correlation0 correlation |"),
        ("training", "--cases MaskFlownet_S:1 --repeats 1", "MaskFlownet_S float32, 1 x 64x64: whole"),
        ("end_to_end", "MaskFlownet_S {0} --to .flo --repeats 1 --peer true", "writing: "),
    ],
)
def test_a_command_prints_its_table(program, line, said, capsys, monkeypatch, tmp_path):
    pytest.importorskip("torch")
    monkeypatch.setattr("maskflownet.benchmarks.inference.REPEATED", 1)
    for number in range(3):
        write_image(tmp_path / f"{number}.png", np.zeros((40, 60, 3), np.uint8))
    assert run(import_module(f"maskflownet.benchmarks.{program}").main, line.format(tmp_path).split()) == 0
    assert said in capsys.readouterr().out


def cells(line):
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def test_the_table(random_checkpoints, tmp_path, capsys):
    """Five pairs, of which the last one has occlusions: its right quarter."""
    root = make_pairs(tmp_path / "some", unlabelled=False)
    height, width = read_image(root / "middlebury/Venus/frame10.png").shape[:2]
    occlusion = np.zeros((height, width), np.uint8)
    occlusion[:, -width // 4 :] = 255
    write_image(root / "middlebury/Venus/occlusions.png", occlusion)
    line = ["MaskFlownet_S", str(root), "-c", str(random_checkpoints["MaskFlownet_S"])]
    assert run(pairs.main, line) == 0
    heads, _, *rows = map(cells, capsys.readouterr().out.splitlines())
    assert heads[2:5] == ["EPE, px", "Fl, %", "occluded, %"]
    assert [row[0] for row in rows[:-2:2]] == [f"some/{p.name}" for p in Pairs(root).pairs]
    assert [row[1] for row in rows] == ["MaskFlownet_S", "OpenCV DIS"] * 6
    sample, occlusion, _ = Pairs(root).labelled(4)
    found = pairs.dis(sample.img1, sample.img2)
    error = np.linalg.norm(found.flow - sample.flow, axis=2)
    venus = rows[9]
    assert float(venus[2]) == pytest.approx(error.mean(), abs=1e-3)
    assert venus[4:6] == ["25.0", ""]
    precision = average_precision(1 - found.confidence[..., 0], occlusion[..., 0] > 0)
    assert venus[6] == f"{precision:.3f}"
    assert rows[8][5] != ""
    assert rows[0][4:] == ["", "", ""]
    means = [np.mean([float(row[2]) for row in rows[i:-2:2]]) for i in (0, 1)]
    assert [float(row[2]) for row in rows[-2:]] == pytest.approx(means, abs=1e-3)
    assert rows[-1][6] == f"{venus[6]}, 1 of 5 pairs"
