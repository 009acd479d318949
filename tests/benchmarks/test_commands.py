"""The benchmarks of speed run on the CPU, at a tiny size, with the code that times GPUs."""

import numpy as np
import pytest
from maskflownet.reader.formats import write_image
from maskflownet.settings.cli import run

pytest.importorskip("torch")

from maskflownet.benchmarks import end_to_end, inference, training


@pytest.mark.parametrize(
    ("program", "line", "said"),
    [
        (inference, "--engines torch --size 64,64 --repeats 1", "MaskFlownet torch float32, 1 x 1.5 GMAC"),
        (inference, "--nodes --size 64,64 --repeats 1", "| correlation6_correlation0 correlation |"),
        (training, "--cases MaskFlownet_S:1 --repeats 1", "MaskFlownet_S float32, 1 x 64x64: whole"),
        (end_to_end, "MaskFlownet_S {0} --to .flo --repeats 1 --peer true", "writing: "),
    ],
)
def test_a_command_prints_its_table(program, line, said, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(inference, "REPEATED", 1)
    for number in range(3):
        write_image(tmp_path / f"{number}.png", np.zeros((40, 60, 3), np.uint8))
    assert run(program.main, line.format(tmp_path).split()) == 0
    assert said in capsys.readouterr().out
