"""main.py's arguments: what is refused, in one sentence, before anything is computed."""

import ast

import pytest
from maskflownet import main
from maskflownet.checkpoints.checkpoint import load_checkpoint, read_checkpoint
from maskflownet.settings.cli import run
from maskflownet.settings.configs import load_network_config
from maskflownet.settings.folders import ROOT

from tests.programs import python
from tests.training_runs import write_configs

NOT_FOR_ONNX = (  # with values that are right elsewhere
    *("--engine mxnet", "--engine torch", "-g 0", "--workers 0", "--steps 1", "--dataset_cfg a", "--precision bf16"),
    "--pad",
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MaskFlownet_S", "--valid"], "--valid needs a checkpoint: -c"),
        (["MaskFlownet_S", "--predict"], "--predict needs a checkpoint: -c"),
        (["MaskFlownet_S", "-c", "x", "--valid", "--predict"], "exclude each other"),
        (["MaskFlownet_S", "--confidence"], "--confidence is for --valid"),
        (["MaskFlownet_S", "-c", "fff", "--valid"], "no checkpoint fff"),
        (["MaskFlownet_S", "--bgr"], "--bgr is about a checkpoint: it needs -c"),
        (["MaskFlownet_S", "--resize", "64,64"], "target_shape and batch_size of the dataset"),
        (["MaskFlownet_S", "--batch", "4"], "batch_size of the dataset config"),
        (["MaskFlownet_S", "-c", ""], "name is empty"),
        (["MaskFlownet_S", "--clear_steps"], "--clear_steps is about a checkpoint: it needs -c"),
        (["MaskFlownet_S", "-c", "x", "--valid", "--steps", "3"], "--steps is not for --valid"),
        (["MaskFlownet_S", "-c", "x", "--predict", "--debug"], "--debug is not for --predict"),
        (["MaskFlownet_S", "-c", "x", "--valid", "-s2"], "-s is not for --valid"),
        *(
            (["MaskFlownet_S", "-c", "x", "--export", "x.onnx", *given.split()], said)
            for given, said in [
                *((given, f"{given.split()[0]} is not for --export") for given in NOT_FOR_ONNX),
                ("--valid", "--export exclude each other"),
                ("--resize 100,64", "such as 128,64"),
                ("--export x.pb", "the name of an exported model ends in .onnx or .pt2"),
                ("--export no/x.onnx -c 97f", "its folder no does not exist"),
                ("-c fff", "no checkpoint fff"),
            ]
        ),
        (["MaskFlownet_S", "--export", "x.onnx"], "--export needs a checkpoint: -c"),
        (["MaskFlownet_S", "--scale", "1e305"], "at most 1000"),
        (["MaskFlownet_S", "--report"], "--report is for --valid"),
        (["MaskFlownet_S", "--valid", "-c", "x", "--report_images", "3"], "--report_images is for --report"),
        (["MaskFlownet_S", "--valid", "-c", "x", "--report_width", "99"], "--report_width is for --report"),
        (["MaskFlownet_S", "--valid", "-c", "x", "--report", "--report_width", "9"], "from 64 to 4096 px"),
        (["MaskFlownet_S", "--valid", "-c", "x", "--report", "--report_images", "0"], "whole number above 0"),
        (["MaskFlownet_X"], "no config MaskFlownet_X"),
        (["chairs"], "is no network config"),
        (["MaskFlownet_S", "--dataset_cfg", "MaskFlownet_S"], "MaskFlownet_S.yaml"),
        (["MaskFlownet_S", "--dataset_cfg", "charis"], "did you mean 'chairs.yaml'"),
        (["MaskFlownet_S"], "no root of the data set chairs: give --data_root chairs=DIR"),
        (["MaskFlownet_S", "--data_root", "chairs=/does/not/exist"], "/does/not/exist"),
        (["MaskFlownet_S", "--steps", "0"], "whole number above 0"),
        (["MaskFlownet_S", "-s", "x"], "whole number above 0"),
        (["MaskFlownet_S", "--sedd", "1"], "--sedd"),
        ([], "CONFIG"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = [*arguments, "--output_root", "."] if arguments else []
    assert run(main.main, line) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_results_of_a_head_have_files_of_their_own():
    checkpoint, names = read_checkpoint("97f"), ("MaskFlownet", "MaskFlownet_S")
    found = [main.results_name("97f_1", checkpoint, load_network_config(name)) for name in names]
    assert found == ["97f_1", "97f_1_MaskFlownet_S"]


def test_the_program_trains_and_goes_on(tmp_path, monkeypatch):
    """As a user starts it, from another folder, by run id."""
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path, augmentation=None, orig_shape=[64, 64])

    line = ["network.yaml", "--dataset_cfg", "data.yaml", "--output_root", "."]
    assert run(main.main, [*line, "--steps", "1"]) == 0
    (record,) = [load_checkpoint(path).record for path in (tmp_path / "weights").glob("*.params")]
    again = python(ROOT / "main.py", *line, "--steps", "2", "-c", record.run[:10], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert load_checkpoint(tmp_path / f"weights/{record.run}_2.params").record.step == 2
    shown = python(ROOT / "main.py", "--help")
    for flag in ("--dataset_cfg", "--clear_steps", "--valid", "--predict", "--shard", "--scale"):
        assert flag in shown.stdout


def test_debug_trains_on_the_shipped_synthetic_set(tmp_path):
    """The classic set-up check, but for the network's size of 320x448."""
    write_configs(tmp_path)
    line = [str(tmp_path / "network.yaml"), "--dataset_cfg", str(tmp_path / "data.yaml")]
    assert run(main.main, [*line, "--debug", "--output_root", str(tmp_path)]) == 0
    assert len(list((tmp_path / "weights").glob("*_4.params"))) == 1


def test_nothing_that_runs_code_from_a_file():
    """No eval and no pickle in any file of the package."""
    files = [path for path in ROOT.rglob("*.py") if not {"tests", ".venv", "build"} & set(path.relative_to(ROOT).parts)]
    assert len({path.parent for path in files}) > 10
    forbidden = {"pickle", "dill", "joblib", "load_states", "save_states", "unsafe_load", "full_load"}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {getattr(node, name, None) for name in ("id", "attr", "arg", "module")}
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names |= {alias.name for alias in node.names}
            assert not names & forbidden, (path, node.lineno)
            assert getattr(node, "arg", None) != "allow_pickle" or node.value.value is False, (path, node.lineno)
            # A module's eval() is another.
            assert getattr(node, "id", None) not in {"eval", "exec"}, (path, node.lineno)


def test_modules_import_without_side_effects(tmp_path):
    modules = ("main", "run_stages", "predict_new_data", "training.loop", "scenes.synthetic")
    program = (
        "import os, signal, sys\n"
        "import cv2  # which sets LD_LIBRARY_PATH\n"
        "before = (dict(os.environ), signal.getsignal(signal.SIGINT), sorted(os.listdir('.')))\n"
        f"import {', '.join(f'maskflownet.{module}' for module in modules)}\n"
        "maskflownet.settings.datasets.load_data_config('chairs')\n"
        "maskflownet.load\n"
        "after = (dict(os.environ), signal.getsignal(signal.SIGINT), sorted(os.listdir('.')))\n"
        "assert before == after\n"
        "assert 'mxnet' not in sys.modules and 'torch' not in sys.modules\n"
    )
    done = python("-c", program, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
