"""How large a validation report becomes, and the arguments that say so."""

from __future__ import annotations

import argparse
from typing import Mapping, NamedTuple

from engine.cli import count
from engine.errors import UserError

IMAGES, WIDTH = 400, 768  # a picture's bytes grow with the square of the width


class ReportOptions(NamedTuple):
    """How large a report becomes.

    Attributes
    ----------
    images : int
        Pairs with pictures, at most: the same number for each set, its worst ones. The table holds
        all others, too.
    width : int
        Of the pictures, px; smaller images keep their size.
    facts : mapping of str to str
        What the page's head says beside the run, such as the checkpoint and the engine.
    """

    images: int = IMAGES
    width: int = WIDTH
    facts: Mapping[str, str] = {}


def picture_width(text: str) -> int:
    """The type of a picture's width in px, 64 to 4096."""
    if not text.isdecimal() or not 64 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a width from 64 to 4096 px")
    return int(text)


def add_report(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--report",
        action="store_true",
        help="with --valid: also write logs/val/RUN_STEPS.html, one page with the totals, a table "
        "of the images and the pictures of the worst",
    )
    add(
        "--report_images",
        type=count,
        metavar="N",
        help="with --report: images with pictures, at most, the worst of each set in equal parts "
        f"(default {IMAGES})",
    )
    add(
        "--report_width",
        type=picture_width,
        metavar="PX",
        help=f"with --report: width of its pictures in px, 64 to 4096 (default {WIDTH}, some "
        "0.1 MB an image)",
    )


def report_options(args: argparse.Namespace, facts: Mapping[str, str]) -> ReportOptions | None:
    """The options that arguments of `add_report` ask for, None without `--report`."""
    if not args.report:
        return None
    return ReportOptions(args.report_images or IMAGES, args.report_width or WIDTH, facts)


def report_name(run: str, steps: int) -> str:
    """The file that a validation of a run's checkpoint writes."""
    return f"{run}_{steps}.html"


def check_report(args: argparse.Namespace) -> None:
    """Refuse arguments of `add_report` that would do nothing.

    Raises
    ------
    UserError
        There is `--report` without `--valid`, or one of the others without `--report`.
    """
    if args.report and not args.valid:
        raise UserError("--report is for --valid")
    for name in ("report_images", "report_width"):
        if getattr(args, name) is not None and not args.report:
            raise UserError(f"--{name} is for --report")
