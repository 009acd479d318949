"""What the programs share: one-sentence errors, exit codes and the types of their arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from maskflownet.errors import DataError, UserError
from maskflownet.settings.configs import ENGINES, PRECISIONS
from maskflownet.settings.folders import ROOT, WEIGHTS

FAILED, INTERRUPTED = 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UserErrors, with `--traceback` in every program."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)
        self.add_argument("--traceback", action="store_true", help="show where in the program an error arose")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help explains the arguments)")


def height_width(text: str) -> tuple[int, int]:
    """The type of `--resize H,W`."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not H,W, two numbers of pixels")
    return int(parts[0]), int(parts[1])


def pixels(text: str) -> float:
    """The type of a length in px above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def factor(text: str) -> float:
    """The type of a factor above 0 and at most 1000."""
    value = pixels(text)
    if value > 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is above 1000")
    return value


def frame_rate(text: str) -> Fraction:
    """The type of frames per second, 0.01 to 1000."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if not Fraction(1, 100) <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.01 to 1000")
    return value


def count(text: str) -> int:
    """The type of a number of things, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def add_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-g", "--gpus", default="", metavar="IDS", help="GPU ids such as 0,1; default: the CPU")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="what executes the networks: MXNet, or PyTorch for today's GPUs (default mxnet)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of the torch engine's networks on GPUs, the rest is float32 (default tf32; on the CPU always float32)",
    )


def add_sizing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resize",
        type=height_width,
        metavar="H,W",
        help="size in px at which the network sees the images, multiples of 64; the output keeps "
        "the images' size (default: the next multiples of 64)",
    )
    parser.add_argument("--pad", action="store_true", help="repeat the edges up to multiples of 64, do not scale")


def add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=count, metavar="N", help="pairs predicted at a time (default 1)")


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data_root",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="root of a data set (chairs, things3d, sintel, kitti, hd1k, pairs), or textures=DIR "
        "for the pictures of synthetic scenes; may be repeated; without it MASKFLOWNET_NAME in the "
        "environment or NAME in paths.yaml",
    )
    parser.add_argument(
        "--workers",
        type=whole_number,
        default=0,
        metavar="N",
        help="processes that read data ahead (default 0: the program itself reads)",
    )


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add `--folder` of the tools that write a checkpoint."""
    parser.add_argument("--folder", type=Path, default=WEIGHTS, metavar="DIR", help="where to write (default: weights)")


def add_output_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output_root",
        type=Path,
        default=ROOT,
        metavar="DIR",
        help="folder of weights/, logs/ and flows/ (default: this checkout)",
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    """The arguments that training has in every program; `Options.of_arguments` reads them."""
    add = parser.add_argument
    add(
        "--debug",
        action="store_true",
        help="read the first 32 samples of everything and end after 4 steps unless --steps says "
        "otherwise: checks the set-up",
    )
    add(
        "-s",
        "--shard",
        type=count,
        default=1,
        metavar="N",
        help="train on every N-th training sample; validation stays whole",
    )
    add("--skip_damaged", action="store_true", help="replace training samples that cannot be read, and count them")
    add(
        "--scale",
        type=factor,
        default=1.0,
        metavar="X",
        help="factor of all numbers of steps, such as 0.001 for a rehearsal",
    )


def whole_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def run(main: Callable[[list[str]], None], arguments: list[str] | None = None) -> int:
    """Call a program; its errors become one sentence on stderr.

    Returns
    -------
    int
        Exit code: 0; 2 after an error that the user can put right; 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        main(arguments)
    except (UserError, DataError, OSError) as error:
        if "--traceback" in arguments:
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def describe(error: Exception) -> str:
    """One sentence; the operating system's errors with the file that they concern."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
