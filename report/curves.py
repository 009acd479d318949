"""Training curves, read from the logs of runs: `logs/RUN.log`, found by name as checkpoints are.

What a picture of training curves shows: panels of lines, whatever draws them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.checkpoints.checkpoint import as_path, find_run, split_name
from maskflownet.errors import UserError
from maskflownet.settings.folders import LOGS
from maskflownet.training.log import EVERY_STEP_UNTIL

SUFFIX = ".log"
# Whole lines only: the last one of a killed run may be cut anywhere.
_TRAINING = re.compile(r"\] steps=(\d+), loss=(\S+), epe=(\S+), lr=(\S+), total_time=\d+\.\d+$", re.ASCII)
_VALIDATION = re.compile(r"\] steps=(\d+), (?!loss=)", re.ASCII)
_SET_EPE = re.compile(r"([^\s,:]+):epe=(\d+\.\d{4})(?=,|$)", re.ASCII)  # not `epe.pooled`
_START = re.compile(r"\] run \S+ (?:starts|goes on)(?: from (\S+))? at step (\d+) of \d+$")


class Point(NamedTuple):
    """A line of the log: means over the steps since the line before."""

    loss: float
    epe: float  # px
    rate: float


class Curves(NamedTuple):
    """What a run, or several that follow on each other, reported by step."""

    name: str
    training: dict[int, Point]
    validation: dict[str, dict[int, float]]  # EPE in px by name of the set
    parent: str | None = None  # stem of the checkpoint that it started from
    stages: tuple[tuple[int, str], ...] = ()  # (first step, run) where there are several

    @property
    def end(self) -> int:
        """The last step that the log knows of."""
        return max((*self.training, *(step for epe in self.validation.values() for step in epe)))


def find_log(name, folder: Path = LOGS) -> Path:
    """Path of a log given as path, run id or unique prefix of one.

    Raises
    ------
    UserError
        There is none, or the prefix fits several runs; the message lists what there is.
    """
    path = as_path(name, SUFFIX, "log")
    if path is not None:
        return path
    runs = {path.stem: path for path in sorted(Path(folder).glob(f"[!.]*{SUFFIX}"))}
    return runs[find_run(str(name), runs, "log of run", folder)]


def read_curves(path) -> Curves:
    """Read the log of a run.

    A run that went on from a checkpoint repeats the steps after it: only the later ones count.
    Values that are not finite are left out.

    Raises
    ------
    UserError
        The file cannot be read, or it holds no training step.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise UserError(f"cannot read {path}: {why}") from error
    curves = Curves(Path(path).stem, {}, {})
    for line in lines:
        start, training = _START.search(line), _TRAINING.search(line)
        validation = _VALIDATION.search(line)
        if start:
            curves = _cut(curves, int(start[2]))._replace(parent=start[1] or curves.parent)
        elif training:
            values = [_number(text) for text in training.groups()[1:]]
            if all(map(math.isfinite, values)):
                curves.training[int(training[1])] = Point(*values)
        elif validation:
            for name, epe in _SET_EPE.findall(line):
                curves.validation.setdefault(name, {})[int(validation[1])] = float(epe)
    if not curves.training:
        raise UserError(f"{path} is no log of a training run: it has no line with steps and loss")
    return curves


def with_parents(path) -> list[Curves]:
    """The curves of a run and those that it began from, the first of them first.

    Each ends at the checkpoint that the next one took. The logs are looked for in the run's folder;
    a parent without a log there is where the chain begins.
    """
    path = Path(path)
    chain = [read_curves(path)]
    seen = {path.stem}
    while chain[0].parent:
        run, step = split_name(Path(chain[0].parent))
        log = path.with_name(run + SUFFIX)
        if run in seen or not log.is_file():
            break
        seen.add(run)
        curves = read_curves(log)
        chain.insert(0, _cut(curves, step) if step else curves)
    return [curves for curves in chain if curves.training]


def joined(chain: list[Curves]) -> Curves:
    """One curve of several, each beginning at the step at which the one before ended."""
    whole = Curves(chain[-1].name, {}, {}, chain[0].parent)
    offset, stages = 0, []
    for curves in chain:
        stages.append((offset, curves.name))
        whole.training.update({offset + step: p for step, p in curves.training.items()})
        for name, epe in curves.validation.items():
            shifted = {offset + step: value for step, value in epe.items()}
            whole.validation.setdefault(name, {}).update(shifted)
        offset += curves.end
    return whole._replace(stages=tuple(stages) if len(chain) > 1 else ())


def _cut(curves: Curves, last: int) -> Curves:
    """What happened up to a step."""
    validation = {
        name: {step: value for step, value in epe.items() if step <= last} for name, epe in curves.validation.items()
    }
    return curves._replace(
        training={step: point for step, point in curves.training.items() if step <= last},
        validation={name: epe for name, epe in validation.items() if epe},
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


POINTS_AT_A_GLANCE = 40  # the running median leaves about so many independent points
LOG_FROM = 10  # largest over smallest value of a median from which its axis is logarithmic
SCALES = ("auto", "linear", "log")


class Line(NamedTuple):
    label: str
    steps: np.ndarray  # (n,) int
    values: np.ndarray  # (n,) float; its running median where there is a raw line, too
    colour: int  # number of the colour; lines of the same run or set share it in all panels
    raw: np.ndarray | None = None  # (n,) float
    marked: bool = False  # points that are few and count each
    stepped: bool = False  # constant between the points
    borders: tuple[int, ...] = ()  # indices at which a stage begins, and the line anew

    def parts(self, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Steps and `values`, its own or the raw ones, of each stage that has any."""
        for steps, part in zip(np.split(self.steps, self.borders), np.split(values, self.borders)):
            if len(steps):
                yield steps, part


class Level(NamedTuple):
    """A horizontal line to compare with."""

    label: str
    value: float
    dashed: bool


class Panel(NamedTuple):
    title: str
    lines: list[Line]
    height: float  # share of the picture's, relative to the other panels
    log: bool = False
    levels: tuple[Level, ...] = ()


def make_panels(
    runs: Sequence[Curves], window: int | None = None, scale: str = "auto", zero: float | None = None
) -> list[Panel]:
    """The panels of one run or several: EPE, validation, loss and learning rate over the steps.

    One run has its validation sets and its training in one panel; several have a panel for each
    set, in which a colour is a run.

    Parameters
    ----------
    runs : sequence of Curves
    window : int, optional
        Points of the log in the running median, 1 = none; default: by the run's length.
    scale : {"auto", "linear", "log"}
        Of EPE and loss. `auto` is logarithmic where values differ by a factor of 10 or more.
    zero : float, optional
        EPE of zero flow on the validation pairs, px.
    """
    levels = ()
    if zero is not None:
        levels = Level("zero flow", zero, True), Level("half of it", zero / 2, False)
    epe = [_training(run, i, "epe", window) for i, run in enumerate(runs)]
    sets = list(dict.fromkeys(name for run in runs for name in run.validation))
    if len(runs) == 1:
        lines = [_validation(runs[0], name, i, name) for i, name in enumerate(sets, 1)]
        training = epe[0]._replace(label="training")
        panels = [_panel("End-point error, px", [training, *lines], 3, scale, levels)]
    else:
        panels = []
        for name in sets:
            lines = [_validation(run, name, i, run.name) for i, run in enumerate(runs) if name in run.validation]
            title = f"Validation on {name}: end-point error, px"
            panels.append(_panel(title, lines, 2, scale, levels))
        title = "Training: end-point error, px"
        panels.append(_panel(title, epe, 2, scale, () if sets else levels))
    loss = [_training(run, i, "loss", window) for i, run in enumerate(runs)]
    rate = [_rates(run, i) for i, run in enumerate(runs)]
    if len(runs) == 1:
        loss, rate = ([line._replace(label="") for line in lines] for lines in (loss, rate))
    varied = any(len(set(line.values)) > 1 for line in rate)
    return [*panels, _panel("Training loss", loss, 1.5, scale), Panel("Learning rate", rate, 1, log=varied)]


def best(line: Line) -> int:
    """Index of the lowest value, the first of several."""
    return int(np.argmin(line.values))


def running_median(values: np.ndarray, window: int) -> np.ndarray:
    """Median of (n,) values over `window` neighbours, fewer at the ends."""
    half = window // 2
    parts = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.array([np.median(part) for part in parts])


def short(value: float) -> str:
    """Three digits of a measure, 3.40 or 0.0512, and as many as it has of a small one, 1e-4."""
    return f"{value:#.3g}".rstrip(".") if abs(value) >= 0.01 else tick(value)


def tick(value: float) -> str:
    """A round number beside an axis: 3, 0.5, 1e-4."""
    if 0 < abs(value) < 0.01:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def short_steps(step: float) -> str:
    """A number of steps: 5000, 200k, 1.2M."""
    if step >= 1e6:
        return f"{step / 1e6:g}M"
    return f"{step / 1e3:g}k" if step >= 1e4 else f"{step:g}"


def _panel(title, lines, height, scale, levels=()) -> Panel:
    values = np.concatenate([line.values for line in lines])
    positive = values.min() > 0
    wide = positive and values.max() >= LOG_FROM * values.min()
    return Panel(title, lines, height, positive and (scale == "log" or scale == "auto" and wide), levels)


def _training(run: Curves, colour: int, what: str, window: int | None) -> Line:
    # The first lines are of a single step each, the others means over many.
    later = {step: point for step, point in run.training.items() if not _single(run, step)}
    points = later or run.training
    steps = np.array(sorted(points))
    values = np.array([getattr(points[step], what) for step in steps])
    if window is None:
        window = len(steps) // POINTS_AT_A_GLANCE
    line = Line(run.name, steps, values, colour, borders=_borders(run, steps))
    if window < 2:
        return line
    # A stage's data and loss may be others.
    smooth = [running_median(part, window) for _, part in line.parts(values)]
    return line._replace(values=np.concatenate(smooth), raw=values)


def _borders(run: Curves, steps: np.ndarray) -> tuple[int, ...]:
    return tuple(int(np.searchsorted(steps, s, side="right")) for s, _ in run.stages[1:])


def _single(run: Curves, step: int) -> bool:
    first = max((start for start, _ in run.stages if start < step), default=0)
    return step - first <= EVERY_STEP_UNTIL


def _rates(run: Curves, colour: int) -> Line:
    steps = np.array(sorted(run.training))
    values = np.array([run.training[step].rate for step in steps])
    return Line(run.name, steps, values, colour, stepped=True)


def _validation(run: Curves, name: str, colour: int, label: str) -> Line:
    epe = run.validation[name]
    steps = np.array(sorted(epe))
    values = np.array([epe[step] for step in steps])
    return Line(label, steps, values, colour, marked=True, borders=_borders(run, steps))
