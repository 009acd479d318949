"""The same training with and without something."""

import os
import re
import signal
import subprocess
import sys

import pytest
import yaml

from benchmarks import variants
from engine.cli import run
from engine.config import find_config
from engine.folders import ROOT
from engine.loading import read_checkpoint

FEW = "synthetic.validation_length=1"  # validation takes longer than a step


def command(folder, *changes, rest=("--engine", "torch", "--steps", "1"), data="synthetic_small"):
    line = ["MaskFlownet_S", str(data), "--output_root", str(folder)]
    return [*line, *(f"--variant={change}" for change in changes), "--", *rest]


def test_runs_differ_in_their_variant_alone(tmp_path, capfd):
    changes = [FEW, f"{FEW} optimizer.q=0.4"]
    assert run(variants.main, command(tmp_path, *changes)) == 0
    printed = capfd.readouterr().out
    runs = [re.search(rf"^{n}: (\w+-\w+): (.*)$", printed, re.M) for n in (1, 2)]
    assert [found[2] for found in runs] == changes

    plain = yaml.safe_load(find_config("synthetic_small").read_text())
    plain["synthetic"]["validation_length"] = 1
    rates = yaml.safe_load(find_config("MaskFlownet_S").read_text())["optimizer"]
    errors = []
    for found, optimizer in zip(runs, (rates, {**rates, "q": 0.4})):
        config = read_checkpoint(str(tmp_path / f"weights/{found[1]}_1.params")).record.config
        assert config["dataset"] == plain
        assert config["network"]["optimizer"] == optimizer
        log = (tmp_path / f"logs/{found[1]}.log").read_text()
        errors.append(re.search(r"steps=1, loss=(\S+), epe=(\S+),", log).groups())
    assert errors[0][1] == errors[1][1]  # the same start and the same batch
    assert errors[0][0] != errors[1][0]


@pytest.mark.parametrize(
    "change, sentence",
    [
        ("batch_sze=4", "--variant 'batch_sze=4': unknown key batch_sze, did you mean 'batch"),
        ("batch_size", "'batch_size' is not KEY=VALUE"),
        ("batch_size=4 batch_size=8", "batch_size comes twice"),
        ("target_shape=[64, 64]", "'[64,' is no YAML value, without spaces in it"),
        ("optimizer.q=2001-99-99", "'2001-99-99' is no YAML value"),
        ("batch_size.x=4", "there are no keys below batch_size"),
        ("optimizer.q=-1", "optimizer.q must be above 0"),
        ("", "it is empty"),
    ],
)
def test_nothing_starts_where_one_variant_is_wrong(change, sentence, tmp_path, capfd):
    assert run(variants.main, command(tmp_path, "nothing", change)) == 2
    printed = capfd.readouterr()
    assert sentence in printed.err and printed.err.count("\n") == 1
    assert printed.out == ""
    assert list(tmp_path.rglob("*.yaml")) == []


@pytest.mark.parametrize(
    "rest, sentence",
    [
        (["-c", "x"], "-c needs --clear_steps"),
        (["-g1"], "-g must not follow --"),
        (["--output_root=x"], "--output_root must not follow --"),
        (["--valid"], "--valid is no training"),
    ],
)
def test_what_would_undo_the_comparison_is_refused(rest, sentence, tmp_path, capfd):
    assert run(variants.main, command(tmp_path, "nothing", rest=rest)) == 2
    assert sentence in capfd.readouterr().err


@pytest.mark.parametrize(
    "line, sentence",
    [
        (["--variant", "nothing", "--steps", "1"], "main.py's options follow --"),
        (["--variant", "nothing", "-g", "0,"], "'0,' is no list of GPU ids"),
    ],
)
def test_other_arguments_that_are_wrong(line, sentence, tmp_path, capfd):
    where = ["MaskFlownet_S", "synthetic_small", "--output_root", str(tmp_path)]
    assert run(variants.main, [*where, *line]) == 2
    assert sentence in capfd.readouterr().err


def test_a_run_that_fails_is_named(tmp_path, capfd):
    assert run(variants.main, command(tmp_path, "nothing", rest=("--steps", "x"))) == 2
    printed = capfd.readouterr()
    assert "1: error: argument --steps" in printed.out
    assert "1: no run (failed): nothing" in printed.out
    assert printed.err.strip() == "error: not finished: 1, see above"


def test_configs_of_every_call_have_a_folder_and_find_their_textures(tmp_path):
    (tmp_path / "own").mkdir()
    data = yaml.safe_load(find_config("synthetic_small").read_text())
    data["synthetic"]["textures"] = "pictures"
    (tmp_path / "own/data.yaml").write_text(yaml.safe_dump(data))
    for number in (1, 2):
        line = command(tmp_path, "nothing", rest=("--steps", "x"), data=tmp_path / "own/data.yaml")
        assert run(variants.main, line) == 2
        written = yaml.safe_load((tmp_path / f"variants/{number}/1_dataset.yaml").read_text())
        moved = {**data["synthetic"], "textures": str(tmp_path / "own/pictures")}
        assert written == {**data, "synthetic": moved}


def test_after_an_interruption_no_other_run_begins(tmp_path):
    line = command(tmp_path, FEW, FEW, rest=("--engine", "torch", "--steps", "1000"))
    # A program that is started in the background inherits that SIGINT is ignored.
    listening = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    listening += "runpy.run_module('benchmarks.variants', run_name='__main__')"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", listening, *line],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    printed = ""
    try:
        for text in process.stdout:
            printed += text
            if "steps=2," in text:
                os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C
            assert "steps=200," not in text, printed
        assert process.wait() == 2
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert re.search(rf"^1: \w+-\w+ \(interrupted\): {FEW}$", printed, re.M), printed
    assert f"2: no run (not begun): {FEW}\nerror: not finished: 1, 2, see above" in printed
    assert len(list((tmp_path / "logs").glob("*.log"))) == 1
    assert len(list((tmp_path / "weights").glob("*.params"))) == 1
