"""The validation report: one HTML page with totals, a table of images and their pictures.

The pictures of a pair are drawn and encoded when it was measured, and wait in a file without a
name until all totals are known; memory holds those of a few pairs, however many there are.
"""

from __future__ import annotations

import base64
import heapq
import os
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from engine.predictions import Labelled, Measured
from engine.report_options import ReportOptions
from engine.report_page.build import Pictured, after_pictures, before_pictures, picture_block
from engine.report_page.measures import badness
from engine.report_views import draw_views, encode
from engine.results import ImageResult
from reader.files import atomic_path

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
            By set, as `engine.validation.validate` returns them.
        results : mapping
            The images by set, in the order in which they were added.
        """
        while self._drawn:
            self._store()
        # The worst first, so that the pictures looked at first are there first.
        order = sorted(
            self._places, key=lambda place: -badness(results[place[0]][place[1]].measures)
        )
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
