"""Pictures of a few validation pairs at every validation of a run: how its flow becomes better.

Each is a strip of first frame, flow, ground truth, error and mask, `logs/RUN.samples/
SET_INDEX_STEP.jpg`, so that a folder's pictures of a pair follow each other in the order of the
steps.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Callable, Mapping, Sized

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.metrics import means, valid_pixels
from engine.predictions import Labelled, Measured
from engine.report_views import ERROR_TICKS, TITLES, draw_views, error_colours
from reader.files import write_bytes

SHOWN = ("frame", "flow", "truth", "error", "mask")  # those that there are
SIDE, LEAST_WIDTH = 256, 144  # px of a picture: its longer side at most, its width at least
GAP, ROW = 4, 20  # px between pictures, and of a line of text
TEXT, INK, PAPER = 12, (40, 40, 40), (255, 255, 255)
QUALITY = 85  # of JPEG, in percent: some 30 KB for five pictures


def choose(sets: Mapping[str, Sized], count: int) -> dict[str, list[int]]:
    """Which pairs are drawn: dealt out over the sets, the first one's first, and spread over each.

    Parameters
    ----------
    sets : mapping of str to data set
    count : int
        Of all pairs.

    Returns
    -------
    dict of str to list of int
        By set the indices of its pairs, with the set's first pair among them.
    """
    shares = dict.fromkeys(sets, 0)
    while count > 0 and any(shares[name] < len(sets[name]) for name in sets):
        for name in sets:
            if count > 0 and shares[name] < len(sets[name]):
                shares[name] += 1
                count -= 1
    return {
        name: [k * len(sets[name]) // share for k in range(share)]
        for name, share in shares.items()
        if share
    }


class SamplePictures:
    """Draws the chosen pairs of one validation while they are measured.

    Parameters
    ----------
    folder : path
        Of the pictures; made where it is missing.
    step : int
        Of the run.
    chosen : mapping of str to sequence of int
        See `choose`.
    show : callable(name, data, step), optional
        Is given each picture, too: JPEG's bytes of `SET/INDEX`.
    """

    def __init__(self, folder, step: int, chosen, show: Callable | None = None):
        self.folder, self.step, self.chosen, self.show = Path(folder), step, chosen, show

    def add(self, set_name: str, index: int, pair: Labelled, measured: Measured) -> None:
        """Write the picture of a pair, if it is one of those that were chosen."""
        if index not in self.chosen.get(set_name, ()):
            return
        data = _jpeg(draw_strip(pair, measured, f"step {self.step}  {pair.sample.name}"))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self.folder / f"{set_name}_{index:04d}_{self.step:07d}.jpg", data)
        if self.show is not None:
            self.show(f"{set_name}/{index}", data, self.step)


def draw_strip(pair: Labelled, measured: Measured, caption: str) -> np.ndarray:
    """Draw first frame, flow, ground truth, error and mask side by side, with a line of figures.

    The colours' scale is that of the ground truth, so that strips of different steps compare.

    Returns
    -------
    (h, w, 3) uint8 RGB array
    """
    height, width = pair.sample.img1.shape[:2]
    views = draw_views(pair, measured, max(1, width * SIDE // max(width, height)))
    pictures = {name: views.pictures[name] for name in SHOWN if name in views.pictures}
    factor = -(-LEAST_WIDTH // views.pictures["frame"].shape[1])
    tiles = [Image.fromarray(_enlarged(picture, factor)) for picture in pictures.values()]
    width, height = tiles[0].size
    size = len(tiles) * (width + GAP) - GAP, height + 2 * ROW
    strip = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(TEXT)
    for i, (name, tile) in enumerate(zip(pictures, tiles)):
        left = i * (width + GAP)
        strip.paste(tile, (left, ROW))
        draw.text((left + 2, ROW // 2), TITLES[name].lower(), INK, font, anchor="lm")
        if name == "error":
            _draw_scale(strip, draw, font, left + width)
    text = f"{_figures(pair, measured)}, full colour {views.max_flow:.1f} px"
    middle = height + ROW + ROW // 2
    draw.text((2, middle), caption, INK, font, anchor="lm")
    draw.text((size[0] - 2, middle), text, INK, font, anchor="rm")
    return np.asarray(strip)


def _enlarged(picture: np.ndarray, factor: int) -> np.ndarray:
    """RGB, each pixel a square of `factor` pixels."""
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    return np.ascontiguousarray(picture.repeat(factor, axis=0).repeat(factor, axis=1))


def _draw_scale(strip, draw, font, right: int) -> None:
    """The colours of the error, with the values at both ends, up to the edge `right`."""
    last = f"{ERROR_TICKS[-1]} px"
    draw.text((right, ROW // 2), last, INK, font, anchor="rm")
    length = 48
    start = right - int(draw.textlength(last, font)) - length - 4
    levels = np.linspace(0, 1, length)[None].repeat(8, axis=0)
    strip.paste(Image.fromarray(np.ascontiguousarray(error_colours(levels))), (start, ROW // 2 - 4))
    draw.text((start - 4, ROW // 2), str(ERROR_TICKS[0]), INK, font, anchor="rm")


def _figures(pair: Labelled, measured: Measured) -> str:
    """The EPE, and that of a flow of zero."""
    valid = valid_pixels(pair.sample.flow, pair.sample.mask)
    if not valid.any():
        return "no pixel has a label"
    zero = np.hypot(*pair.sample.flow[valid].T.astype(np.float64)).mean()
    return f"EPE {means(measured.measures)['epe']:.2f} px, of zero flow {zero:.2f} px"


def _jpeg(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
