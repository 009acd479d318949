"""Draw loss, end-point error, learning rate and validation of training runs.

python -m engine.plot_runs RUN [RUN ...] [-o PICTURE]

Without -o they are drawn in the terminal. A line of the log is the mean of the steps since the line
before; the first steps, which the log holds one by one, are left out.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from engine.cli import Parser, add_output_root, count, pixels, run
from engine.curve_figure import SUFFIXES, draw_figure
from engine.curve_panels import SCALES, make_panels
from engine.curve_terminal import draw_terminal
from engine.curves import find_log, joined, read_curves, with_parents
from engine.errors import UserError


def parse(arguments):
    parser = Parser(prog="plot_runs.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run id, unique prefix of one, or path of a logs/RUN.log",
    )
    add(
        "-o",
        "--output",
        type=Path,
        metavar="PICTURE",
        help=f"where to draw: {', '.join(SUFFIXES)} (default: in the terminal)",
    )
    add(
        "--terminal",
        action="store_true",
        help="draw in the terminal, too, where -o asks for a picture",
    )
    add(
        "--chain",
        action="store_true",
        help="put the runs that a run started from before it, one stage after the other",
    )
    add(
        "--join",
        action="store_true",
        help="put the given runs one after the other, as the stages of one",
    )
    add(
        "--smooth",
        type=count,
        metavar="N",
        help="lines of the log in the running median of training (default: by the run's length; "
        "1: none)",
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
            raise UserError(
                f"cannot draw {args.output}: its suffix is none of {', '.join(SUFFIXES)}"
            )
        if not args.output.parent.is_dir():
            raise UserError(
                f"cannot write {args.output}: its folder {args.output.parent} does not exist"
            )
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
