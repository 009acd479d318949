"""Every benchmark of speed runs on the CPU, at a tiny size, with the code that times GPUs."""

import pytest
from maskflownet.settings.cli import run

pytest.importorskip("torch")

from maskflownet.benchmarks import inference, loader, training


@pytest.mark.parametrize(
    ("program", "line", "said"),
    [
        (inference, "--engines torch --size 64,64 --repeats 1 --kernels 2", "MaskFlownet torch float32, 1 x 1.5 GMAC"),
        (training, "--engines torch --cases MaskFlownet_S:1 --repeats 1", "MaskFlownet_S torch, 1 x 64x64: whole"),
        (loader, "--samples 1 --memory 32 --workers 1", "batches of chairs.yaml, 1 workers"),
    ],
)
def test_a_command_prints_its_table(program, line, said, capsys):
    assert run(program.main, line.split()) == 0
    assert said in capsys.readouterr().out
