"""Draw loss, end-point error, learning rate and validation of training runs from their logs, `logs/RUN.log`.

python -m maskflownet.report.curves RUN [RUN ...] [-o PICTURE]

Without -o they are drawn in the terminal. A line of the log is the mean of the steps since the line
before; the first steps, which the log holds one by one, are left out.
"""

import math
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from maskflownet.checkpoints.checkpoint import as_path, find_run, split_name
from maskflownet.checkpoints.records import RUN
from maskflownet.errors import UserError
from maskflownet.reader.files import atomic_path
from maskflownet.settings.cli import Parser, add_output_root, count, pixels, run
from maskflownet.settings.folders import LOGS

# Whole lines only: the last one of a killed run may be cut anywhere.
TRAINING = re.compile(r"\] steps=(\d{1,15}), loss=(\S+), epe=(\S+), lr=(\S+), total_time=\d+\.\d+$", re.ASCII)
VALIDATION = re.compile(r"\] steps=(\d{1,15}), (?!loss=)", re.ASCII)
SET_EPE = re.compile(r"([^\s,:]+):epe=(\d{1,15}\.\d{4})(?=,|$)", re.ASCII)  # not `epe.pooled`
START = re.compile(r"\] run \S+ (?:starts|goes on)(?: from (\S+))? at step (\d{1,15}) of \d+$")
PLAUSIBLE = 1e-30, 1e30  # of a loss, an EPE or a rate that is not 0; what could be drawn ends there
SUFFIXES = (".png", ".svg", ".pdf")
SCALES = ("auto", "linear", "log")
SMOOTH = 40  # the running median leaves about so many independent points
LOG_FROM = 10  # ratio of largest to smallest value from which "auto" is logarithmic
# Okabe and Ito's colours, which those who see fewer colours can tell apart, without the yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
TERMINAL_COLOURS = ("blue+", "orange", "green+", "magenta+", "cyan+", "orange+", "gray+")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))  # the next one where the colours begin again
INK, FAINT, TEXT = "#333333", "#DDDDDD", 9.5  # points
MARKED = 60  # so many points of a line have room for a dot each


@dataclass(frozen=True)
class Curves:
    """What a run, or several that follow on each other, reported by step."""

    name: str
    training: dict[int, tuple[float, float, float]] = field(default_factory=dict)  # loss, EPE in px, rate
    validation: dict[str, dict[int, float]] = field(default_factory=dict)  # EPE in px by name of the set
    parent: str | None = None  # stem of the checkpoint that it started from
    stages: tuple[tuple[int, str], ...] = ()  # (first step, run) where there are several

    @property
    def end(self) -> int:
        return max((*self.training, *(step for epe in self.validation.values() for step in epe)))

    def until(self, last: int) -> "Curves":
        def cut(steps):
            return {step: value for step, value in steps.items() if step <= last}

        validation = {name: kept for name, epe in self.validation.items() if (kept := cut(epe))}
        return replace(self, training=cut(self.training), validation=validation)


def find_log(name, folder: Path = LOGS) -> Path:
    """Path of a log given as path, run id or unique prefix of one. UserError: there is none, or there are several."""
    path = as_path(name, "log")
    if path is not None:
        return path
    runs = {path.stem: path for path in sorted(Path(folder).glob("[!.]*.log"))}
    return runs[find_run(str(name), runs, "log of run", folder)]


def read_curves(path) -> Curves:
    """Read a log. Where a run that went on repeats steps, only the later ones count; absurd values are left out."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise UserError(f"cannot read {path}: {why}") from error
    curves = Curves(Path(path).stem)
    for line in lines:
        if start := START.search(line):
            curves = replace(curves.until(int(start[2])), parent=start[1] or curves.parent)
        elif training := TRAINING.search(line):
            try:
                values = tuple(map(float, training.groups()[1:]))
            except ValueError:
                continue
            if all(value == 0 or PLAUSIBLE[0] <= value <= PLAUSIBLE[1] for value in values):
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


def joined(chain: list[Curves]) -> Curves:
    """One curve of several, each beginning at the step at which the one before ended."""
    whole, offset, stages = Curves(chain[-1].name), 0, []
    for curves in chain:
        stages.append((offset, curves.name))
        whole.training.update({offset + step: point for step, point in curves.training.items()})
        for name, epe in curves.validation.items():
            shifted = {offset + step: value for step, value in epe.items()}
            whole.validation.setdefault(name, {}).update(shifted)
        offset += curves.end
    return replace(whole, parent=chain[0].parent, stages=tuple(stages) if len(chain) > 1 else ())


@dataclass(frozen=True)
class Line:
    """A curve; lines of the same run or set share the number of their colour in all panels."""

    label: str
    steps: np.ndarray  # (n,) int
    values: np.ndarray  # (n,) float; its running median where there is a raw line, too
    colour: int
    kind: str  # "training", "validation": points that count each, or "rate": constant up to each point
    borders: tuple[int, ...] = ()  # indices at which a stage begins, and the line anew
    raw: np.ndarray | None = None  # (n,) float

    def parts(self, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Steps and `values`, its own or the raw ones, of each stage that has any."""
        for steps, part in zip(np.split(self.steps, self.borders), np.split(values, self.borders)):
            if len(steps):
                yield steps, part


@dataclass(frozen=True)
class Panel:
    title: str
    lines: list[Line]
    height: float  # relative to the other panels
    log: bool = False
    levels: tuple = ()  # horizontal lines to compare with: (label, value, dashes)


def make_panels(runs, window: int | None = None, scale: str = "auto", zero: float | None = None) -> list[Panel]:
    """EPE, validation, loss and learning rate over the steps.

    One run has its validation sets and its training in one panel; several have a panel for each
    set, in which a colour is a run. `window`: log lines in the running median, by default by the
    run's length; `zero`: EPE of zero flow, px.
    """

    levels = (("zero flow", zero, (5, 3)), ("half of it", zero / 2, (1, 2))) if zero else ()

    def panel(title, lines, height, levels=()):
        values = np.concatenate([line.values for line in lines])
        wide = scale == "log" or (scale == "auto" and values.max() >= LOG_FROM * values.min())
        return Panel(title, lines, height, bool(values.min() > 0 and wide), levels)

    one = len(runs) == 1
    loss, epe, rate = ([_training(run, i, column, window) for i, run in enumerate(runs)] for column in range(3))
    sets = list(dict.fromkeys(name for run in runs for name in run.validation))
    if one:
        epe[0] = replace(epe[0], label="training")
        lines = [_line(runs[0], name, i, "validation", runs[0].validation[name]) for i, name in enumerate(sets, 1)]
        panels = [panel("End-point error, px", epe + lines, 3, levels)]
        loss, rate = ([replace(line, label="") for line in lines] for lines in (loss, rate))
    else:
        panels = []
        for name in sets:
            having = [(i, run) for i, run in enumerate(runs) if name in run.validation]
            lines = [_line(run, run.name, i, "validation", run.validation[name]) for i, run in having]
            panels.append(panel(f"Validation on {name}: end-point error, px", lines, 2, levels))
        panels.append(panel("Training: end-point error, px", epe, 2, () if sets else levels))
    varied = any(len(set(line.values)) > 1 for line in rate) and all(line.values.min() > 0 for line in rate)
    return [*panels, panel("Training loss", loss, 1.5), Panel("Learning rate", rate, 1, log=varied)]


def _line(run: Curves, label: str, colour: int, kind: str, values: dict[int, float]) -> Line:
    steps = np.array(sorted(values))
    borders = tuple(int(np.searchsorted(steps, first, side="right")) for first, _ in run.stages[1:])
    return Line(label, steps, np.array([values[step] for step in steps]), colour, kind, borders)


def _training(run: Curves, colour: int, column: int, window: int | None) -> Line:
    """Column of `Curves.training`: losses and errors smoothed, the rates as they are."""
    values = {step: point[column] for step, point in run.training.items()}
    if column == 2:
        return _line(run, run.name, colour, "rate", values)
    starts, single = {0, *(first for first, _ in run.stages)}, set()  # the first lines are of one step each
    for step in sorted(values):
        if step - 1 in starts | single:
            single.add(step)
    later = {step: value for step, value in values.items() if step not in single}
    line = _line(run, run.name, colour, "training", later or values)
    window = len(line.steps) // SMOOTH if window is None else window
    if window < 2:
        return line
    smooth = [running_median(part, window) for _, part in line.parts(line.values)]  # data and loss of stages differ
    return replace(line, values=np.concatenate(smooth), raw=line.values)


def running_median(values: np.ndarray, window: int) -> np.ndarray:
    """Median of (n,) values over `window` neighbours, fewer at the ends."""
    half = window // 2
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def number(value: float) -> str:
    """Three digits, 3.4 or 6.25e-06, and all of a larger whole number."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def ticks(low: float, high: float, log: bool, most: int = 5) -> list[float]:
    """At most so many round numbers from 0 to `high`, or in a logarithmic range all between `low` and `high`."""
    if not log:
        unit = 10 ** math.floor(math.log10(high / most))
        step = next(unit * factor for factor in (1, 2, 5, 10, 20) if high / (unit * factor) < most)
        return [i * step for i in range(int(high / step + 1e-9) + 1)]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 3, 4, 6), (1, 2, 5), (1, 3), (1,)):
        found = [x for power in powers for digit in digits if low <= (x := digit * 10.0**power) <= high]
        if len(found) <= most:
            break
    return found


def draw_figure(panels: list[Panel], path: Path, title: str, stages=()) -> None:
    """Write the picture; `stages` are (first step, name) of runs that follow on each other."""
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - slow, and the terminal does without
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise UserError("pictures of curves need matplotlib: pip install matplotlib") from error
    heights = [panel.height for panel in panels]
    with rc_context({"font.size": TEXT, "svg.fonttype": "none"}):
        figure = Figure((9, 0.85 * (sum(heights) + 0.3 * len(panels))), dpi=150, layout="constrained")
        figure.suptitle(title, x=0.012, ha="left", fontsize=TEXT + 2.5, fontweight="bold")
        rows = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        labels = [_draw_panel(axes, panel) for axes, panel in zip(rows, panels)]
        rows[-1].set_xlabel("training steps")
        rows[-1].set_xlim(0, max(line.steps[-1] for panel in panels for line in panel.lines))
        rows[-1].xaxis.set_major_formatter(lambda value, _: number(value))
        for axes in rows:
            for first, _ in stages[1:]:
                axes.axvline(first, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
        for i, (first, name) in enumerate(stages):  # in three rows in turn: stages may be short
            look = {"va": "top", "fontsize": TEXT - 1.5, "textcoords": "offset points"}
            place = (first, 1), (3, -2 - i % 3 * TEXT * 1.3), ("data", "axes fraction")
            rows[0].annotate(name if len(stages) <= 3 else name[:3], *place, **look)
        figure.draw_without_rendering()
        for texts in labels:  # move up those that would cover the one below
            below, scale = -math.inf, 72 / figure.dpi
            for text in sorted(texts, key=lambda text: text.xy[1]):
                y = text.axes.transData.transform((0, text.xy[1]))[1] * scale
                below = max(y, below + TEXT * 1.25)
                text.xyann = (7, below - y)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, facecolor="white")


def _draw_panel(axes, panel: Panel) -> list:
    """Draw the lines; their labels, at the right of the axes."""
    axes.set_title(panel.title, loc="left", fontsize=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    labels = []
    for label, value, dashes in panel.levels:
        axes.axhline(value, color=INK, linewidth=0.9, linestyle=(0, dashes))
        labels.append(_label(axes, f"{label} {number(value)}", value))
    for line in panel.lines:
        colour, dash = COLOURS[line.colour % len(COLOURS)], DASHES[line.colour // len(COLOURS) % len(DASHES)]
        few = len(line.steps) <= MARKED if line.kind == "validation" else len(line.steps) == 1
        look = {"color": colour, "linestyle": dash, "marker": "." if few else "", "markersize": 4, "clip_on": False}
        if line.raw is not None:
            for steps, values in line.parts(line.raw):
                axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.35)
        for steps, values in line.parts(line.values):
            # A line of the log tells the rate of the steps that led to it.
            axes.plot(steps, values, drawstyle="steps-pre" if line.kind == "rate" else "default", **look)
        if line.kind == "validation":
            axes.set_title("\N{WHITE CIRCLE} lowest", loc="right", fontsize=TEXT - 1.5)
            best = int(np.argmin(line.values))
            ring = {"markerfacecolor": "white", "markersize": 6, "clip_on": False}
            axes.plot(line.steps[best], line.values[best], marker="o", color=colour, **ring)
        labels.append(_label(axes, f"{line.label} {number(line.values[-1])}".strip(), line.values[-1], colour))
    axes.set_yscale("log" if panel.log else "linear")
    low, high = axes.get_ylim()
    if not panel.log:
        axes.set_ylim(bottom=0)
    # matplotlib's own logarithmic ticks are crowded, or none.
    axes.set_yticks(ticks(low, high, panel.log, 2 * round(panel.height) + 2))
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    return labels


def _label(axes, text: str, value: float, colour: str = INK):
    look = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
    return axes.annotate(text, (1, value), (7, 0), ("axes fraction", "data"), color=colour, **look)


def draw_terminal(panels: list[Panel], width: int, height: int, colour: bool) -> str:
    """Panels below each other in so many characters and lines, or in the least that they need."""
    try:
        from plotext import colorize, figure, marker, terminal  # noqa: PLC0415 - the picture does without it
    except ImportError as error:
        raise UserError("curves in the terminal need plotext: pip install 'plotext>=6.1'") from error
    terminal.limit(False, False)  # not to that of the process, which may have none
    width, last = max(width, 40), float(max(line.steps[-1] for panel in panels for line in panel.lines))
    share = (height - sum(1 + len(panel.lines) + len(panel.levels) for panel in panels)) / sum(
        panel.height for panel in panels
    )
    parts = []
    for panel in panels:
        entries = [(panel.title + ", logarithmic" * panel.log, (None, None, "bold"))]
        figure.clear()
        figure.theme("simple")
        figure.plot_size(width, max(8, int(share * panel.height)))
        figure.axes(False, axis="both", side=1)

        def draw(steps, values, sign, pixel, connected, log=panel.log):
            values = np.log10(values) if log else values  # plotext's own logarithmic axis chooses its ticks
            steps, values = (np.asarray(x, float).tolist() for x in (steps, values))
            signal = figure.signal(steps, values, marker=marker(sign, pixel=pixel))
            signal.lines(connected)
            figure.draw(signal)

        for label, value, _ in panel.levels:
            draw(np.linspace(0, last, width), np.full(width, value), "─", "gray", False)
            entries.append((f"── {label} {number(value)}", "gray"))
        for line in panel.lines:
            pixel = TERMINAL_COLOURS[line.colour % len(TERMINAL_COLOURS)]
            for steps, values in line.parts(line.values):
                if line.kind == "rate":  # constant up to each point
                    draw(np.repeat(steps, 2)[:-1], np.repeat(values, 2)[1:], "braille", pixel, True)
                else:
                    draw(steps, values, "braille", pixel, True)
            if line.kind == "validation" and 4 * len(line.steps) <= width:
                draw(line.steps, line.values, "●", pixel, False)
            sign = "●" if line.kind == "validation" else "━"
            entries.append((f"{sign} {line.label}".rstrip() + f" {number(line.values[-1])}", pixel))
        values = np.concatenate([*(line.values for line in panel.lines), [value for _, value, _ in panel.levels]])
        low, high = (values.min() * 0.95, values.max() * 1.05) if panel.log else (0.0, values.max() or 1.0)
        for side, log, ends in (("y", panel.log, (low, high)), ("x", False, (0.0, last))):
            marks, at = ticks(*ends, log), math.log10 if log else float
            figure.ruler(side).lim(*map(at, ends))
            figure.ruler(side).ticks([at(mark) for mark in marks], [number(mark) for mark in marks])
        for text, pixel in entries:
            parts.append(colorize(text, pixel=pixel).string().rstrip("\n") if colour else text)
        lines = figure.build().string(colorless=not colour).rstrip("\n").splitlines()
        parts += [line.rstrip() for line in lines]
    return "\n".join(parts)


def parse(arguments):
    parser = Parser(prog="curves.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run id, unique prefix of one, or path of a logs/RUN.log")
    add("-o", "--output", type=Path, metavar="PICTURE", help=f"where to draw: {', '.join(SUFFIXES)}")
    add("--chain", action="store_true", help="put the runs that a run started from before it, as its first stages")
    add("--join", action="store_true", help="put the given runs one after the other, as the stages of one")
    add("--smooth", type=count, metavar="N", help="log lines in the median (default: by the run's length; 1: none)")
    add("--scale", choices=SCALES, default="auto", help="of EPE and loss (default: log from a factor of 10 on)")
    add("--zero", type=pixels, metavar="EPE", help="EPE of zero flow on the validation pairs in px: a dashed line")
    add_output_root(parser)
    args = parser.parse_args(arguments)
    if args.join and args.chain:
        raise UserError("--join and --chain exclude each other")
    if args.output is not None:
        if args.output.suffix.lower() not in SUFFIXES:
            raise UserError(f"cannot draw {args.output}: its suffix is none of {', '.join(SUFFIXES)}")
        if not args.output.parent.is_dir():
            raise UserError(f"cannot write {args.output}: its folder {args.output.parent} does not exist")
    return args


def main(arguments):
    args = parse(arguments)
    logs = list(dict.fromkeys(find_log(name, args.output_root / "logs") for name in args.runs))
    runs = [joined(with_parents(log)) if args.chain else read_curves(log) for log in logs]
    if args.join:
        runs = [joined(runs)]
    panels = make_panels(runs, args.smooth, args.scale, args.zero)
    if args.output is None:
        width, height = shutil.get_terminal_size((100, 40))
        print(draw_terminal(panels, width, height - 2, colour=sys.stdout.isatty()))
        return
    stages = runs[0].stages if len(runs) == 1 else ()
    title = f"Training in {len(stages)} stages" if stages else f"Training run {runs[0].name}"
    draw_figure(panels, args.output, title if len(runs) == 1 else f"{len(runs)} training runs", stages)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    sys.exit(run(main))
