"""What all programs share: how they end, and numbers of arguments."""

import argparse
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from maskflownet.errors import UserError
from maskflownet.settings.cli import count, frame_rate, height_width, readers_of, run, seed

from tests.programs import python

PROGRAM = """
import sys
from maskflownet.settings.cli import run

def main(arguments):
    for number in range(20000):
        print(arguments[0], number)
    open(arguments[1], "w").close()

sys.exit(run(main))
"""


def raising(error):
    def main(arguments):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UserError("the file\nis\nwrong"), 2, "error: the file is wrong"),
        (OSError(28, "No space left on device", "x.png"), 2, "error: x.png: No space left on device"),
        (OSError("no number"), 2, "error: no number"),
        (MemoryError("Unable to allocate 7 TiB"), 2, "error: the memory does not suffice: Unable to allocate 7 TiB"),
        (KeyError("x"), 1, "error: unexpected KeyError: 'x'; this is a fault of the program: please report it with the "
            "command and what it prints with --traceback"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)  # fmt: skip
def test_a_program_ends_with_one_sentence_and_its_exit_code(error, code, sentence, capsys):
    assert run(raising(error), []) == code
    assert capsys.readouterr().err == sentence + "\n"
    if code != 130:
        with pytest.raises(type(error)):
            run(raising(error), ["--traceback"])


def test_a_long_sentence_is_cut_in_its_middle(capsys):
    assert run(raising(UserError("begin " + "x" * 10**6 + " end")), []) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: begin xxx") and err.endswith("xxx end\n") and len(err) < 2100


def test_the_exit_code_of_a_program_is_its_own():
    assert [run(lambda arguments, code=code: code, []) for code in (None, 0, 1)] == [0, 0, 1]


@pytest.mark.parametrize("output", ["closed", "full"])
def test_a_program_whose_output_is_closed_does_its_work(tmp_path, output):
    """As with `| head -1`, and on a full disk."""
    if output == "full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    command = [sys.executable, "-c", PROGRAM, "line", str(tmp_path / "done")]
    target = open("/dev/full", "w") if output == "full" else subprocess.PIPE  # noqa: SIM115 - closed with the test
    with subprocess.Popen(command, stdout=target, stderr=subprocess.PIPE, text=True) as process:
        if output == "closed":
            assert process.stdout.readline() == "line 0\n"
            process.stdout.close()
        err = process.stderr.read()
    warning = "warning: cannot write to standard output: No space left on device\n" if output == "full" else ""
    assert (process.returncode, err) == (0, warning)
    assert (tmp_path / "done").exists()


def test_names_that_standard_output_cannot_encode_are_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = python("-c", PROGRAM, "Bär", tmp_path / "done")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("B\\xe4r 0\n")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((seed, text) for text in ("1e30", str(2**63), "-1", "9" * 5000)),
        *((count, text) for text in ("0", "1" + "0" * 300, "nan", "9" * 5000)),
        *((frame_rate, text) for text in ("1e999999999", "nan", "inf", "0", "1/0", "9" * 5000)),
        *((height_width, text) for text in ("64", "9" * 5000 + ",64", "-64,64", "64,64,64")),
    ],
)
def test_absurd_numbers_are_refused_in_a_short_sentence(kind, text):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        kind(text)
    assert len(str(caught.value)) < 200


def test_numbers_of_arguments():
    assert seed(str(2**63 - 1)) == 2**63 - 1
    rates = [frame_rate(text) for text in ("25", "29.97", "30000/1001")]
    assert rates == [25, Fraction("29.97"), Fraction(30000, 1001)]
    assert height_width("64,128") == (64, 128)


@pytest.mark.parametrize(
    ("given", "gpus", "cores", "readers"),
    [
        (None, "", 8, 0),
        (None, "0", 16, 6),
        (None, "0,1,2,3", 64, 24),
        (None, "0,1", 8, 6),
        (None, "0", 1, 0),
        (2, "0", 1, 2),
    ],
)
def test_readers_suit_the_gpus_and_the_cores(given, gpus, cores, readers, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert readers_of(argparse.Namespace(workers=given, gpus=gpus)) == readers
