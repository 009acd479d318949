"""Draw end-point error, loss and learning rate of training runs from their logs, `logs/RUN.log`.

python -m maskflownet.report.curves RUN [RUN ...] [--chain] [-o PICTURE]

A line of the log is the mean of the steps since the line before; the first lines, of one step each, are left out.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from maskflownet.checkpoints.checkpoint import RUN, as_path, find_run, split_name
from maskflownet.errors import UserError
from maskflownet.reader.files import atomic_path
from maskflownet.settings.cli import Parser, add_output_root, run
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

# Whole lines only: the last one of a killed run may be cut anywhere.
TRAINING = re.compile(r"\] steps=(\d{1,15}), loss=(\S+), epe=(\S+), lr=(\S+), total_time=\d+\.\d+$", re.ASCII)
VALIDATION = re.compile(r"\] steps=(\d{1,15}), (?!loss=)", re.ASCII)
SET_EPE = re.compile(r"([^\s,:]+):epe=(\d{1,15}\.\d{4})(?=,|$)", re.ASCII)  # not `epe.pooled`
START = re.compile(r"\] run \S+ (?:starts|goes on)(?: from (\S+))? at step (\d{1,15}) of \d+$")
PLAUSIBLE = 1e-30, 1e30  # of a loss, an EPE or a rate that is not 0; what can be drawn ends there
SUFFIXES = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, which those who see fewer colours can tell apart, without the yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
DASHES = ("-", "--", ":")


@dataclass(frozen=True)
class Curves:
    """What a run reported by step."""

    name: str
    training: dict[int, tuple[float, float, float]] = field(default_factory=dict)  # loss, EPE in px, rate
    validation: dict[str, dict[int, float]] = field(default_factory=dict)  # EPE in px by name of the set
    parent: str | None = None  # stem of the checkpoint that it started from

    @property
    def end(self) -> int:
        return max((*self.training, *(step for epe in self.validation.values() for step in epe)))

    def until(self, last: int) -> "Curves":
        def cut(steps):
            return {step: value for step, value in steps.items() if step <= last}

        validation = {name: kept for name, epe in self.validation.items() if (kept := cut(epe))}
        return replace(self, training=cut(self.training), validation=validation)


def find_log(name, folder: Path) -> Path:
    """Path of a log given as path, run id or unique prefix of one. UserError: there is none, or there are several."""
    path = as_path(name, "log")
    if path is not None:
        return path
    runs = {path.stem: path for path in sorted(Path(folder).glob("[!.]*.log"))}
    return runs[find_run(str(name), runs, "log of run", folder)]


def read_curves(path) -> Curves:
    """Read a log: of repeated steps the later ones; no absurd values, nor a mean of few steps after a run went on."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise UserError(f"cannot read {path}: {why}") from error
    curves, begun = Curves(Path(path).stem), 0
    for line in lines:
        if start := START.search(line):
            curves = replace(curves.until(begun := int(start[2])), parent=start[1] or curves.parent)
        elif training := TRAINING.search(line):
            try:
                values = tuple(map(float, training.groups()[1:]))
            except ValueError:
                continue
            few = begun and curves.training and int(training[1]) < begun + 10  # they would look like a peak
            if not few and all(value == 0 or PLAUSIBLE[0] <= value <= PLAUSIBLE[1] for value in values):
                curves.training[int(training[1])] = values
        elif validation := VALIDATION.search(line):
            for name, epe in SET_EPE.findall(line):
                curves.validation.setdefault(name, {})[int(validation[1])] = float(epe)
    if not curves.training:
        raise UserError(f"{path} is no log of a training run: it has no line with steps and loss")
    return curves


def with_parents(path) -> list[Curves]:
    """The curves of a run and those that it began from, the first of them first, each up to the checkpoint taken.

    The logs are looked for in the run's folder; a parent without a log there is where the chain begins.
    """
    path = Path(path)
    chain, seen = [read_curves(path)], {path.stem}
    while chain[0].parent:
        name, step = split_name(Path(chain[0].parent))
        if name in seen or not re.fullmatch(RUN, name):
            break
        logs = [file.with_name(f"{name}.log") for file in (path, path.resolve())]  # it may be a symbolic link
        log = next((log for log in logs if log.is_file()), None)
        if log is None:
            break
        seen.add(name)
        curves = read_curves(log)
        chain.insert(0, curves.until(step) if step else curves)
    return [curves for curves in chain if curves.training]


def draw(chains: Sequence[Sequence[Curves]]) -> Figure:
    """EPE, loss and rate over the steps. A chain is a run, or several that follow on each other.

    Of one chain each line has its colour; of several a colour is a chain, and a dash a validation set.
    """
    figure = Figure((9, 7), dpi=150, layout="constrained")
    epe, loss, rate = rows = figure.subplots(3, sharex=True, height_ratios=(3, 1.5, 1))
    sets = list(dict.fromkeys(name for chain in chains for curves in chain for name in curves.validation))
    legend = {}  # by label: a line, its last EPE in px
    for i, chain in enumerate(chains):
        owner, colour, offset = f"{chain[-1].name} " if len(chains) > 1 else "", COLOURS[i % len(COLOURS)], 0
        # Wider than those after, which would hide it where runs share their beginning.
        wider = min(1.5, 6 / len(chains)) * (len(chains) - 1 - i)
        thin, thick = {"linewidth": 0.8 + wider}, {"linewidth": 1.5 + wider, "markersize": 6 + 2 * wider}
        for curves in chain:
            if len(chain) > 1:
                for axes in rows:
                    axes.axvline(offset, color=colour, linewidth=0.8, linestyle=":")
                epe.annotate(curves.name[:3], (offset, 1), (2, -12), ("data", "axes fraction"), "offset points")
            steps, values = _means(curves.training)
            loss.plot(offset + steps, values[:, 0], color=colour, **thin)
            (line,) = epe.plot(offset + steps, values[:, 1], color=colour, alpha=0.6, **thin)
            legend[f"{owner}training"] = line, values[-1, 1]
            rate.plot(offset + steps, values[:, 2], color=colour, drawstyle="steps-pre", **thick)  # of steps before it
            for n, name in enumerate(sets):
                if name in curves.validation:
                    steps, values = map(np.array, zip(*sorted(curves.validation[name].items())))
                    look = (colour, DASHES[n % len(DASHES)]) if owner else (COLOURS[(n + 1) % len(COLOURS)], "-")
                    (line,) = epe.plot(offset + steps, values, marker=".", color=look[0], linestyle=look[1], **thick)
                    legend[f"{owner}{name}"] = line, values[-1]
            offset += curves.end
    for axes, title in zip(rows, ("End-point error, px", "Training loss", "Learning rate")):
        axes.set_title(title, loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.4)
    for axes in (epe, loss):  # of a chain's first stage they are many times those of its last one
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    rate.set(ylim=(0, None), xlabel="training steps", xlim=(0, None))
    texts = [f"{label} {last:.3g}" for label, (_, last) in legend.items()]
    columns = 3 if len(chains) == 1 else 2  # names of runs make them wide
    figure.legend([line for line, _ in legend.values()], texts, loc="outside upper left", ncols=columns, frameon=False)
    return figure


def _means(training: dict) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n,), and loss, EPE and rate (n, 3), if possible without the first lines, which are of one step each."""
    steps = sorted(training)
    steps = [step for i, step in enumerate(steps, 1) if step != i] or steps
    return np.array(steps), np.array([training[step] for step in steps])


def main(arguments):
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run id, unique prefix of one, or path of a logs/RUN.log")
    add("-o", "--output", type=Path, metavar="PICTURE", help=f"{', '.join(SUFFIXES)}; default: RUN.png beside the log")
    add("--chain", action="store_true", help="put the runs that a run started from before it")
    add_output_root(parser)
    args = parser.parse_args(arguments)
    logs = list(dict.fromkeys(find_log(name, args.output_root / "logs") for name in args.runs))
    output = args.output or logs[0].with_suffix(".png")
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot draw {output}: its suffix is none of {', '.join(SUFFIXES)}")
    chains = [with_parents(log) if args.chain else [read_curves(log)] for log in logs]
    for name, parent in {chain[0].name: chain[0].parent for chain in chains if args.chain and chain[0].parent}.items():
        print(f"the chain begins at {name}: there is no log of {parent}", file=sys.stderr)
    figure = draw(chains)
    with atomic_path(output) as temporary:
        figure.savefig(temporary)
    print(f"wrote {output}")


if __name__ == "__main__":
    sys.exit(run(main))
