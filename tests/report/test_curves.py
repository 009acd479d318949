"""The curves of runs: read from their logs, joined, drawn as a picture and in the terminal."""

import re
import sys

import numpy as np
import pytest
from maskflownet.engine.contract import Losses
from maskflownet.errors import UserError
from maskflownet.inference.metrics import log_line
from maskflownet.reader.formats import read_image
from maskflownet.report import curves as program
from maskflownet.report.curves import find_log, joined, make_panels, read_curves, running_median, with_parents
from maskflownet.settings.cli import run
from maskflownet.training.loop import RunLog

A, B, C = "8caJan01-1200", "8f0Jan02-1200", "1a2Jan03-1200"


def write_log(folder, name, steps, level=4.0, parent=None, start=0, rate=1e-4, sets=("chairs.val",)):
    """Append to a log with what training writes it with: EPE falls from 2 x level to level."""
    log = RunLog(folder, name, start, steps, scalars=False)
    verb = "goes on" if start else "starts"
    origin = f" from {parent}" if parent else ""
    log.line(f"run {name} {verb}{origin} at step {start} of {steps}")
    for step in range(start + 1, steps + 1):
        epe = level * (2 - step / steps)
        log.step(step, Losses(lambda epe=epe: (epe / 2, epe)), rate, [])
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
        file.write("[2026-01-01 00:00:00] steps=350, loss=1.0, ep")  # killed in a line
        file.write("\n")
    write_log(tmp_path, A, 300, level=40, start=250)  # its last checkpoint was at step 250
    curves = read_curves(path)
    assert max(curves.training) == curves.end == 300
    assert curves.training[300][1] > 20
    assert curves.training[250][1] < 6
    assert set(curves.validation["chairs.val"]) == {100, 200, 300}
    # A new start at step 0, such as a stage that was killed before its first checkpoint.
    write_log(tmp_path, A, 30, level=1)
    assert set(read_curves(path).training) == {*range(1, 21)}
    assert read_curves(path).validation == {}


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


def test_logs_are_found_as_checkpoints_are(tmp_path):
    for name in (A, B):
        write_log(tmp_path, name, 1)
    assert find_log("8ca", tmp_path) == find_log(A, tmp_path) == tmp_path / f"{A}.log"
    assert find_log(tmp_path / f"{B}.log") == tmp_path / f"{B}.log"
    with pytest.raises(UserError, match=rf"^log of run 8 is ambiguous: it fits {A}, {B}$"):
        find_log("8", tmp_path)
    with pytest.raises(UserError, match=rf"^no log of run zzz in .*: there are {A}, {B}$"):
        find_log("zzz", tmp_path)
    with pytest.raises(UserError, match="there are none$"):
        find_log("zzz", tmp_path / "nowhere")
    with pytest.raises(UserError, match="there is no such file"):
        find_log("nowhere/x.log")
    with pytest.raises(UserError, match="name is empty"):
        find_log("", tmp_path)


def test_a_chain_follows_the_parents_and_ends_each_at_the_checkpoint_taken(tmp_path):
    write_log(tmp_path, A, 300, parent="authors")  # no log of that name
    write_log(tmp_path, B, 200, parent=f"{A}_250")
    path = write_log(tmp_path, C, 100, parent=f"{B}_200")
    whole = joined(with_parents(path))
    assert whole.stages == ((0, A), (250, B), (450, C))
    assert whole.end == 550
    assert whole.training[250][1] == read_curves(tmp_path / f"{A}.log").training[250][1]
    assert whole.training[251][1] == 4 * (2 - 1 / 200)
    assert set(whole.validation["chairs.val"]) == {100, 200, 350, 450, 550}
    assert joined([read_curves(path)]).stages == ()


def test_the_median_ignores_outliers_and_stops_at_stages(tmp_path):
    assert running_median(np.array([1.0, 1, 50, 1, 1]), 3).tolist() == [1, 1, 1, 1, 1]
    assert running_median(np.array([1.0, 2, 3, 4]), 1).tolist() == [1, 2, 3, 4]
    for name, level in ((A, 1.0), (B, 100.0)):
        write_log(tmp_path, name, 1000, level=level)
    whole = joined([read_curves(tmp_path / f"{name}.log") for name in (A, B)])
    line = make_panels([whole], window=9)[0].lines[0]
    assert line.values[line.steps <= 1000].max() < 2
    assert line.values[line.steps > 1000].min() >= 100
    assert len(line.raw) == len(line.values) == 40  # without the first 20 lines of both stages
    assert [steps[-1] for steps, _ in line.parts(line.raw)] == [1000, 2000]


def test_panels_and_axes(tmp_path):
    sets = ("chairs.val", "sintel.training.clean")
    one = read_curves(write_log(tmp_path, A, 300, sets=sets))
    two = read_curves(write_log(tmp_path, B, 300, level=0.2, sets=sets[:1]))
    panels = make_panels([one], zero=6.0)
    assert [panel.title for panel in panels] == [
        "End-point error, px", "Training loss", "Learning rate"
    ]  # fmt: skip
    assert [line.label for line in panels[0].lines] == ["training", *sets]
    assert [(label, value) for label, value, _ in panels[0].levels] == [("zero flow", 6), ("half of it", 3)]
    assert not any(panel.log for panel in panels)
    assert make_panels([one], scale="log")[0].log
    both = make_panels([one, two])
    assert len(both) == 5
    assert [line.label for line in both[0].lines] == [A, B]
    assert [line.label for line in both[1].lines] == [A]
    assert both[0].log  # 3 and 0.1 px
    assert not make_panels([one, two], scale="linear")[0].log


def colours(path):
    return {tuple(colour) for colour in read_image(path).reshape(-1, 3)[::7]}


def test_the_picture_holds_every_run(tmp_path):
    for name, level in ((A, 4.0), (B, 1.0)):
        write_log(tmp_path / "logs", name, 2000, level)
    root = ["--output_root", str(tmp_path)]
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    assert run(program.main, ["8ca", *root, "-o", str(one), "--zero", "7"]) == 0
    assert run(program.main, ["8ca", "8f0", *root, "-o", str(two)]) == 0
    blue, orange, green = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)
    assert {blue, orange} <= colours(one)
    assert {blue, orange} <= colours(two)
    assert green not in colours(one) | colours(two)
    assert read_image(one).shape[1] == 1350
    assert read_image(two).shape[0] > read_image(one).shape[0]  # a panel for each set
    vector = tmp_path / "one.svg"
    arguments = ["8ca", "8f0", "--join", *root, "-o", str(vector)]
    assert run(program.main, arguments) == 0
    words = re.findall(r"<text[^>]*>([^<]*)</text>", vector.read_text())
    assert {A, B, "training steps", "Training in 2 stages", "End-point error, px"} <= set(words)
    assert "training 1.02" in words  # its last value, at the end of its line


def test_labels_do_not_cover_each_other(tmp_path):
    sets = [f"set{i}" for i in range(6)]  # all of the same EPE
    write_log(tmp_path, A, 200, sets=sets)
    vector = tmp_path / "x.svg"
    assert run(program.main, [str(tmp_path / f"{A}.log"), "-o", str(vector)]) == 0
    form = r'<text[^>]*(?: y="|translate\([\d.]+ )([\d.]+)[^>]*>(set|training 4)'
    places = sorted(float(y) for y, _ in re.findall(form, vector.read_text()))
    assert len(places) == 7
    assert np.diff(places).min() > 9  # points


def test_names_of_short_stages_do_not_cover_each_other(tmp_path):
    runs = [f"{number:03x}Nov21-0807" for number in range(0xA0, 0xA5)]
    for name, steps in zip(runs, (1000, 30, 30, 1000, 1000)):
        write_log(tmp_path, name, steps)
    vector = tmp_path / "x.svg"
    logs = [str(tmp_path / f"{name}.log") for name in runs]
    assert run(program.main, [*logs, "--join", "-o", str(vector)]) == 0
    form = r'<text[^>]*(?: y="|translate\([\d.]+ )([\d.]+)[^>]*>(0a\d)<'
    places = {name: float(y) for y, name in re.findall(form, vector.read_text())}
    assert list(places) == [name[:3] for name in runs]
    second, third, fourth = list(places.values())[1:4]  # they begin 30 steps apart
    assert min(abs(third - second), abs(fourth - third), abs(fourth - second)) > 9  # points


def test_the_terminal_shows_the_same(tmp_path, capsys, monkeypatch):
    write_log(tmp_path / "logs", A, 2000)
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "72")
    monkeypatch.setenv("LINES", "48")
    assert run(program.main, [A, "--output_root", str(tmp_path), "--zero", "7"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert "\x1b" not in text  # no terminal
    assert max(map(len, lines)) <= 72
    assert len(lines) <= 48
    assert "● chairs.val 2" in text
    assert "── zero flow 7" in text
    assert "Learning rate" in text
    assert re.findall(r"^ *([\d.]+)┤", text, re.MULTILINE)[:4] == ["6", "4", "2", "0"]
    # Braille dots of training, which falls from 8 to 4 px: higher on the left than on the right.
    canvas = [line.split("│", 1)[-1] for line in lines[1:20] if "│" in line or "┤" in line]
    rows = {c: i for i, line in enumerate(canvas) for c in range(len(line)) if line[c] > "\u2800"}
    assert rows[min(rows)] < rows[max(rows)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "no log of a training run"), (b"no log at all", "no log of a training run"),
     (b"\xff\xfe\x00", "it is not text"), (None, "there is no such file")],
)  # fmt: skip
def test_what_is_no_log_is_one_sentence(tmp_path, capsys, content, sentence):
    path = tmp_path / "run.log"
    if content is not None:
        path.write_bytes(content)
    assert run(program.main, [str(path), "-o", str(tmp_path / "run.png")]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run.png").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["-o", "x.jpeg2"], "its suffix is none of .png"), (["-o", "no/x.png"], "does not exist"),
     (["--chain", "--join"], "exclude each other"), (["--smooth", "0"], "above 0")],
)  # fmt: skip
def test_arguments_are_refused_in_one_sentence(tmp_path, capsys, arguments, sentence):
    path = write_log(tmp_path, A, 3)
    capsys.readouterr()
    assert run(program.main, [str(path), *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_what_is_not_installed_is_named(tmp_path, capsys, monkeypatch):
    path = write_log(tmp_path, A, 3)
    monkeypatch.setitem(sys.modules, "plotext", None)
    assert run(program.main, [str(path)]) == 2
    assert "pip install 'plotext>=6.1'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(program.main, [str(path), "-o", str(tmp_path / "x.png")]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err
