"""The torch engine: seeds, devices, precisions, and programs without MXNet; see test_contract.py for the rest."""

import os
import sys

import numpy as np
import pytest
import torch
from maskflownet import main
from maskflownet.engine.contract import TORCHRUN
from maskflownet.engine.load import choose_engine, make_engine
from maskflownet.engine.torch.devices import check_precision
from maskflownet.errors import UserError
from maskflownet.reader.formats import write_image
from maskflownet.settings.cli import run
from maskflownet.settings.configs import load_network_config

from tests.programs import python
from tests.training_runs import write_configs

CPU = torch.device("cpu")


def test_precisions_that_are_not_there():
    assert check_precision(None, [CPU]) == "float32"
    with pytest.raises(UserError, match="--precision tf32 is for GPUs"):
        check_precision("tf32", [CPU])
    with pytest.raises(UserError, match="--precision bf16 is for --engine torch"):
        make_engine(load_network_config("MaskFlownet_S"), engine="mxnet", precision="bf16")


def test_programs_without_torch_say_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    write_configs(tmp_path)
    line = [str(tmp_path / "network.yaml"), "--dataset_cfg", str(tmp_path / "data.yaml")]
    assert run(main.main, [*line, "--engine", "torch", "--output_root", str(tmp_path)]) == 2
    assert "error: --engine torch needs PyTorch" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "mxnet", None)
    assert run(main.main, [*line, "--output_root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: no engine is installed: pip install torch, or")


@pytest.mark.parametrize(
    ("absent", "environment", "engine"),
    [
        ("mxnet", (), "torch"),
        ("torch", (), "mxnet"),
        ("nothing", (), "torch"),
        ("nothing", ("DMLC_ROLE",), "mxnet"),
        ("mxnet", TORCHRUN, "torch"),
    ],
)
def test_auto_is_pytorch_unless_only_mxnet_can(absent, environment, engine, monkeypatch):
    pytest.importorskip("maskflownet.network.compat", reason="MXNet is not installed")
    monkeypatch.setitem(sys.modules, absent, None)
    for name in environment:
        monkeypatch.setenv(name, "1")
    assert choose_engine("auto") == engine
    with pytest.raises(UserError, match="no engine torhc, did you mean 'torch'"):
        choose_engine("torhc")


WITHOUT_MXNET = """
import sys
sys.modules["mxnet"] = None
from maskflownet.settings.cli import run
from maskflownet import main, predict_new_data
config, data, out, a, b, checkpoint = sys.argv[1:]
codes = [
    run(predict_new_data.main, [out + "/flow.flo", "MaskFlownet", "-c", checkpoint + "2.params",
                                "--image_1", a, "--image_2", b]),
]
# What a prediction does without: each takes longer than the network.
slow = {"matplotlib", "scipy", "skimage", "tensorboardX", "torch._dynamo", "torch._inductor", "torch.onnx", "triton"}
assert not slow & set(sys.modules), slow & set(sys.modules)
codes += [
    run(main.main, [config, "--dataset_cfg", data, "--output_root", out, "--steps", "1"]),
    run(main.main, [config, "--dataset_cfg", data, "--output_root", out, "--valid",
                    "-c", checkpoint + ".params"]),
    run(main.main, [config, "--dataset_cfg", data, "--output_root", out, "--steps", "1", "--engine", "mxnet"]),
]
assert codes == [0, 0, 0, 2], codes
"""


def test_everything_runs_where_mxnet_cannot_be_imported(random_checkpoints, tmp_path):
    write_configs(tmp_path, augmentation=None, target_shape=[64, 64], orig_shape=[64, 64], validation=["synthetic"])
    weights = tmp_path / "weights"
    weights.mkdir()
    for name, network in (("run", "MaskFlownet_S"), ("run2", "MaskFlownet")):
        (weights / f"{name}.params").write_bytes(random_checkpoints[network].read_bytes())
    for name in "ab":
        write_image(tmp_path / f"{name}.png", np.full((70, 100, 3), ord(name), np.uint8))
    files = ["network.yaml", "data.yaml", ".", "a.png", "b.png", "weights/run"]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = python("-c", WITHOUT_MXNET, *files, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "flow.flo").stat().st_size == 12 + 70 * 100 * 8
    assert done.stderr.count("engine: torch on the CPU (no -g), float32\n") == 3
    assert "error: MXNet cannot be imported" in done.stderr
