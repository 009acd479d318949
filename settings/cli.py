"""What the programs share: one-sentence errors, exit codes, arguments and their types."""

import argparse
import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from maskflownet.errors import UserError, shortened, show_warning, shown
from maskflownet.processes import Interruption, interrupt
from maskflownet.settings.configs import ENGINES, PRECISIONS
from maskflownet.settings.folders import ROOT

UNEXPECTED, FAILED, INTERRUPTED = 1, 2, 130
READERS = 6  # processes per GPU: more slowed four GPUs of one host down (docs/speed.md)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UserErrors, with `--traceback` in every program."""

    def __init__(self, **kwargs):
        module = getattr(sys.modules["__main__"], "__spec__", None)
        super().__init__(prog=module and f"python -m {module.name}", allow_abbrev=False, **kwargs)
        self.add_argument("--traceback", action="store_true", help="show where in the program an error arose")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help explains the arguments)")


def run(main: Callable[[list[str]], int | None], arguments: list[str] | None = None) -> int:
    """Call a program; its exit code: its own or 0, 1 after an unexpected error, 2 after one that the user can put right
    (one sentence on stderr each), 130 after Ctrl-C and signals like it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with lenient_output(), Interruption(interrupt):
        try:
            return main(arguments) or 0
        except KeyboardInterrupt as interrupted:
            print(str(interrupted) or "interrupted", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:  # the last net
            if "--traceback" in arguments:
                raise
            print(f"error: {sentence(error)}", file=sys.stderr)
            return FAILED if isinstance(error, (UserError, OSError, MemoryError)) else UNEXPECTED


def sentence(error: Exception) -> str:
    text = " ".join(shortened(str(error)).split())
    if isinstance(error, UserError):
        return text
    if isinstance(error, OSError):
        text = error.strerror or text
        return f"{shortened(str(error.filename))}: {text}" if error.filename else text
    if isinstance(error, MemoryError):
        return f"the memory does not suffice{text and ': '}{text}"
    return (
        f"unexpected {type(error).__name__}{text and ': '}{text}; this is a fault of the program: please report it "
        "with the command and what it prints with --traceback"
    )


class _Lenient:
    """A stream of text that may be closed before the program ends, as by `| head`: what comes later goes nowhere."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._do(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._do(self._stream.flush)

    def _do(self, action: Callable) -> None:
        try:
            action()
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # for what the stream holds, too
            os.close(nowhere)
            if self is sys.stdout and not isinstance(error, BrokenPipeError):
                print(f"warning: cannot write to standard output: {error.strerror}", file=sys.stderr)


@contextmanager
def lenient_output() -> Iterator[None]:
    """Inside, neither standard output nor standard error can fail: not by a name that they cannot encode, either.

    A warning is one sentence.
    """
    before, warned = (sys.stdout, sys.stderr), warnings.showwarning
    for stream in before:
        with suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (_Lenient(stream or io.StringIO()) for stream in before)
    warnings.showwarning = show_warning
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before
        warnings.showwarning = warned


def number(kind: Callable, what: str, low, high=10**9) -> Callable:
    """The type of an argument from `low` to `high`; `what` says so in the error."""

    def convert(text: str):
        try:
            value = kind(text)
        except (ValueError, ArithmeticError):
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{shown(text)} is not {what}")
        return value

    return convert


whole_number = number(int, "a whole number", 0)
count = number(int, "a whole number above 0", 1)
pixels = number(float, "a number above 0 and at most 10^9", sys.float_info.min)
factor = number(float, "a number above 0 and at most 1000", sys.float_info.min, 1000)
seed = number(int, "a whole number below 2^63", 0, 2**63 - 1)
frame_rate = number(
    lambda text: Fraction(text if "/" in text else str(float(text))),  # of 1e999999999 it would write all the digits
    "a number from 0.01 to 1000",
    Fraction(1, 100),
    1000,
)


def height_width(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and len(part) < 10 for part in parts):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not H,W, two numbers of pixels")
    return int(parts[0]), int(parts[1])


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="network config: a name in config_folder/ or a path")


def add_checkpoint(parser: argparse.ArgumentParser, default: str = "the shipped weights") -> None:
    name = f"file, run id, unique prefix of one, or prefix:steps (default: {default})"
    parser.add_argument("-c", "--checkpoint", metavar="CHECKPOINT", help=name)


def add_colour(parser: argparse.ArgumentParser) -> None:
    order = parser.add_mutually_exclusive_group()
    for colour in ("RGB", "BGR"):
        text = f"the checkpoint's network takes {colour} images, whatever its record says; your images stay RGB"
        order.add_argument(f"--{colour.lower()}", action="store_const", const=colour, dest="colour", help=text)


def readers_of(args) -> int:
    """Processes that read data ahead: those of `--workers`, by default some per GPU, each on a core of its own."""
    if args.workers is not None:
        return args.workers
    gpus = sum(1 for gpu in args.gpus.split(",") if gpu)
    return max(0, min(READERS * gpus, (os.cpu_count() or 1) - gpus))


def add_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-g", "--gpus", default="", metavar="IDS", help="GPU ids such as 0,1; default: the CPU")
    engine = "what executes the networks (default auto: PyTorch where it is installed, else MXNet, the reference)"
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help=engine)
    precision = "of the torch engine's networks on GPUs, the rest is float32 (default tf32; on the CPU always float32)"
    parser.add_argument("--precision", choices=PRECISIONS, help=precision)


def add_sizing(parser: argparse.ArgumentParser) -> None:
    size = "size in px at which the network sees the images, multiples of 64 (default: the next); outputs keep theirs"
    parser.add_argument("--resize", type=height_width, metavar="H,W", help=size)
    parser.add_argument("--pad", action="store_true", help="repeat the edges up to multiples of 64, do not scale")


def add_batch(parser: argparse.ArgumentParser) -> None:
    batch = "pairs predicted at a time (default: 1 to validate; new data on GPUs: as many as pay and fit)"
    parser.add_argument("--batch", type=count, metavar="N", help=batch)


def add_output_root(parser: argparse.ArgumentParser) -> None:
    root = "folder of weights/, logs/ and flows/ (default: this checkout; without a checkout, the working folder)"
    parser.add_argument("--output_root", type=Path, default=ROOT, metavar="DIR", help=root)


def add_training(parser: argparse.ArgumentParser) -> None:
    """The arguments that training has in every program; `training.plan.Options.of_arguments` reads them."""
    add = parser.add_argument
    add("--seed", type=seed, metavar="N", help="of all random numbers (default 0, or the resumed run's)")
    debug = "check the set-up: read the first 32 samples of everything, end after 4 steps or --steps"
    add("--debug", action="store_true", help=debug)
    shard = "train on every N-th training sample; validation stays whole"
    add("-s", "--shard", type=count, default=1, metavar="N", help=shard)
    add("--skip_damaged", action="store_true", help="replace training samples that cannot be read, and count them")
    scale = "factor of all numbers of steps, such as 0.001 for a rehearsal"
    add("--scale", type=factor, default=1.0, metavar="X", help=scale)
    root = (
        "root of a data set, such as chairs=DIR (docs/datasets.md has all names), or textures=DIR for the pictures of "
        "synthetic scenes; may be repeated; without it MASKFLOWNET_NAME in the environment or NAME in paths.yaml"
    )
    add("--data_root", action="append", default=[], metavar="NAME=DIR", help=root)
    workers = f"processes that read data ahead, 0: the program reads (default: {READERS} per GPU, as cores allow)"
    add("--workers", type=whole_number, metavar="N", help=workers)
    add_output_root(parser)
