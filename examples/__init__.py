"""Short programs that show what flow is for, and what their commands share."""

from argparse import Namespace
from pathlib import Path

import maskflownet
from maskflownet.errors import UserError
from maskflownet.reader.formats import VIDEO_SUFFIXES, WRITABLE_SUFFIXES
from maskflownet.settings.cli import Parser, add_devices


def parse(arguments: list[str], text: str, inputs: dict, **options: dict) -> Namespace:
    """Arguments of an example with this docstring: inputs and how many of each, then `out`; options as argparse has.

    UserError: `out` exists already, its folder does not, or its suffix is not a picture's, with an input `video` not
    a video's.
    """
    parser = Parser(description=text.splitlines()[0])
    for name, number in {**inputs, "out": None}.items():
        parser.add_argument(name, nargs=number, metavar=name.upper(), help="a new file" if name == "out" else None)
    for name, given in options.items():
        parser.add_argument(f"--{name}", metavar=name.upper(), **given)
    add_devices(parser)
    args = parser.parse_args(arguments)
    if Path(args.out).exists():  # it may be meant as an input
        raise UserError(f"{args.out} exists already: OUT comes last and is never overwritten")
    if not Path(args.out).parent.is_dir():
        raise UserError(f"{args.out}: there is no such folder")
    suffixes = VIDEO_SUFFIXES if "video" in inputs else WRITABLE_SUFFIXES
    if Path(args.out).suffix.lower() not in suffixes:  # before the work
        raise UserError(f"cannot write {args.out}: its suffix is none of {', '.join(suffixes)}")
    return args


def load(args: Namespace) -> maskflownet.Predictor:
    """The shipped weights, on the devices that the arguments ask for."""
    return maskflownet.load(gpus=args.gpus, engine=args.engine, precision=args.precision)
