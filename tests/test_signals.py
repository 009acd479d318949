"""Each signal that asks for an end, in each kind of program: what was reached is saved, nothing half-written stays."""

import re
import signal
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet import main, predict_new_data  # noqa: E402
from maskflownet.checkpoints.checkpoint import load_checkpoint  # noqa: E402
from maskflownet.engine.torch.engine import TorchEngine  # noqa: E402
from maskflownet.engine.torch.training import TorchTraining  # noqa: E402
from maskflownet.processes import ENDING  # noqa: E402
from maskflownet.reader.video import VideoReader  # noqa: E402
from maskflownet.settings.cli import run  # noqa: E402
from maskflownet.tools import synthetic  # noqa: E402

import run_stages  # noqa: E402
from tests.training.test_launch import line_of  # noqa: E402
from tests.training_runs import write_configs  # noqa: E402
from tests.videos import make  # noqa: E402

WEIGHTS = ["-c", "97f", "--engine", "torch"]


def prepare(kind: str, folder: Path):
    """A program with its arguments, what it calls over and over, and what it says in the end."""
    write_configs(folder, validation=["synthetic"], validation_steps=2)
    for name in "ab":
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((64, 64, 3), np.uint8))
    network, *data = str(folder / "network.yaml"), "--dataset_cfg", str(folder / "data.yaml")
    home = ["--output_root", str(folder / "out")]
    goes_on = r"interrupted at step 2: -c \S+ goes on from step 2"
    match kind:
        case "training" | "validation in training":
            arguments = [network, *data, *home, "--engine", "torch", "--steps", "9"]
            called = (TorchTraining, "train_batch") if kind == "training" else (TorchEngine, "submit")
            return main.main, arguments, called, goes_on
        case "stages":
            arguments = [*line_of(folder, ["MaskFlownet_S"]), *home, "--scale", "0.1"]
            said = rf"stage 1 was interrupted: the same command goes on with it \({goes_on}\)"
            return run_stages.main, arguments, (TorchTraining, "train_batch"), said
        case "prediction":
            arguments = [str(folder / "out/flow.gif"), "MaskFlownet", "--folder", str(folder), *WEIGHTS]
            return predict_new_data.main, arguments, (TorchEngine, "submit"), "interrupted"
        case "live":
            url = make(folder / "live.mp4", 300, 10).as_uri()  # half a minute
            arguments = [str(folder / "out/flow.mp4"), "MaskFlownet", "--video_filepath", url, *WEIGHTS]
            return predict_new_data.main, arguments, (TorchEngine, "submit"), "interrupted"
        case "validation":
            arguments = ["MaskFlownet", *data, *home, *WEIGHTS, "--valid", "--report"]
            return main.main, arguments, (TorchEngine, "submit"), "interrupted"
        case "tool":
            arguments = [str(folder / "out/set"), "--count", "9", "--size", "64,64"]
            return synthetic.main, arguments, (synthetic, "write_flo"), "interrupted"


KINDS = "training", "stages", "validation in training", "prediction", "live", "validation", "tool"


@pytest.mark.parametrize(("kind", "number"), [*zip(KINDS, cycle(ENDING))])
def test_a_signal_ends_a_program_as_ctrl_c_does(tmp_path, monkeypatch, capsys, kind, number):
    program, arguments, (owner, name), said = prepare(kind, tmp_path)
    (tmp_path / "out").mkdir()
    call, calls, before = getattr(owner, name), [], [signal.getsignal(n) for n in ENDING]

    def called(*values, **options):
        calls.append(values)
        if len(calls) == 2:
            signal.raise_signal(number)
            signal.raise_signal(number)  # as launchers do
        return call(*values, **options)

    monkeypatch.setattr(owner, name, called)
    assert run(program, arguments) == 130
    assert re.fullmatch(f"((warning|engine): .*\n)*{said}\n", capsys.readouterr().err)
    assert [signal.getsignal(n) for n in ENDING] == before
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    if "training" in kind or kind == "stages":
        assert max(load_checkpoint(path).record.step for path in files if path.suffix == ".params") == 2
    assert not [path for path in files if path.name.startswith(".")]
    assert kind not in ("prediction", "validation") or not files
    assert kind != "live" or VideoReader(*files).count == 2
