"""What a validation leaves behind: a line in a log, a CSV of the images, a JSON of the totals."""

from __future__ import annotations

import csv
import json
import math
import time
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from engine.metrics import POOLED, WHOLE, means
from reader.files import atomic_path

# The measures that the log's line holds.
HEADLINES = ("epe", "fl", "epe_noc", "fl_noc", "consistent", *WHOLE)


class ImageResult(NamedTuple):
    """The measures of one image, each as (sum, number of pixels)."""

    name: str
    height: int
    width: int
    measures: dict[str, tuple[float, int]]


def log_line(steps: int, totals: Mapping[str, Mapping[str, float]]) -> str:
    """Format `steps=S, SET:epe=..., SET:epe.pooled=..., SET:fl=...` and so on for every set."""
    parts = [f"steps={steps}"]
    for name, summary in totals.items():
        for measure in HEADLINES:
            for key in (measure, measure + POOLED):
                if key in summary:
                    parts.append(f"{name}:{key}={summary[key]:.4f}")
    return ", ".join(parts)


def append_log(path: Path, line: str) -> None:
    """Append `[time] line` to a log, in local time."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"[{stamp}] {line}\n")


def write_csv(path: Path, results: Mapping[str, Sequence[ImageResult]]) -> None:
    """Write a row for every image: set, name, height, width, valid pixels, and every measure.

    A cell is empty where the image has no pixel of that measure.
    """
    everything = [image for images in results.values() for image in images]
    names = list(dict.fromkeys(name for image in everything for name in image.measures))
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "name", "height", "width", "pixels", *names])
        for set_name, images in results.items():
            for image in images:
                values = means(image.measures)
                row = [set_name, image.name, image.height, image.width, image.measures["epe"][1]]
                row += [_or_none(values.get(name, math.nan)) for name in names]
                writer.writerow(row)


def write_json(path: Path, content: Mapping) -> None:
    """Write totals; `content["sets"]` holds numbers by set and measure, NaN becomes null."""
    sets = {
        name: {key: _or_none(value) for key, value in summary.items()}
        for name, summary in content["sets"].items()
    }
    with atomic_path(path) as temporary:
        text = json.dumps({**content, "sets": sets}, indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _or_none(value):
    return value if math.isfinite(value) else None
