"""How large a validation report becomes, and the arguments that say so.

How the measures of `maskflownet.inference.metrics` are called, written and ordered on the page.

Fills the page: everything in it but the pictures' bytes, every name escaped.

The validation report: one HTML page with totals, a table of images and their pictures.

The pictures of a pair are drawn and encoded when it was measured, and wait in a file without a
name until all totals are known; memory holds those of a few pairs, however many there are.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import heapq
import json
import math
import os
import re
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
from maskflownet.errors import UserError
from maskflownet.inference.metrics import POOLED, ImageResult, Labelled, Measured, means
from maskflownet.reader.colour import colour_wheel
from maskflownet.reader.files import atomic_path
from maskflownet.report.pictures import ERROR_TICKS, TITLES, draw_views, encode, error_colours, error_level
from maskflownet.settings.cli import count

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
        help=f"with --report: images with pictures, at most, the worst of each set in equal parts (default {IMAGES})",
    )
    add(
        "--report_width",
        type=picture_width,
        metavar="PX",
        help=f"with --report: width of its pictures in px, 64 to 4096 (default {WIDTH}, some 0.1 MB an image)",
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


class Measure(NamedTuple):
    """How a measure is shown; `decimals` are those of a single image, totals have one more."""

    label: str
    unit: str  # "px", "%" (of a share from 0 to 1) or "" (a plain number)
    meaning: str
    low_is_worse: bool = False

    def text(self, value: float, more: int = 0) -> str:
        """Format a value for people; what is not finite is told as such."""
        if not math.isfinite(value):
            return "no number"
        if self.unit == "%":
            return f"{100 * value:.{1 + more}f}"
        return f"{value:.{2 + more}f}"


_SHARE = "Share of the pixels whose error is below {} px."
_SPEED = "Mean end-point error of the pixels whose true motion is {} px."
MEASURES = {
    "epe": Measure("EPE", "px", "Mean end-point error: length of flow minus ground truth."),
    "fl": Measure("Fl", "%", "Share of outliers: error above 3 px and above 5 % of the true motion."),
    "1px": Measure("< 1 px", "%", _SHARE.format(1), low_is_worse=True),
    "3px": Measure("< 3 px", "%", _SHARE.format(3), low_is_worse=True),
    "5px": Measure("< 5 px", "%", _SHARE.format(5), low_is_worse=True),
    "s0-10": Measure("s0–10", "px", _SPEED.format("below 10")),
    "s10-40": Measure("s10–40", "px", _SPEED.format("10 to 40")),
    "s40+": Measure("s40+", "px", _SPEED.format("40 or more")),
    "matched": Measure("Matched", "px", "Mean error of the pixels that image 2 shows."),
    "unmatched": Measure("Unmatched", "px", "Mean error of the pixels that are occluded there."),
    "epe_noc": Measure("EPE noc", "px", "Mean error of the pixels that both images show."),
    "fl_noc": Measure("Fl noc", "%", "Share of outliers among these."),
    "consistent": Measure(
        "Consistent", "%", "Share of the pixels that the flow of the opposite direction leads back.", low_is_worse=True
    ),
    "epe_consistent": Measure("EPE cons.", "px", "Mean error of the consistent pixels."),
    "epe_inconsistent": Measure("EPE incons.", "px", "Mean error of the inconsistent pixels."),
    "occluded": Measure("Occluded", "%", "Share of the pixels that are occluded in image 2."),
    "ause_confidence": Measure(
        "AUSE conf.", "", "Sparsification error of the confidence: 0 = it orders as the error does."
    ),
    "ause_mask": Measure("AUSE mask", "", "The same of the learned mask."),
    "ap_confidence": Measure(
        "AP conf.", "", "Average precision with which low confidence finds occluded pixels.", low_is_worse=True
    ),
    "ap_mask": Measure("AP mask", "", "The same of the learned mask.", low_is_worse=True),
}


def shown(name: str) -> Measure:
    """How a measure is shown; one that is not in `MEASURES` bears its own name."""
    return MEASURES.get(name, Measure(name, "", name))


def badness(measures: Mapping[str, tuple[float, int]]) -> float:
    """Order of images, the worst highest: EPE; no number is worst, no labelled pixel least."""
    total, count = measures["epe"]
    if not count:
        return -1.0
    return total / count if math.isfinite(total) else math.inf


HERE = Path(__file__).resolve().parent / "page"
WHEEL = 320  # px; shown at half of it, so that it is sharp on dense screens
STOPS = 17  # of the error scale's gradient


class Pictured(NamedTuple):
    """What the page has to know of a pair's pictures."""

    names: tuple[str, ...]
    width: int  # px, of the pictures
    height: int
    max_flow: float  # px


def picture_block(number: int, index: int, name: str, data: bytes) -> bytes:
    """A picture that no browser decodes before the page's script asks for it.

    Parameters
    ----------
    number, index : int
        Of the set, and of the pair in its set.
    name : str
        Of the picture, made of letters.
    data : bytes
        WebP in base64.
    """
    if not name.isalpha():
        raise ValueError(f"the name of a picture is made of letters, unlike {name!r}")
    tag = f'<script type="image/webp" id="p{number}-{index}-{name}">'.encode("ascii")
    return tag + data + b"</script>\n"


def before_pictures(
    about: Mapping,
    facts: Mapping[str, str],
    totals: Mapping[str, Mapping[str, float]],
    results: Mapping[str, Sequence[ImageResult]],
    pictured: Mapping[tuple[str, int], Pictured],
) -> str:
    """The page up to its pictures; the arguments are those of `maskflownet.report.report.Report.write`."""
    found = dict.fromkeys(n for images in results.values() for i in images for n in i.measures)
    names = [*(n for n in MEASURES if n in found), *(n for n in found if n not in MEASURES)]
    count = sum(map(len, results.values()))
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    parts = {
        "title": escape(f"{about['run']}, step {about['steps']}"),
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        "style": (HERE / "style.css").read_text(encoding="utf-8"),
        "facts": _facts(about, facts),
        "skipped": _skipped(about["skipped"]),
        "totals_head": "".join(f'<th scope="col">{_title(shown(n))}</th>' for n in names),
        "totals": "".join(_total(name, summary, names) for name, summary in totals.items()),
        "glossary": "".join(_meaning(shown(name)) for name in names),
        "count": f"{count} image" + ("" if count == 1 else "s"),
        "limited": ""
        if len(pictured) == count
        else f"The {len(pictured)} worst of {count}, in equal parts for each set, have pictures.",
        "sets": "".join(f'<option value="{i}">{escape(s)}</option>' for i, s in enumerate(results)),
        "sort_options": "".join(f'<option value="{n}">{_plain(shown(n))}</option>' for n in names),
        "head": "".join(_column(name) for name in names),
        "rows": "".join(_rows(results, names, pictured)),
        "wheel": _uri("wheel", colour_wheel(WHEEL)),
        **_error_scale(),
    }
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(parts)


def after_pictures(results: Mapping[str, Sequence[ImageResult]], pictured: Mapping[tuple[str, int], Pictured]) -> str:
    """The page from its pictures on: what the script has to know, and the script."""
    numbers = {set_name: number for number, set_name in enumerate(results)}
    names = dict.fromkeys(n for pair in pictured.values() for n in pair.names)
    content = {
        "titles": {name: TITLES.get(name, name.capitalize()) for name in names},
        "pairs": {
            f"{numbers[set_name]}-{index}": {
                "names": pair.names,
                "width": pair.width,
                "height": pair.height,
                "maxFlow": pair.max_flow,
            }
            for (set_name, index), pair in pictured.items()
        },
    }
    text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    block = f'<script type="application/json" id="report">{text}</script>\n'
    return f"{block}<script>{_script()}</script>\n</body>\n</html>\n"


def _script() -> str:
    return "".join((HERE / name).read_text(encoding="utf-8") for name in ("zoom.js", "page.js"))


def _uri(name: str, picture: np.ndarray) -> str:
    return "data:image/webp;base64," + base64.b64encode(encode(name, picture)).decode("ascii")


def _facts(about: Mapping, facts: Mapping[str, str]) -> str:
    size = "next multiples of 64"
    if about["resize"]:
        size = "{} × {} px".format(*about["resize"])
    elif about["pad"]:
        size = "edges repeated to multiples of 64"
    every = {
        "Run": about["run"],
        "Step": f"{about['steps']:,}".replace(",", "\u202f"),  # a narrow space
        **facts,
        "Network's input": size,
        "Date": about["time"],
    }
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in every.items())


def _skipped(skipped: Mapping[str, str]) -> str:
    if not skipped:
        return ""
    items = "".join(f"<li><b>{escape(n)}</b>: {escape(why)}</li>" for n, why in skipped.items())
    return f"<details><summary>{len(skipped)} sets were skipped</summary><ul>{items}</ul></details>"


def _plain(measure: Measure) -> str:
    return escape(f"{measure.label} ({measure.unit})" if measure.unit else measure.label)


def _title(measure: Measure) -> str:
    unit = f" <small>{measure.unit}</small>" if measure.unit else ""
    return f'<abbr title="{escape(measure.meaning)}">{escape(measure.label)}</abbr>{unit}'


def _meaning(measure: Measure) -> str:
    return f"<div><dt>{_plain(measure)}</dt><dd>{escape(measure.meaning)}</dd></div>"


def _total(name: str, summary: Mapping[str, float], names: Sequence[str]) -> str:
    cells = "".join(_total_cell(shown(n), summary.get(n), summary.get(n + POOLED)) for n in names)
    head = f'<th scope="row">{escape(name)}</th>'
    return f'<tr>{head}<td data-label="Images"><b>{summary["images"]:,}</b></td>{cells}</tr>\n'


def _total_cell(measure: Measure, mean: float | None, pooled: float | None) -> str:
    if mean is None:
        return f'<td class="none" data-label="{_plain(measure)}">–</td>'
    lower = "" if pooled is None else f"<small>{_figure(measure, pooled)}</small>"
    return f'<td data-label="{_plain(measure)}"><b>{_figure(measure, mean)}</b>{lower}</td>'


def _figure(measure: Measure, value: float) -> str:
    return "–" if math.isnan(value) else measure.text(value, more=1)


def _column(name: str) -> str:
    measure = shown(name)
    low = " data-low" if measure.low_is_worse else ""
    return (
        f'<th scope="col" data-m="{escape(name)}"{low} data-plain="{_plain(measure)}">'
        f'<button type="button" title="{escape(measure.meaning)} Sort by it.">'
        f"{_title(measure)}</button></th>"
    )


def _rows(results, names, pictured):
    """The table's rows, the worst first, whatever their set."""
    everything = [
        (set_name, number, index, image)
        for number, (set_name, images) in enumerate(results.items())
        for index, image in enumerate(images)
    ]
    everything.sort(key=lambda row: -badness(row[3].measures))
    finite = [b for row in everything if math.isfinite(b := badness(row[3].measures))]
    largest = max(finite, default=0) or 1
    for set_name, number, index, image in everything:
        missing = "" if (set_name, index) in pictured else " data-bare"
        share = min(max(badness(image.measures) / largest, 0), 1)
        values = means(image.measures)
        cells = "".join(_cell(n, image.measures.get(n, (0, 0)), values.get(n)) for n in names)
        # Long names break between their parts; `textContent` and copies of them stay the same.
        name = re.sub(r"([/_])", r"\1<wbr>", escape(image.name))
        yield (
            f'<tr data-id="{number}-{index}" data-set="{number}" style="--share:{share:.3f}"'
            f'{missing}><td class="thumb"></td><th scope="row"><button type="button">{name}'
            f"</button><small>{escape(set_name)} · {image.height} × {image.width}</small></th>"
            f"{cells}</tr>\n"
        )


def _cell(name: str, measure: tuple[float, int], value: float | None) -> str:
    if value is None or not measure[1]:
        return f'<td data-m="{escape(name)}">–</td>'
    number = f"{value:.6g}" if math.isfinite(value) else "Infinity"
    return f'<td data-m="{escape(name)}" data-v="{number}">{shown(name).text(value)}</td>'


def _error_scale() -> dict[str, str]:
    """The gradient of the error scale for CSS, and its ticks."""
    colours = error_colours(np.linspace(0, 1, STOPS)[None])[0]
    stops = ",".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in colours)
    ticks = "".join(
        f'<span style="left:{100 * error_level(tick):.1f}%">{tick}{"+" if tick == ERROR_TICKS[-1] else ""}</span>'
        for tick in ERROR_TICKS
    )
    return {"error_stops": stops, "error_ticks": ticks, "error_largest": f"{ERROR_TICKS[-1]}+"}


THREADS = 4  # that draw, at most; one draws some 6 pairs of 436x1024 a second


class _Place(NamedTuple):
    """Where a pair's pictures lie in the waiting file, bytes."""

    start: int
    length: int
    pictured: Pictured


class Report:
    """Collects pictures while pairs are measured, and writes the page at the end.

    Parameters
    ----------
    folder : Path
        Where the pictures wait, on the file system of the page.
    sets : int
        Number of the sets that share the pictures.
    options : ReportOptions
    """

    def __init__(self, folder: Path, sets: int, options: ReportOptions = ReportOptions()):  # noqa: B008
        self.options = options
        self._quota = max(1, options.images // sets)
        self._worst: dict[str, list[tuple[float, int]]] = {}  # heaps of (badness, -index)
        self._places: dict[tuple[str, int], _Place] = {}
        self._waiting = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - until __exit__
        threads = min(THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads)
        self._drawn: deque = deque()  # (set, index, future), in the order of the pairs
        self._ahead = 2 * threads

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown()
        self._waiting.close()

    def add(self, set_name: str, index: int, pair: Labelled, measured: Measured) -> None:
        """Take the pictures of a pair, unless enough worse ones of its set have been seen.

        Parameters
        ----------
        set_name : str
        index : int
            Of the pair in its set.
        pair : Labelled
        measured : Measured
        """
        worst = self._worst.setdefault(set_name, [])
        entry = badness(measured.measures), -index
        if len(worst) < self._quota:
            heapq.heappush(worst, entry)
        else:
            out = heapq.heappushpop(worst, entry)
            if out == entry:
                return
            self._places.pop((set_name, -out[1]), None)
        drawing = self._pool.submit(_draw, pair, measured, self.options.width)
        self._drawn.append((set_name, index, drawing))
        if len(self._drawn) > self._ahead:
            self._store()

    def _store(self) -> None:
        set_name, index, drawing = self._drawn.popleft()
        pictured, pictures = drawing.result()
        if (-index) not in (i for _, i in self._worst[set_name]):
            return
        number = list(self._worst).index(set_name)
        start = self._waiting.tell()
        for name, data in pictures.items():
            self._waiting.write(picture_block(number, index, name, data))
        length = self._waiting.tell() - start
        self._places[set_name, index] = _Place(start, length, pictured)

    def write(
        self,
        path: Path,
        about: Mapping,
        totals: Mapping[str, Mapping[str, float]],
        results: Mapping[str, Sequence[ImageResult]],
    ) -> None:
        """Write the page, under a temporary name first.

        Parameters
        ----------
        path : Path
        about : mapping
            `run`, `steps`, `time`, `resize`, `pad` and `skipped` of the validation.
        totals : mapping
            By set, as `maskflownet.inference.validation.validate` returns them.
        results : mapping
            The images by set, in the order in which they were added.
        """
        while self._drawn:
            self._store()
        # The worst first, so that the pictures looked at first are there first.
        order = sorted(self._places, key=lambda place: -badness(results[place[0]][place[1]].measures))
        pictured = {place: self._places[place].pictured for place in order}
        with atomic_path(path) as temporary, open(temporary, "wb") as page:
            head = before_pictures(about, self.options.facts, totals, results, pictured)
            page.write(head.encode("utf-8"))
            for place in order:
                start, length, _ = self._places[place]
                self._waiting.seek(start)
                page.write(self._waiting.read(length))
            page.write(after_pictures(results, pictured).encode("utf-8"))


def _draw(pair: Labelled, measured: Measured, width: int) -> tuple[Pictured, dict[str, bytes]]:
    views = draw_views(pair, measured, width)
    data = {name: base64.b64encode(encode(name, p)) for name, p in views.pictures.items()}
    height, width = views.pictures["frame"].shape[:2]
    return Pictured(tuple(data), width, height, views.max_flow), data
