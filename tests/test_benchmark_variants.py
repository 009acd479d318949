"""The same training with and without something."""

import re

import pytest
import yaml

from benchmarks import variants
from engine.cli import run
from engine.config import find_config
from engine.loading import read_checkpoint

FEW = "synthetic.validation_length=1"  # validation takes longer than a step


def command(folder, *changes, rest=("--engine", "torch", "--steps", "1")):
    line = ["MaskFlownet_S", "synthetic_small", "--output_root", str(folder)]
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
        ("batch_sze=4", "unknown key batch_sze, did you mean 'batch_size'?"),
        ("batch_size", "'batch_size' is not KEY=VALUE"),
        ("batch_size.x=4", "there are no keys below batch_size"),
        ("batch_size=[", "'[' is no YAML value"),
        ("optimizer.q=-1", "optimizer.q must be above 0"),
    ],
)
def test_nothing_starts_where_one_variant_is_wrong(change, sentence, tmp_path, capfd):
    assert run(variants.main, command(tmp_path, "nothing", change)) == 2
    printed = capfd.readouterr()
    assert sentence in printed.err
    assert printed.out == ""
    assert not (tmp_path / "logs").exists()


def test_a_run_that_fails_is_named(tmp_path, capfd):
    assert run(variants.main, command(tmp_path, "nothing", rest=("--steps", "x"))) == 2
    printed = capfd.readouterr()
    assert "1: error: argument --steps" in printed.out
    assert "1: failed: nothing" in printed.out
    assert printed.err.strip() == "error: failed: 1, see above"
