"""Training curves in the terminal, as lines of text."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from engine.curve_panels import Line, Panel, short, short_steps, tick
from engine.errors import UserError

COLOURS = ("blue+", "orange", "green+", "magenta+", "cyan+", "orange+", "gray+")
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
        raise UserError(
            "curves in the terminal need plotext: pip install 'plotext>=6.1'"
        ) from error
    terminal.limit(False, False)  # not to that of the process, which may have none
    width = max(width, LEAST_WIDTH)
    share = (height - 2 * len(panels)) / sum(panel.height for panel in panels)
    last = max(line.steps[-1] for panel in panels for line in panel.lines)
    parts = []
    for panel in panels:
        rows = max(LEAST_ROWS, int(share * panel.height))
        parts += [
            "",
            *_heading(panel, width, colour),
            _draw_panel(panel, width, rows, last, colour),
        ]
    return "\n".join(parts[1:])


def _heading(panel: Panel, width: int, colour: bool) -> list[str]:
    """The title and what the lines are, each with its last value."""
    import plotext  # noqa: PLC0415

    logarithmic = ", logarithmic" if panel.log else ""
    entries = [(f"{panel.title}{logarithmic}", (None, None, "bold"))]
    for line in panel.lines:
        text = f"{DOT if line.marked else '━'} {line.label}".rstrip()
        entries.append((f"{text} {short(line.values[-1])}", _colour(line)))
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


def _draw_panel(panel: Panel, width: int, rows: int, last: int, colour: bool) -> str:
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
            [float(step) for step in steps],
            [float(value) for value in place(values)],
            marker=marker(sign, pixel=pixel),
        )
        signal.lines(connected)
        figure.draw(signal)

    for level in panel.levels:
        columns = np.linspace(0, last, width)
        draw(columns, np.full(width, level.value), DASH, "gray", False)
    for line in panel.lines:
        for part in line.parts(line.values):
            steps, values = _corners(*part) if line.stepped else part
            draw(steps, values, LINE, _colour(line), True)
        if line.marked and len(line.steps) * SPACE <= width:
            draw(line.steps, line.values, DOT, _colour(line), False)
    shown = np.concatenate(
        [line.values for line in panel.lines] + [[level.value] for level in panel.levels]
    )
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


def _colour(line: Line) -> str:
    return COLOURS[line.colour % len(COLOURS)]
