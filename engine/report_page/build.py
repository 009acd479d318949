"""Fills the page: everything in it but the pictures' bytes, every name escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html import escape
from pathlib import Path
from string import Template
from typing import Mapping, NamedTuple, Sequence

import numpy as np

from engine.metrics import POOLED, means
from engine.report_page.measures import MEASURES, Measure, badness, shown
from engine.report_views import ERROR_TICKS, TITLES, encode, error_colours, error_level
from engine.results import ImageResult
from reader.colour import colour_wheel

HERE = Path(__file__).resolve().parent
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
    """The page up to its pictures; the arguments are those of `engine.report.Report.write`."""
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


def after_pictures(
    results: Mapping[str, Sequence[ImageResult]],
    pictured: Mapping[tuple[str, int], Pictured],
) -> str:
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
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in every.items()
    )


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
        f'<span style="left:{100 * error_level(tick):.1f}%">{tick}'
        f"{'+' if tick == ERROR_TICKS[-1] else ''}</span>"
        for tick in ERROR_TICKS
    )
    return {"error_stops": stops, "error_ticks": ticks, "error_largest": f"{ERROR_TICKS[-1]}+"}
