"""Training curves, read from the logs of runs: `logs/RUN.log`, found by name as checkpoints are."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

from engine.errors import UserError
from engine.folders import LOGS
from engine.run_names import as_path, find_run

SUFFIX = ".log"
# Whole lines only: the last one of a killed run may be cut anywhere.
_TRAINING = re.compile(
    r"\] steps=(\d+), loss=(\S+), epe=(\S+), lr=(\S+), total_time=\d+\.\d+$", re.ASCII
)
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
    if not str(name):
        raise UserError("the run's name is empty: give a path or a run id")
    runs = {path.stem: path for path in sorted(Path(folder).glob(f"[!.]*{SUFFIX}"))}
    return runs[find_run(str(name), runs, f"run {name}", f"no log of a run {name} in {folder}")]


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
        match = re.fullmatch(r"(.+)_(\d+)", chain[0].parent)
        run, step = (match[1], int(match[2])) if match else (chain[0].parent, None)
        log = path.with_name(run + SUFFIX)
        if run in seen or not log.is_file():
            break
        seen.add(run)
        curves = read_curves(log)
        chain.insert(0, curves if step is None else _cut(curves, step))
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
        name: {step: value for step, value in epe.items() if step <= last}
        for name, epe in curves.validation.items()
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
