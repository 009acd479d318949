"""Training curves as a picture.

Training curves in the terminal, as lines of text.

Draw loss, end-point error, learning rate and validation of training runs.

python -m maskflownet.report.plot RUN [RUN ...] [-o PICTURE]

Without -o they are drawn in the terminal. A line of the log is the mean of the steps since the line
before; the first steps, which the log holds one by one, are left out.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.files import atomic_path
from maskflownet.report.curves import (
    SCALES,
    Line,
    Panel,
    best,
    find_log,
    joined,
    make_panels,
    read_curves,
    short,
    short_steps,
    tick,
    with_parents,
)
from maskflownet.settings.cli import Parser, add_output_root, count, pixels, run

WIDTH, HEIGHT, DPI = 9.0, 0.85, 150  # inches, inches for a panel of height 1, points an inch
# Okabe and Ito's colours, which those who see fewer colours can tell apart, without the yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
INK, FAINT = "#333333", "#DDDDDD"
TEXT = 9.5  # points
GAP = 8  # dots between two names
MARKED = 60  # so many points of a line have room for a dot each
FULL_NAMES = 3  # stages whose ids have room; of more the three digits stand there
SUFFIXES = (".png", ".svg", ".pdf")


def draw_figure(panels: Sequence[Panel], path, title: str, stages: Sequence[tuple[int, str]] = ()) -> None:
    """Write the picture, in the format of its suffix.

    Parameters
    ----------
    panels : sequence of Panel
    path : path
        .png, .svg or .pdf.
    title : str
    stages : sequence of (int, str)
        First step and name of runs that follow on each other.

    Raises
    ------
    UserError
        Matplotlib is not installed, or does not know the suffix.
    """
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - slow, and the terminal does without
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise UserError("pictures of curves need matplotlib: pip install matplotlib") from error
    style = {"font.size": TEXT, "axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK}
    style.update({"xtick.color": INK, "ytick.color": INK, "svg.fonttype": "none"})
    heights = [panel.height for panel in panels]
    with rc_context(style):
        size = (WIDTH, HEIGHT * (sum(heights) + 0.3 * len(panels)))
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        figure.suptitle(title, x=0.012, ha="left", fontsize=TEXT + 2.5, fontweight="bold")
        rows = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        labels = [_draw_panel(axes, panel) for axes, panel in zip(rows, panels)]
        names = _draw_steps(rows, panels, stages)
        figure.draw_without_rendering()
        for axes, texts in zip(rows, labels):
            _part(axes, texts)
        _stagger(names)
        try:
            with atomic_path(path) as temporary:
                figure.savefig(temporary, facecolor="white")
        except ValueError as error:
            raise UserError(f"cannot write {path}: {error}") from error


def _draw_panel(axes, panel: Panel) -> list:
    """Draw lines and levels; their labels, at the right of the axes."""
    axes.set_title(panel.title, loc="left", fontsize=TEXT)
    if any(line.marked for line in panel.lines):
        axes.set_title("\N{WHITE CIRCLE} lowest", loc="right", fontsize=TEXT - 1.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.tick_params(length=3, which="major")
    axes.tick_params(length=0, which="minor", labelsize=TEXT - 2)
    labels = []
    for level in panel.levels:
        style = (0, (5, 3)) if level.dashed else (0, (1, 2))
        axes.axhline(level.value, color=INK, linewidth=0.9, linestyle=style)
        labels.append(_label(axes, f"{level.label} {short(level.value)}", level.value, INK))
    for line in panel.lines:
        _draw_line(axes, line)
        text = f"{line.label} {short(line.values[-1])}".strip()
        labels.append(_label(axes, text, line.values[-1], _colour(line)))
    if panel.log:
        _set_log(axes, panel)
    else:
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="y", nbins=max(3, round(2 * panel.height)))
        axes.yaxis.set_major_formatter(lambda value, _: tick(value))
    return labels


def _draw_line(axes, line: Line) -> None:
    colour = _colour(line)
    # Further runs than there are colours begin again with another dash.
    dash = ("-", (0, (4, 1.5)), (0, (1, 1)))[line.colour // len(COLOURS) % 3]
    look = {"color": colour, "linestyle": dash, "solid_joinstyle": "round", "clip_on": False}
    few = len(line.steps) <= MARKED if line.marked else len(line.steps) == 1
    look["marker"] = "." if few else ""
    if line.raw is not None:
        for steps, values in line.parts(line.raw):
            axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.35)
    for steps, values in line.parts(line.values):
        if line.stepped:
            # A line of the log tells the rate of the steps that led to it.
            axes.step(steps, values, where="pre", linewidth=1.4, **look)
        else:
            axes.plot(steps, values, linewidth=1.4 if line.marked else 1.6, markersize=4, **look)
    if line.marked:
        lowest = best(line)
        ring = {"markerfacecolor": "white", "markersize": 6, "clip_on": False}
        axes.plot(line.steps[lowest], line.values[lowest], marker="o", color=colour, **ring)


def _set_log(axes, panel: Panel) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter  # noqa: PLC0415

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # matplotlib's own locator turns to crowded linear ticks where there is one of these or none.
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1,) if high / low > 100 else (1, 2, 5) if high / low > 5 else (1, 2, 3, 4, 6)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    axes.yaxis.set_major_locator(FixedLocator([x for x in ticks if low <= x <= high]))
    axes.yaxis.set_minor_locator(FixedLocator([]))
    axes.yaxis.set_major_formatter(lambda value, _: tick(value))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_steps(rows, panels: Sequence[Panel], stages) -> list:
    """Draw the axis of steps and where stages begin; the stages' names."""
    rows[-1].set_xlabel("training steps")
    last = max(line.steps[-1] for panel in panels for line in panel.lines)
    rows[-1].set_xlim(0, max(last, 1))
    rows[-1].xaxis.set_major_formatter(lambda value, _: short_steps(value))
    names = []
    for number, (first, name) in enumerate(stages):
        for axes in rows:
            if number:
                axes.axvline(first, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
        annotation = rows[0].annotate(
            name if len(stages) <= FULL_NAMES else name[:3],
            xy=(first, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            fontsize=TEXT - 1.5,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1},
        )
        names.append(annotation)
    return names


def _stagger(names: list) -> None:
    """Move names of short stages down to the first line where they cover no other."""
    ends: list[float] = []  # of the last name in each line, dots
    for name in names:
        box = name.get_window_extent()
        line = next((i for i, end in enumerate(ends) if box.x0 >= end + GAP), len(ends))
        if line == len(ends):
            ends.append(0.0)
        ends[line] = box.x1
        name.xyann = (3, -2 - line * TEXT * 1.4)


def _label(axes, text: str, value: float, colour: str):
    return axes.annotate(
        text,
        xy=(1, value),
        xycoords=("axes fraction", "data"),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        annotation_clip=False,
    )


def _part(axes, labels: list) -> None:
    """Move labels apart that would cover each other, as little as that takes."""
    if not labels:
        return
    height = TEXT * 1.25  # points
    to_points = 72 / axes.figure.dpi
    places = [axes.transData.transform((0, label.xy[1]))[1] * to_points for label in labels]
    order = np.argsort(places, kind="stable")
    moved = np.array(places)[order]
    lowest = axes.bbox.y0 * to_points  # the next panel's labels are below
    for _ in range(100):
        moved[0] = max(moved[0], lowest)
        overlaps = height - np.diff(moved)
        if (overlaps <= 0.01).all():
            break
        for i in np.flatnonzero(overlaps > 0):
            push = (height - (moved[i + 1] - moved[i])) / 2
            if push > 0:
                moved[i], moved[i + 1] = moved[i] - push, moved[i + 1] + push
    for i, place in zip(order, moved):
        labels[i].xyann = (7, place - places[i])


def _colour(line: Line) -> str:
    return COLOURS[line.colour % len(COLOURS)]


COLOURS_curve_terminal = ("blue+", "orange", "green+", "magenta+", "cyan+", "orange+", "gray+")
LEAST_WIDTH, LEAST_ROWS = 40, 8  # characters; lines of a panel without its heading
TICKS = 4  # at most so many parts of an axis
SPACE = 4  # characters for each point that is marked
LINE, DOT, DASH = "braille", "●", "─"  # markers


def draw_terminal(panels: Sequence[Panel], width: int, height: int, colour: bool) -> str:
    """Draw panels below each other.

    Parameters
    ----------
    panels : sequence of Panel
    width, height : int
        Characters and lines that all of it shall take; a panel is never below a least size.
    colour : bool
        Whether to use the escape codes of a terminal for colours.

    Raises
    ------
    UserError
        Plotext is not installed, or of an older generation.
    """
    try:
        from plotext import terminal  # noqa: PLC0415 - the picture does without it
    except ImportError as error:
        raise UserError("curves in the terminal need plotext: pip install 'plotext>=6.1'") from error
    terminal.limit(False, False)  # not to that of the process, which may have none
    width = max(width, LEAST_WIDTH)
    share = (height - 2 * len(panels)) / sum(panel.height for panel in panels)
    last = max(line.steps[-1] for panel in panels for line in panel.lines)
    parts = []
    for panel in panels:
        rows = max(LEAST_ROWS, int(share * panel.height))
        parts += ["", *_heading(panel, width, colour), _draw_panel_curve_terminal(panel, width, rows, last, colour)]
    return "\n".join(parts[1:])


def _heading(panel: Panel, width: int, colour: bool) -> list[str]:
    """The title and what the lines are, each with its last value."""
    import plotext  # noqa: PLC0415

    logarithmic = ", logarithmic" if panel.log else ""
    entries = [(f"{panel.title}{logarithmic}", (None, None, "bold"))]
    for line in panel.lines:
        text = f"{DOT if line.marked else '━'} {line.label}".rstrip()
        entries.append((f"{text} {short(line.values[-1])}", _colour_curve_terminal(line)))
    entries += [(f"{DASH}{DASH} {name} {short(value)}", "gray") for name, value, _ in panel.levels]
    rows, length = [""], 0
    for text, pixel in entries:
        if length and length + 3 + len(text) > width:
            rows, length = [*rows, ""], 0
        gap = "   " if length else ""
        length += len(gap) + len(text)
        drawn = plotext.colorize(text, pixel=pixel).string().rstrip("\n") if colour else text
        rows[-1] += gap + drawn
    return rows


def _draw_panel_curve_terminal(panel: Panel, width: int, rows: int, last: int, colour: bool) -> str:
    from plotext import figure, marker  # noqa: PLC0415

    figure.clear()
    figure.theme("simple")
    figure.plot_size(width, rows)
    figure.axes(False, axis="both", side=1)

    # Plotext's own logarithmic axis does without ticks of one's choice.
    def place(values):
        return np.log10(values) if panel.log else np.asarray(values, float)

    def draw(steps, values, sign, pixel, connected):
        signal = figure.signal(
            [float(step) for step in steps], [float(value) for value in place(values)], marker=marker(sign, pixel=pixel)
        )
        signal.lines(connected)
        figure.draw(signal)

    for level in panel.levels:
        columns = np.linspace(0, last, width)
        draw(columns, np.full(width, level.value), DASH, "gray", False)
    for line in panel.lines:
        for part in line.parts(line.values):
            steps, values = _corners(*part) if line.stepped else part
            draw(steps, values, LINE, _colour_curve_terminal(line), True)
        if line.marked and len(line.steps) * SPACE <= width:
            draw(line.steps, line.values, DOT, _colour_curve_terminal(line), False)
    shown = np.concatenate([line.values for line in panel.lines] + [[level.value] for level in panel.levels])
    low, high = (shown.min(), shown.max()) if panel.log else (0.0, shown.max())
    if low == high:
        low, high = low / 2, high * 2 or 1.0
    ticks = _log_ticks(low, high) if panel.log else _ticks(high)
    low = min(low, ticks[0])
    high = max(high, ticks[-1])
    figure.ruler("y").lim(*(float(limit) for limit in place([low, high])))
    figure.ruler("y").ticks([float(tick) for tick in place(ticks)], [tick(t) for t in ticks])
    steps = _ticks(max(last, 1))
    figure.ruler("x").lim(0, max(float(last), 1.0))
    figure.ruler("x").ticks([float(step) for step in steps], [short_steps(s) for s in steps])
    text = figure.build().string(colorless=not colour)
    figure.clear()
    return "\n".join(line.rstrip() for line in text.rstrip("\n").splitlines())


def _corners(steps, values) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a line that is constant up to each of its points."""
    return np.repeat(steps, 2)[:-1], np.repeat(values, 2)[1:]


def _ticks(high: float) -> list[float]:
    """Round numbers from 0 to `high` at most."""
    step = 10 ** np.floor(np.log10(high / TICKS))
    step = next(step * factor for factor in (1, 2, 5, 10) if high / (step * factor) <= TICKS)
    return [float(f"{i * step:.6g}") for i in range(int(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from below `low` to above `high`, or where that is wide its powers of ten."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        below = max((i for i, tick in enumerate(ticks) if tick <= low * (1 + 1e-9)), default=0)
        above = next((i for i, tick in enumerate(ticks) if tick >= high * (1 - 1e-9)), len(ticks))
        ticks = ticks[below : above + 1]
        if len(ticks) <= TICKS + 1:
            break
    return ticks


def _colour_curve_terminal(line: Line) -> str:
    return COLOURS_curve_terminal[line.colour % len(COLOURS_curve_terminal)]


def parse(arguments):
    parser = Parser(prog="plot_runs.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run id, unique prefix of one, or path of a logs/RUN.log")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="PICTURE",
        help=f"where to draw: {', '.join(SUFFIXES)} (default: in the terminal)",
    )
    add("--terminal", action="store_true", help="draw in the terminal, too, where -o asks for a picture")
    add(
        "--chain", action="store_true", help="put the runs that a run started from before it, one stage after the other"
    )
    add("--join", action="store_true", help="put the given runs one after the other, as the stages of one")
    add(
        "--smooth",
        type=count,
        metavar="N",
        help="lines of the log in the running median of training (default: by the run's length; 1: none)",
    )
    add(
        "--scale",
        choices=SCALES,
        default=SCALES[0],
        help="of EPE and loss (default auto: logarithmic where they differ by a factor of 10)",
    )
    add(
        "--zero",
        type=pixels,
        metavar="EPE",
        help="EPE of zero flow on the validation pairs in px, drawn as a dashed line",
    )
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
    logs = [find_log(name, args.output_root / "logs") for name in args.runs]
    logs = list(dict.fromkeys(logs))
    if args.chain:
        runs = [joined(with_parents(log)) for log in logs]
    else:
        runs = [read_curves(log) for log in logs]
        runs = [joined(runs)] if args.join else runs
    panels = make_panels(runs, args.smooth, args.scale, args.zero)
    if args.terminal or args.output is None:
        width, height = shutil.get_terminal_size((100, 40))
        print(draw_terminal(panels, width, height - 2, colour=sys.stdout.isatty()))
    if args.output is not None:
        stages = runs[0].stages if len(runs) == 1 else ()
        draw_figure(panels, args.output, _title(runs), stages)
        print(f"wrote {args.output}")


def _title(runs) -> str:
    if len(runs) > 1:
        return f"{len(runs)} training runs"
    if runs[0].stages:
        return f"Training in {len(runs[0].stages)} stages"
    return f"Training run {runs[0].name}"


if __name__ == "__main__":
    sys.exit(run(main))
