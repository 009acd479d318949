"""The curves of runs: read from their logs, drawn."""

import re

import numpy as np
import pytest
from maskflownet.engine.contract import Losses
from maskflownet.errors import UserError
from maskflownet.inference.metrics import log_line
from maskflownet.reader.formats import read_image
from maskflownet.report import curves as program
from maskflownet.report.curves import draw, find_log, read_curves, with_parents
from maskflownet.settings.cli import run
from maskflownet.training.loop import RunLog

A, B, C = "8caJan01-1200", "8f0Jan02-1200", "1a2Jan03-1200"


def write_log(folder, name, steps, level=4.0, parent=None, start=0, rate=1e-4, sets=("chairs.val",)):
    """Append to a log with what training writes it with: EPE falls from 2 x level to level."""
    log = RunLog(folder, name, start, steps)
    verb = "goes on" if start else "starts"
    origin = f" from {parent}" if parent else ""
    log.line(f"run {name} {verb}{origin} at step {start} of {steps}")
    for step in range(start + 1, steps + 1):
        epe = level * (2 - step / steps)
        log.step(step, lambda epe=epe: Losses(epe / 2, epe), rate, [])
        if step % 100 == 0 and sets:
            log.line(log_line(step, {s: {"epe": epe / 2, "epe.pooled": 9, "fl": 0.5} for s in sets}))
    log.close()
    return folder / f"{name}.log"


def test_a_log_is_read_as_it_was_written(tmp_path):
    curves = read_curves(write_log(tmp_path, A, 200))
    assert list(curves.training) == [*range(1, 21), 50, 100, 150, 200]
    first, last = curves.training[1], curves.training[200]
    assert first == (3.99, 7.98, 1e-4)
    assert last[1] == pytest.approx(np.mean([4 * (2 - s / 200) for s in range(151, 201)]), abs=1e-4)
    assert curves.validation == {"chairs.val": {100: 3.0, 200: 2.0}}  # neither pooled nor fl
    assert (curves.name, curves.parent, curves.end) == (A, None, 200)


def test_of_repeated_steps_the_later_ones_count(tmp_path):
    path = write_log(tmp_path, A, 330)
    with open(path, "a") as file:
        file.write("[2026-01-01 00:00:00] steps=350, loss=1.0, ep\n")  # killed in a line
    write_log(tmp_path, A, 300, level=40, start=250)  # its last checkpoint was at step 250
    curves = read_curves(path)
    assert max(curves.training) == curves.end == 300
    assert curves.training[300][1] > 20 and curves.training[250][1] < 6
    assert set(curves.validation["chairs.val"]) == {100, 200, 300}
    # A new start at step 0, such as a stage that was killed before its first checkpoint.
    write_log(tmp_path, A, 30, level=1)
    assert set(read_curves(path).training) == {*range(1, 21)} and read_curves(path).validation == {}


def test_the_mean_of_few_steps_after_a_run_went_on_is_left_out(tmp_path):
    write_log(tmp_path, A, 145)
    path = write_log(tmp_path, A, 300, start=145)
    assert list(read_curves(path).training) == [*range(1, 21), 50, 100, 200, 250, 300]
    path = write_log(tmp_path, A, 300, start=240)
    assert list(read_curves(path).training) == [*range(1, 21), 50, 100, 200, 250, 300]


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    path = tmp_path / "x.log"
    lines = [
        "[2026-01-01 00:00:00] steps=1, loss=nan, epe=2.0000, lr=0.0001, total_time=1.0",
        "[2026-01-01 00:00:00] steps=2, loss=oops, epe=2.0000, lr=0.0001, total_time=1.0",
        "[2026-01-01 00:00:00] steps=2, loss=1e308, epe=1e308, lr=0.0001, total_time=1.0",
        "[2026-01-01 00:00:00] steps=2, loss=1.0, epe=-2.0, lr=5e-324, total_time=1.0",
        f"[2026-01-01 00:00:00] steps={'9' * 5000}, loss=1.0, epe=2.0000, lr=0.0001, total_time=1.0",
        f"[2026-01-01 00:00:00] run x starts from ../../x_{'9' * 5000} at step 0 of 5",
        "[2026-01-01 00:00:00] steps=3, loss=1.0, epe=2.0000, lr=0.0001, total_time=1.0",
        "[2026-01-01 00:00:00] steps=3, a:epe=nan, a:epe.pooled=1.0000, b:epe=2.5000, c:epe=1.2",
        "a sentence of somebody's, steps=9, loss=1, epe=2",
    ]
    path.write_text("\n".join(lines))
    curves = read_curves(path)
    assert list(curves.training) == [3]
    assert curves.validation == {"b": {3: 2.5}}  # c's line was cut
    assert with_parents(path) == [curves]  # whose parent's name would be a path
    with open(path, "a") as file:
        file.write(f"\n[2026-01-01 00:00:00] steps={'9' * 15}, loss=1e30, epe=1e-30, lr=1e30, total_time=1.0")
    draw([with_parents(path)]).draw_without_rendering()  # what is left can be drawn


def test_logs_are_found_as_checkpoints_are(tmp_path):
    for name in (A, B):
        write_log(tmp_path, name, 1)
    assert find_log("8ca", tmp_path) == find_log(A, tmp_path) == tmp_path / f"{A}.log"
    assert find_log(tmp_path / f"{B}.log", tmp_path) == tmp_path / f"{B}.log"
    for name, folder, message in (
        ("8", tmp_path, f"^log of run 8 is ambiguous: it fits {A}, {B}$"),
        ("zzz", tmp_path / "nowhere", "there are none$"),
    ):
        with pytest.raises(UserError, match=message):
            find_log(name, folder)


def test_a_chain_follows_the_parents_and_ends_each_at_the_checkpoint_taken(tmp_path):
    write_log(tmp_path, A, 300, parent="authors")  # no log of that name
    write_log(tmp_path, B, 200, parent=f"{A}_250")
    path = write_log(tmp_path, C, 100, parent=f"{B}_200")
    chain = with_parents(path)
    assert [(curves.name, curves.end) for curves in chain] == [(A, 250), (B, 200), (C, 100)]
    assert set(chain[0].validation["chairs.val"]) == {100, 200}


def test_the_picture_holds_every_run(tmp_path, capsys):
    for name, parent in ((A, None), (B, None), (C, f"{A}_500")):
        write_log(tmp_path / "logs", name, 1000, parent=parent)
    root = ["--output_root", str(tmp_path)]
    assert run(program.main, [A[:3], *root]) == 0
    assert read_image(tmp_path / f"logs/{A}.png").shape[1] == 1350
    capsys.readouterr()
    for names, labels in (
        ([A], ["training 4.1", "chairs.val 2"]),
        ([A, B], [f"{name} {line}" for name in (A, B) for line in ("training 4.1", "chairs.val 2")]),
    ):
        figure = draw([[read_curves(tmp_path / f"logs/{name}.log")] for name in names])
        assert [text.get_text() for text in figure.legends[0].texts] == labels
    widths = [[line.get_linewidth() for line in axes.lines] for axes in figure.axes]  # of A, then of B, the same
    assert all(first > second for both in widths for first, second in zip(both, both[len(both) // 2 :]))
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log", "linear"]
    vector = tmp_path / "x.svg"
    assert run(program.main, [C, "--chain", *root, "-o", str(vector)]) == 0
    assert capsys.readouterr().out == f"wrote {vector}\n"
    assert {A[:3], C[:3], "Training loss", "training steps"} <= set(re.findall("<!-- (.*?) -->", vector.read_text()))
    # The lines of the chain: two stages of training and validation.
    axes = draw([with_parents(tmp_path / f"logs/{C}.log")]).axes[0]
    ends = [line.get_xdata()[[0, -1]].tolist() for line in axes.lines if line.get_linestyle() == "-"]
    assert ends == [[50, 500], [100, 500], [550, 1500], [600, 1500]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "no log of a training run"), (b"no log at all", "no log of a training run"),
     (b"\xff\xfe\x00", "it is not text"), (None, "there is no such file")],
)  # fmt: skip
def test_what_is_no_log_or_no_picture_is_one_sentence(tmp_path, capsys, content, sentence):
    path = tmp_path / "run.log"
    if content is not None:
        path.write_bytes(content)
    assert run(program.main, [str(path), "-o", str(tmp_path / "run.png")]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "run.png").exists()
    for output, said in (("x.jpeg2", "its suffix is none of .png"), ("no/x.png", "no/x.png")):
        assert run(program.main, [str(write_log(tmp_path, A, 3)), "-o", output]) == 2
        assert said in capsys.readouterr().err
