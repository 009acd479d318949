"""Short programs that show what flow is for, and what their commands share."""

from argparse import Namespace

import maskflownet
from maskflownet.settings.cli import Parser, add_devices


def parse(arguments: list[str], text: str, **names: dict) -> Namespace:
    """Arguments of an example with this docstring: of each name what `add_argument` takes; options have a default."""
    parser = Parser(description=text.splitlines()[0])
    for name, given in names.items():
        parser.add_argument(f"--{name}" if "default" in given else name, metavar=name.upper(), **given)
    add_devices(parser)
    return parser.parse_args(arguments)


def load(args: Namespace) -> maskflownet.Predictor:
    """The shipped weights, on the devices that the arguments ask for."""
    return maskflownet.load(gpus=args.gpus, engine=args.engine, precision=args.precision)
