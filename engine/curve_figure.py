"""Training curves as a picture."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

from engine.curve_panels import Line, Panel, best, short, short_steps, tick
from engine.errors import UserError
from reader.files import atomic_path

WIDTH, HEIGHT, DPI = 9.0, 0.85, 150  # inches, inches for a panel of height 1, points an inch
# Okabe and Ito's colours, which those who see fewer colours can tell apart, without the yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
INK, FAINT = "#333333", "#DDDDDD"
TEXT = 9.5  # points
GAP = 8  # dots between two names
MARKED = 60  # so many points of a line have room for a dot each
FULL_NAMES = 3  # stages whose ids have room; of more the three digits stand there
SUFFIXES = (".png", ".svg", ".pdf")


def draw_figure(
    panels: Sequence[Panel], path, title: str, stages: Sequence[tuple[int, str]] = ()
) -> None:
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
