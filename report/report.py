"""The validation report: one HTML page with totals, a table of images and their pictures.

The pictures of a pair are drawn and encoded when it was measured, and wait in a file without a
name until all totals are known; memory holds those of a few pairs, however many there are.
"""

import base64
import hashlib
import heapq
import json
import math
import os
import re
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
from maskflownet.inference.metrics import POOLED, ImageResult, Measured, means
from maskflownet.inference.validation import Results
from maskflownet.reader.colour import colour_wheel
from maskflownet.reader.files import atomic_path
from maskflownet.reader.sample import Labelled
from maskflownet.report.pictures import ERROR_TICKS, TITLES, draw_views, encode, error_colours, error_level

PAGE = Path(__file__).resolve().parent / "page"
IMAGES, WIDTH = 400, 768  # a picture's bytes grow with the square of the width
THREADS = 4  # that draw, at most; one draws some 6 pairs of 436x1024 a second
WHEEL = 320  # px; shown at half of it, so that it is sharp on dense screens
STOPS = 17  # of the error scale's gradient


class Measure(NamedTuple):
    """How a measure is shown."""

    label: str
    unit: str  # "px", "%" (of a share from 0 to 1) or "" (a plain number)
    meaning: str
    low_is_worse: bool = False

    def text(self, value: float, more: int = 0) -> str:
        """The value with two decimals, shares as percents with one, and as many more."""
        if not math.isfinite(value):
            return "no number"
        if self.unit == "%":
            return f"{100 * value:.{1 + more}f}"
        return f"{value:.{2 + more}f}"


MEASURES = {
    "epe": Measure("EPE", "px", "Mean end-point error: length of flow minus ground truth."),
    "fl": Measure("Fl", "%", "Share of outliers: error above 3 px and above 5 % of the true motion."),
    "1px": Measure("< 1 px", "%", "Share of the pixels whose error is below 1 px.", low_is_worse=True),
    "3px": Measure("< 3 px", "%", "Share of the pixels whose error is below 3 px.", low_is_worse=True),
    "5px": Measure("< 5 px", "%", "Share of the pixels whose error is below 5 px.", low_is_worse=True),
    "1px_outliers": Measure("1 px", "%", "Spring's share of outliers: error of 1 px or more."),
    "s0-10": Measure("s0–10", "px", "Mean end-point error of the pixels whose true motion is below 10 px."),
    "s10-40": Measure("s10–40", "px", "Mean end-point error of the pixels whose true motion is 10 to 40 px."),
    "s40+": Measure("s40+", "px", "Mean end-point error of the pixels whose true motion is 40 or more px."),
    "matched": Measure("Matched", "px", "Mean error of the pixels that image 2 shows."),
    "unmatched": Measure("Unmatched", "px", "Mean error of the pixels that are occluded there."),
    "epe_noc": Measure("EPE noc", "px", "Mean error of the pixels that both images show."),
    "fl_noc": Measure("Fl noc", "%", "Share of outliers among these."),
    "consistent": Measure("Consistent", "%", "Share of pixels that the opposite flow leads back.", low_is_worse=True),
    "epe_consistent": Measure("EPE cons.", "px", "Mean error of the consistent pixels."),
    "epe_inconsistent": Measure("EPE incons.", "px", "Mean error of the inconsistent pixels."),
    "occluded": Measure("Occluded", "%", "Share of the pixels that are occluded in image 2."),
    "ause_confidence": Measure("AUSE conf.", "", "Sparsification error of the confidence: 0 = it orders as errors do."),
    "ause_mask": Measure("AUSE mask", "", "The same of the learned mask."),
    "ap_confidence": Measure(
        "AP conf.", "", "Average precision with which low confidence finds occluded pixels.", low_is_worse=True
    ),
    "ap_mask": Measure("AP mask", "", "The same of the learned mask.", low_is_worse=True),
}


def badness(measures: Mapping[str, tuple[float, int]]) -> float:
    """Order of images, the worst highest: EPE; no number is worst, no labelled pixel least."""
    total, count = measures["epe"]
    if not count:
        return -1.0
    return total / count if math.isfinite(total) else math.inf


class _Pictured(NamedTuple):
    """What the page's script has to know of a pair's pictures, and where they lie in the waiting file, bytes."""

    names: tuple[str, ...]
    width: int  # px
    height: int
    max_flow: float  # px
    start: int = 0
    length: int = 0


class Report:
    """A watcher of a validation: draws pairs while they are measured, and writes the page at the end.

    At most `images` pairs have pictures: the worst of each of the `sets`, which share them evenly. The table holds all.
    A picture is `width` px wide; smaller images keep their size. They wait on the file system of the page's folder.
    None: `IMAGES` and `WIDTH`.
    """

    def __init__(self, path: Path, sets: int, images: int | None = None, width: int | None = None):
        self.path, self.width = path, width or WIDTH
        self._quota = max(1, (images or IMAGES) // max(1, sets))
        self._worst: dict[str, list[tuple[float, int]]] = {}  # heaps of (badness, -index)
        self._pictured: dict[tuple[str, int], _Pictured] = {}
        self._waiting = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - until `close`
        threads = min(THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads)
        self._drawn: deque = deque()  # (set, index, future), in the order of the pairs
        self._ahead = 2 * threads

    def close(self) -> None:
        self._pool.shutdown()
        self._waiting.close()

    def add(self, set_name: str, index: int, pair: Labelled, measured: Measured) -> None:
        """Take the pictures of a pair, unless enough worse ones of its set have been seen."""
        worst = self._worst.setdefault(set_name, [])
        entry = badness(measured.measures), -index
        if len(worst) < self._quota:
            heapq.heappush(worst, entry)
        else:
            out = heapq.heappushpop(worst, entry)
            if out == entry:
                return
            self._pictured.pop((set_name, -out[1]), None)
        self._drawn.append((set_name, index, self._pool.submit(_draw, pair, measured, self.width)))
        if len(self._drawn) > self._ahead:
            self._store()

    def _store(self) -> None:
        set_name, index, drawing = self._drawn.popleft()
        pictured, pictures = drawing.result()
        if (-index) not in (i for _, i in self._worst[set_name]):
            return
        which, start = list(self._worst).index(set_name), self._waiting.tell()
        for name, data in pictures.items():
            # Text, which no browser decodes before the page's script asks for it.
            self._waiting.write(b'<script type="image/webp" id="p%d-%d-%s">' % (which, index, name.encode()))
            self._waiting.write(data + b"</script>\n")
        self._pictured[set_name, index] = pictured._replace(start=start, length=self._waiting.tell() - start)

    def write(self, results: Results, facts: Mapping[str, object]) -> None:
        """Write the page; its head says the facts, `Run` and `Step` first among them."""
        while self._drawn:
            self._store()
        # The worst first, so that the pictures looked at first are there first.
        images = results.images
        order = sorted(self._pictured, key=lambda place: -badness(images[place[0]][place[1]].measures))
        pictured = {place: self._pictured[place] for place in order}
        script = (PAGE / "page.js").read_text(encoding="utf-8")
        with atomic_path(self.path) as temporary, open(temporary, "wb") as page:
            page.write(_before_pictures(results, facts, pictured, script).encode("utf-8"))
            for pair in pictured.values():
                self._waiting.seek(pair.start)
                page.write(self._waiting.read(pair.length))
            page.write(_after_pictures(results, pictured, script).encode("utf-8"))


def _draw(pair: Labelled, measured: Measured, width: int) -> tuple[_Pictured, dict[str, bytes]]:
    views = draw_views(pair, measured, width)
    data = {name: base64.b64encode(encode(name, picture)) for name, picture in views.pictures.items()}
    height, width = views.pictures["frame"].shape[:2]
    return _Pictured(tuple(data), width, height, views.max_flow), data


def _before_pictures(results: Results, facts, pictured, script: str) -> str:
    found = dict.fromkeys(n for images in results.images.values() for image in images for n in image.measures)
    names = [name for name in MEASURES if name in found]
    total = sum(map(len, results.images.values()))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    wheel = base64.b64encode(encode("wheel", colour_wheel(WHEEL))).decode("ascii")
    stops = error_colours(np.linspace(0, 1, STOPS)[None])[0]
    limited = f"The {len(pictured)} worst of {total}, in equal parts for each set, have pictures."
    parts = {
        "title": escape(f"{facts['Run']}, step {facts['Step']}"),
        "policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        "style": (PAGE / "style.css").read_text(encoding="utf-8"),
        "facts": _facts(results.about, facts),
        "skipped": _skipped(results.about["skipped"]),
        "totals_head": "".join(f'<th scope="col">{_title(MEASURES[n])}</th>' for n in names),
        "totals": "".join(_total(name, summary, names) for name, summary in results.totals.items()),
        "glossary": "".join(
            f"<div><dt>{_plain(MEASURES[n])}</dt><dd>{escape(MEASURES[n].meaning)}</dd></div>" for n in names
        ),
        "count": f"{total} image" + ("" if total == 1 else "s"),
        "limited": "" if len(pictured) == total else limited,
        "sets": "".join(f'<option value="{i}">{escape(s)}</option>' for i, s in enumerate(results.images)),
        "sort_options": "".join(f'<option value="{n}">{_plain(MEASURES[n])}</option>' for n in names),
        "head": "".join(_column(name) for name in names),
        "rows": "".join(_rows(results.images, names, pictured)),
        "wheel": f"data:image/webp;base64,{wheel}",
        "error_stops": ",".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in stops),
        "error_ticks": "".join(
            f'<span style="left:{100 * error_level(tick):.1f}%">{tick}{"+" if tick == ERROR_TICKS[-1] else ""}</span>'
            for tick in ERROR_TICKS
        ),
        "error_largest": f"{ERROR_TICKS[-1]}+",
    }
    return Template((PAGE / "page.html").read_text(encoding="utf-8")).substitute(parts)


def _after_pictures(results: Results, pictured: Mapping[tuple[str, int], _Pictured], script: str) -> str:
    numbers = {set_name: number for number, set_name in enumerate(results.images)}
    pairs = {
        f"{numbers[set_name]}-{index}": dict(zip(("names", "width", "height", "maxFlow"), pair))
        for (set_name, index), pair in pictured.items()
    }
    text = json.dumps({"titles": TITLES, "pairs": pairs}, separators=(",", ":")).replace("<", "\\u003c")
    block = f'<script type="application/json" id="report">{text}</script>\n'
    return f"{block}<script>{script}</script>\n</body>\n</html>\n"


def _facts(about: Mapping, facts: Mapping) -> str:
    size = "next multiples of 64"
    if about["resize"]:
        size = "{} × {} px".format(*about["resize"])
    elif about["pad"]:
        size = "edges repeated to multiples of 64"
    step = f"{facts['Step']:,}".replace(",", "\u202f")  # a narrow space
    every = {**facts, "Step": step, "Network's input": size, "Date": about["time"]}
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


def _total(name: str, summary: Mapping[str, float], names: list[str]) -> str:
    cells = "".join(_total_cell(MEASURES[n], summary.get(n), summary.get(n + POOLED)) for n in names)
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
    measure = MEASURES[name]
    low = " data-low" if measure.low_is_worse else ""
    return (
        f'<th scope="col" data-m="{escape(name)}"{low} data-plain="{_plain(measure)}">'
        f'<button type="button" title="{escape(measure.meaning)} Sort by it.">'
        f"{_title(measure)}</button></th>"
    )


def _rows(results: Mapping[str, list[ImageResult]], names: list[str], pictured) -> Iterator[str]:
    """The table's rows, the worst first, whatever their set."""
    everything = [
        (badness(image.measures), set_name, f"{number}-{index}", image, (set_name, index) in pictured)
        for number, (set_name, images) in enumerate(results.items())
        for index, image in enumerate(images)
    ]
    everything.sort(key=lambda row: -row[0])
    largest = max((row[0] for row in everything if math.isfinite(row[0])), default=0) or 1
    for bad, set_name, place, image, has_pictures in everything:
        values = means(image.measures)
        cells = "".join(_cell(n, image.measures.get(n, (0, 0)), values.get(n)) for n in names)
        # Long names break between their parts; `textContent` and copies of them stay the same.
        name = re.sub(r"([/_])", r"\1<wbr>", escape(image.name))
        bare = "" if has_pictures else " data-bare"
        share = min(max(bad / largest, 0), 1)
        yield (
            f'<tr data-id="{place}" data-set="{place.split("-")[0]}" style="--share:{share:.3f}"{bare}>'
            f'<td class="thumb"></td><th scope="row"><button type="button">{name}</button>'
            f"<small>{escape(set_name)} · {image.height} × {image.width}</small></th>{cells}</tr>\n"
        )


def _cell(name: str, measure: tuple[float, int], value: float | None) -> str:
    if value is None or not measure[1]:
        return f'<td data-m="{escape(name)}">–</td>'
    number = f"{value:.6g}" if math.isfinite(value) else "Infinity"
    return f'<td data-m="{escape(name)}" data-v="{number}">{MEASURES[name].text(value)}</td>'
