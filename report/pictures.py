"""Pictures of a labelled pair and its prediction, for the validation report and for training runs.

At every validation of a run a few pairs become strips of first frame, flow, ground truth, error and
mask, `logs/RUN.samples/SET_INDEX_STEP.jpg`: sorted by name they show how the flow becomes better.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.inference.metrics import Measured, end_point_error, means, plane
from maskflownet.reader.colour import colour_scale, flow_to_colour, usual_motion
from maskflownet.reader.files import if_possible, write_bytes
from maskflownet.reader.sample import Labelled
from PIL import Image, ImageDraw, ImageFont

# By the names that a pair's pictures have, in the order in which they are switched.
TITLES = {
    "frame": "First frame",
    "flow": "Flow",
    "truth": "Ground truth",
    "error": "Error",
    "mask": "Mask",
    "occlusion": "Occlusion",
    "confidence": "Confidence",
}
ERROR_TICKS = (0, 1, 3, 10, 30, 100)  # px; the last one and all above have the brightest colour
UNKNOWN = 112  # grey level where there is no label; the error's colours hold no grey
WEBP = {"quality": 80, "method": 2}  # method 4 takes twice the time for 4 % fewer bytes
JPEG = {"quality": 85}  # some 30 KB for five pictures
STRIP = ("frame", "flow", "truth", "error", "mask")  # those that there are
SIDE, LEAST_WIDTH = 256, 144  # px of a picture in a strip: its longer side at most, its width at least
GAP, ROW = 4, 20  # px between pictures, and of a line of text
TEXT, INK, PAPER = 12, (40, 40, 40), (255, 255, 255)


class Views(NamedTuple):
    """The pictures of one pair, all of one size."""

    pictures: dict[str, np.ndarray]  # (h, w, 3) uint8 RGB or (h, w) uint8
    max_flow: float  # px, the motion drawn in full colour in `flow` and `truth`


def draw_views(pair: Labelled, measured: Measured, width: int) -> Views:
    """Draw what there is of `TITLES`, `width` px wide; images that are smaller keep their size."""
    sample, prediction = pair.sample, measured.prediction
    height, full = sample.img1.shape[:2]
    size = min(width, full), max(1, round(height * min(width / full, 1)))  # (w, h), as OpenCV does
    valid = plane(sample.mask)
    small_label, known = shrink(sample.flow, size, valid)
    flow, _ = shrink(prediction.flow, size)
    error, _ = shrink(end_point_error(prediction.flow, sample.flow), size, valid)
    scale = colour_scale(usual_motion(small_label[known]) or usual_motion(flow), height, full)
    pictures = {
        "frame": cv2.resize(sample.img1, size, interpolation=cv2.INTER_AREA),
        "flow": flow_to_colour(flow, scale),
        "truth": flow_to_colour(small_label, scale, known),
        "error": np.where(known[..., None], error_colours(error_level(error)), np.uint8(UNKNOWN)),
    }
    if prediction.mask is not None:
        pictures["mask"] = _grey(prediction.mask, size)
    visible, where = None, None
    if pair.occlusion is not None:
        visible = ~plane(pair.occlusion)
    elif pair.noc is not None:
        visible, where = plane(pair.noc), valid
    if visible is not None:
        share, told = shrink(visible, size, where)
        pictures["occlusion"] = np.where(told, np.where(share >= 0.5, 255, 0), UNKNOWN).astype(np.uint8)
    confidence = getattr(prediction, "confidence", None)
    if confidence is not None:
        pictures["confidence"] = _grey(confidence, size)
    return Views(pictures, scale)


def shrink(values: np.ndarray, size: tuple[int, int], where: np.ndarray | None = None):
    """Average of (H, W) or (H, W, C) over the pixels that become one; `size` is (w, h), not above (W, H).

    Only the pixels `where` (H, W) count, so that a sparse label keeps its values and its points.
    Returns the float32 averages, 0 where no pixel counts, and a bool array (h, w): where one does.
    """
    values = np.asarray(values, np.float32)
    if where is None or where.all():
        known = np.ones(size[::-1], bool)
        return cv2.resize(values, size, interpolation=cv2.INTER_AREA), known
    weight = cv2.resize(where.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    known = weight > 1e-6
    share = np.where(known, weight, 1)
    if values.ndim == 3:
        where, share = where[..., None], share[..., None]
    return cv2.resize(np.where(where, values, 0), size, interpolation=cv2.INTER_AREA) / share, known


def error_level(error):
    """Place of an error on the scale from 0 to 1: logarithmic, so that 0.3 and 30 px both show. No number has 1."""
    return np.log1p(np.fmin(error, ERROR_TICKS[-1])) / np.log1p(ERROR_TICKS[-1])


def error_colours(levels: np.ndarray) -> np.ndarray:
    """Colours of `error_level`s (h, w): (h, w, 3) uint8 RGB, from black over red to yellow."""
    steps = np.rint(np.asarray(levels) * 255).astype(np.uint8)
    return cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO)[..., ::-1]


def encode(name: str, picture: np.ndarray) -> bytes:
    """A picture as WebP: lossless for the few levels of `occlusion`, lossy for all others."""
    return _bytes(picture, "WEBP", lossless=name == "occlusion", **WEBP)


def _bytes(picture: np.ndarray, form: str, **settings) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, form, **settings)
    return file.getvalue()


def _grey(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw values (H, W, 1) in [0, 1]: (h, w) uint8, 1 is white."""
    small, _ = shrink(values[..., 0], size)
    return np.clip(np.rint(small * 255), 0, 255).astype(np.uint8)


def choose(sets: Mapping[str, Sized], count: int) -> dict[str, list[int]]:
    """Indices of `count` pairs by set: dealt out over the sets, and spread over each from its first pair on."""
    turns = range(min(count, max(map(len, sets.values()), default=0)))
    dealt = [name for turn in turns for name in sets if turn < len(sets[name])][:count]
    return {name: [k * len(sets[name]) // share for k in range(share)] for name, share in Counter(dealt).items()}


class SamplePictures:
    """A watcher of one validation that draws the pairs of `choose` into a folder, made where it is missing.

    `show(name, data, step)` is given each picture, too: JPEG's bytes of `SET/INDEX`.
    """

    def __init__(self, folder, step: int, chosen, show: Callable):
        self.folder, self.step, self.chosen, self.show = Path(folder), step, chosen, show

    def add(self, set_name: str, index: int, pair: Labelled, measured: Measured) -> None:
        """Write the picture of a pair, if it is one of those that were chosen."""
        if index not in self.chosen.get(set_name, ()):
            return
        strip = draw_strip(pair, measured, f"step {self.step}  {pair.sample.name}")
        data = _bytes(strip, "JPEG", **JPEG)
        with if_possible(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self.folder / f"{set_name}_{index:04d}_{self.step:07d}.jpg", data)
        self.show(f"{set_name}/{index}", data, self.step)


def draw_strip(pair: Labelled, measured: Measured, caption: str) -> np.ndarray:
    """Draw first frame, flow, ground truth, error and mask side by side, with a line of figures: (h, w, 3) uint8 RGB.

    The colours' scale is that of the ground truth, so that strips of different steps compare.
    """
    height, width = pair.sample.img1.shape[:2]
    views = draw_views(pair, measured, max(1, width * SIDE // max(width, height)))
    pictures = {name: views.pictures[name] for name in STRIP if name in views.pictures}
    height, width = views.pictures["frame"].shape[:2]
    factor = -(-LEAST_WIDTH // width)  # each pixel becomes a square of so many
    width, height = width * factor, height * factor
    size = len(pictures) * (width + GAP) - GAP, height + 2 * ROW
    strip = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(TEXT)
    for i, (name, picture) in enumerate(pictures.items()):
        left = i * (width + GAP)
        large = Image.fromarray(picture).convert("RGB").resize((width, height), Image.Resampling.NEAREST)
        strip.paste(large, (left, ROW))
        title = f"error, yellow: {ERROR_TICKS[-1]} px" if name == "error" else TITLES[name].lower()
        draw.text((left + 2, ROW // 2), title, INK, font, anchor="lm")
    middle = height + ROW + ROW // 2
    text = f"{_figures(pair, measured)}, full colour {views.max_flow:.1f} px"
    draw.text((2, middle), caption, INK, font, anchor="lm")
    draw.text((size[0] - 2, middle), text, INK, font, anchor="rm")
    return np.asarray(strip)


def _figures(pair: Labelled, measured: Measured) -> str:
    """The EPE, and that of a flow of zero."""
    valid = plane(pair.sample.mask)
    if not valid.any():
        return "no pixel has a label"
    zero = np.hypot(*pair.sample.flow[valid].T.astype(np.float64)).mean()
    return f"EPE {means(measured.measures)['epe']:.2f} px, of zero flow {zero:.2f} px"
