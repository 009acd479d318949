"""Draw a run's training and validation EPE over its steps.

python -m benchmarks.plot_log LOG PICTURE [--zero EPE]

LOG is the logs/RUN.log of a run. A training point is the mean of the steps since the point before;
the first steps, which the log holds one by one, are left out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

from engine.cli import Parser, pixels, run
from engine.errors import UserError
from engine.run_log import EVERY_STEP_UNTIL

TRAINING = re.compile(r"\bsteps=(\d+), loss=\S+, epe=([^\s,]+)")
VALIDATION = re.compile(r"\bsteps=(\d+), (?!loss=)")
SET_EPE = re.compile(r"([\w.]+):epe=([^\s,]+)")  # not `epe.pooled`
SIZE, DPI = (9, 5), 100  # inches and points an inch: 900x500


class Curves(NamedTuple):
    """EPE in px by step; of a step that was done twice, the later line counts."""

    training: dict[int, float]
    validation: dict[str, dict[int, float]]  # by the name of the set


def read_curves(path) -> Curves:
    """Read the lines of a run's log.

    Raises
    ------
    UserError
        The file cannot be read, or it holds no training step.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    curves = Curves({}, {})
    for line in lines:
        training = TRAINING.search(line)
        validation = VALIDATION.search(line)
        if training:
            curves.training[int(training[1])] = float(training[2])
        elif validation:
            for name, epe in SET_EPE.findall(line):
                curves.validation.setdefault(name, {})[int(validation[1])] = float(epe)
    if not curves.training:
        raise UserError(f"{path} is no log of a training run: it has no line with steps and loss")
    return curves


def draw(curves: Curves, picture, zero: float | None = None) -> None:
    """Write the picture, in the format of its suffix.

    Parameters
    ----------
    curves : Curves
    picture : path
    zero : float, optional
        EPE of zero flow on the validation pairs, px: a dashed line, and half of it a dotted one.

    Raises
    ------
    UserError
        Matplotlib is not installed, or does not know the suffix.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - the programs do without it
    except ImportError as error:
        raise UserError("plots need matplotlib: pip install -r requirements-dev.txt") from error
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    means = {step: epe for step, epe in curves.training.items() if step > EVERY_STEP_UNTIL}
    axes.plot(*_points(means or curves.training), linewidth=0.9, alpha=0.7, label="training")
    for name, epe in curves.validation.items():
        axes.plot(*_points(epe), marker="o", markersize=4, label=f"validation, {name}")
    if zero is not None:
        axes.axhline(zero, color="black", linestyle="--", label=f"zero flow, {zero:.2f} px")
        axes.axhline(zero / 2, color="black", linestyle=":", label=f"half of it, {zero / 2:.2f} px")
    axes.set(xlabel="training steps", ylabel="average end-point error (px)", xlim=(0, None))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(picture)
    except ValueError as error:
        raise UserError(f"cannot write {picture}: {error}") from error


def _points(epe: dict[int, float]) -> tuple[list[int], list[float]]:
    steps = sorted(epe)
    return steps, [epe[step] for step in steps]


def main(arguments):
    parser = Parser(prog="plot_log.py", description=__doc__.splitlines()[0])
    parser.add_argument("log", metavar="LOG", help="logs/RUN.log")
    parser.add_argument("picture", metavar="PICTURE", help="where to draw: .png, .svg or .pdf")
    parser.add_argument(
        "--zero",
        type=pixels,
        metavar="EPE",
        help="EPE of zero flow on the validation pairs in px, drawn as a dashed line",
    )
    args = parser.parse_args(arguments)
    draw(read_curves(args.log), args.picture, args.zero)


if __name__ == "__main__":
    sys.exit(run(main))
