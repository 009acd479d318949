"""A user's own images, in and out: a pair, a folder of frames or a video, and the files of their predictions."""

import math
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, count, islice, pairwise, repeat
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.engine.contract import Drawing, Drawn, Sizing
from maskflownet.errors import UserError
from maskflownet.inference.predictor import Predictor
from maskflownet.processes import ahead, in_threads
from maskflownet.reader import formats
from maskflownet.reader.colour import colour_scale, flow_to_colour, usual_motion
from maskflownet.reader.files import natural
from maskflownet.reader.video import LiveReader, VideoReader, VideoWriter
from tqdm import tqdm

ARRAYS = (".npy", ".npz")
RAW = {"flow": (".flo", ".pfm", *ARRAYS), "mask": (".pfm", *ARRAYS), "warped": ARRAYS, "confidence": (".pfm", *ARRAYS)}
GREY = ("mask", "confidence")  # roles of one channel
THREADS = min(8, os.cpu_count() or 1)  # that read or write the files of a folder; each holds one in memory
NUMBERED = re.compile(r"%0?\d{0,2}d")
# A first pass over a sequence finds one colour scale for all its frames.
SCALE_SIDE = 256  # px, the longer side of its frames
LIVE_SCALE = 1 / 50  # of the diagonal: a live source has no first pass
SCALE_PERCENTILE = 90  # of the pairs that move: a cut, which moves by any number of px, shall not make all pale


class Frames:
    """Frames of equal size, `height` and `width` px; consecutive ones are the pairs. Subclasses read them."""

    is_sequence = True
    rate = Fraction(25)  # of a written video
    pixel_aspect = Fraction(1)  # width over height
    folder: Path | None = None  # whose pictures are the frames
    count: int | None  # of pairs, if it is known
    times: Iterable[float | None] = repeat(None)  # s, of each frame; None: at the rate

    @property
    def numbers(self) -> Sequence[int]:
        """The number of each pair in the names of its outputs."""
        return range(1, (self.count or 1) + 1)

    def frames(self) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 RGB frames from the first one, holding one at a time."""
        raise NotImplementedError

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return pairwise(self.frames())


class Pair(Frames):
    """Two picture files."""

    is_sequence = False
    count = 1

    def __init__(self, path_1, path_2):
        self.paths = [Path(path_1), Path(path_2)]
        self.images = formats.read_images(self.paths)
        self.height, self.width = self.images[0].shape[:2]
        _check_same_size(self.paths, self.images)

    def frames(self):
        return iter(self.images)


class Folder(Frames):
    """The pictures of a folder in natural order: frame_2 comes before frame_10.

    All are decoded once when the folder is opened, so that a broken one is known at once; several at a time.
    """

    def __init__(self, path):
        self.folder = Path(path)
        if not self.folder.is_dir():
            raise UserError(f"--folder {path} is no folder")
        names = filter(formats.is_picture, os.listdir(self.folder))
        self.paths = [self.folder / name for name in sorted(names, key=natural)]
        if len(self.paths) < 2:
            raise UserError(f"folder {path} holds {len(self.paths)} pictures, two are needed{_sequence_below(path)}")
        self.count = len(self.paths) - 1
        self._range = formats.sample_range(self._samples())

    def _samples(self, trusted: bool = False):
        first = None
        calls = (partial(formats.read_samples, path, trusted) for path in self.paths)
        for path, samples in zip(self.paths, in_threads(calls, THREADS, THREADS)):
            first = samples if first is None else first
            _check_same_size((self.paths[0], path), (first, samples))
            yield samples
        self.height, self.width = first.shape[:2]

    @property
    def numbers(self):
        """Those of the first frames' names, or from 1 if no number in the names tells the frames apart."""
        found = (map(int, re.findall(r"\d+", path.stem)) for path in self.paths)
        for numbers in reversed([*zip(*found)]):
            if len(set(numbers)) == len(self.paths):
                return numbers[:-1]
        return super().numbers

    def frames(self):
        return (formats.to_8bit(samples, self._range) for samples in self._samples(trusted=True))


class Video(Frames):
    """A video or GIF."""

    def __init__(self, path):
        self.paths = [Path(path)]
        self._set(VideoReader(path))
        if self.reader.count < 2:
            raise UserError(f"{path} holds a single frame, two are needed")
        self.count = self.reader.count - 1

    def _set(self, reader):
        self.reader = reader
        self.height, self.width = reader.height, reader.width
        self.rate, self.pixel_aspect = reader.rate, reader.pixel_aspect

    def frames(self):
        return iter(self.reader)


class Live(Video):
    """A camera or a stream: a pair is the frame that was taken last and the newest one."""

    def __init__(self, url: str, kind: str | None = None):
        self.paths, self.count = [], None
        self._set(LiveReader(url, kind))
        self.times = self.reader.times


def _check_same_size(paths, images) -> None:
    first, second = (f"{image.shape[0]}x{image.shape[1]}" for image in images)
    if first != second:
        raise UserError(f"{paths[0]} and {paths[1]} differ in size: {first} and {second} (height x width)")


def _sequence_below(path) -> str:
    """What to say of a folder without frames, where folders below it hold some."""
    for folder, _, names in islice(os.walk(path), 1000):
        if sum(map(formats.is_picture, names)) > 1:
            return f"; name one of the folders below it, such as {folder}, in a call for each"
    return ""


@dataclass(frozen=True)
class Output:
    """Where one field of the predictions is written: its name's suffix chooses how.

    A picture (.png, .jpg, ...), raw values (.flo and .pfm for flow, .pfm for mask and confidence, .npy, .npz) or a
    video (.mp4, .avi, .gif). For a sequence it is a video or holds a number, as `flow_%04d.png` does.
    """

    path: Path
    role: str  # the field: "flow", "mask", "warped" or "confidence"
    kitti: bool = False  # a .png in KITTI's 16-bit format instead of colours
    codec: str | None = None  # the encoder of a video

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    @property
    def is_video(self) -> bool:
        return self.suffix in formats.VIDEO_SUFFIXES

    @property
    def is_drawn(self) -> bool:
        return not self.kitti and self.suffix in formats.WRITABLE_SUFFIXES + formats.VIDEO_SUFFIXES

    def path_of(self, number: int, is_sequence: bool) -> Path:
        """The file of the prediction with this number."""
        if not is_sequence or self.is_video:
            return self.path
        return self.path.with_name(NUMBERED.sub(lambda m: m.group() % number, self.path.name))

    def check(self, is_sequence: bool) -> None:
        """Raise a UserError if the suffix is unknown or does not fit, or the folder cannot be written to."""
        path, known = self.path, (*formats.WRITABLE_SUFFIXES, *RAW[self.role], *formats.VIDEO_SUFFIXES)
        videos, name = ", ".join(formats.VIDEO_SUFFIXES), f"{path.stem}_%04d{path.suffix}"
        several = self.is_video or len(NUMBERED.findall(path.name)) == 1
        for wrong, why in (
            (self.suffix not in known, f"the suffix of the {self.role} is one of {', '.join(known)}"),
            (self.kitti and self.suffix != ".png", "--kitti writes a .png"),
            (self.is_video and not is_sequence, "a pair gives one picture, not a video"),
            (is_sequence and not several, f"a sequence needs a video ({videos}) or a numbered name such as {name}"),
            (not path.parent.is_dir(), f"its folder {path.parent} does not exist"),
            (path.is_dir(), "it is a folder"),
            (not os.access(path.parent, os.W_OK), f"its folder {path.parent} may not be written to"),
        ):
            if wrong:
                raise UserError(f"cannot write {path}: {why}")


def check_outputs(source: Frames, outputs: list[Output], *others) -> None:
    """Check all names before anything is computed: no file is written twice or is an input, now or in the next call.

    `others` are files that must stay, too.
    """
    taken = {Path(path).resolve() for path in (*source.paths, *others)}
    for output in outputs:
        output.check(source.is_sequence)
        if source.folder and output.suffix in formats.PICTURE_SUFFIXES and source.folder.samefile(output.path.parent):
            raise UserError(f"cannot write {output.path}: the next call would take it for a frame; use another folder")
        paths = {output.path_of(number, source.is_sequence).resolve() for number in source.numbers}
        if paths & taken:
            raise UserError(f"{output.path} is named twice, or is one of the inputs")
        taken |= paths


class Summary(NamedTuple):
    """What a call of `predict_files` did."""

    pairs: int
    seconds: float
    largest: float  # px, the largest motion predicted
    max_flow: float | None  # px, drawn with full colour; None if no flow is drawn


def predict_files(
    predictor: Predictor,
    source: Frames,
    outputs: list[Output],
    max_flow: float | None = None,
    rate: Fraction | None = None,
) -> Summary:
    """Predict every pair of a source and write the outputs as a stream.

    `max_flow` is the motion in px that is drawn with full colour. Without it that is the `colour_scale` of the pair's
    largest motion, of what a first pass finds in a sequence (`_scale_of`), or of `LIVE_SCALE`. `rate`: frames per
    second of written videos; those of the source without it.
    """
    started = time.perf_counter()
    roles = {output.role for output in outputs}
    drawn = any(output.role == "flow" and output.is_drawn for output in outputs)
    vectors = any(output.role == "flow" and not output.is_drawn for output in outputs)
    largest, pairs, live = 0.0, 0, isinstance(source, Live)
    with ExitStack() as stack:
        # Opened before the first pass: what cannot be written is known at once.
        writers = [stack.enter_context(writing(output, source, rate)) for output in outputs]
        if drawn and max_flow is None:
            if live:
                max_flow = colour_scale(LIVE_SCALE * math.hypot(source.height, source.width), 0, 0)
            elif source.is_sequence:
                max_flow = _scale_of(predictor, source)
            else:
                vectors = True  # drawn when its largest motion is known
        drawing = Drawing(max_flow if drawn else None, vectors)
        asked = {role: role in roles for role in ("mask", "warped", "confidence")}

        def stage(items: Generator) -> Generator:
            return stack.enter_context(closing(items))  # ended with its thread when something fails

        most = 1 if live else 2 * predictor.most(source.height, source.width)  # what waits is not new
        images = stage(ahead(source.pairs(), most))
        results = stage(ahead(predictor.stream(images, **asked, drawing=drawing), most))
        results = _finite(results)
        for write in writers:
            results = stage(write(results))
        bar = _bar(source, "flow", results)
        for drawn_pair in bar:
            if live:
                bar.set_postfix_str(f"{source.reader.dropped} dropped", refresh=False)
            largest, pairs = max(largest, float(drawn_pair.largest)), pairs + 1
    seconds = time.perf_counter() - started
    if drawn and max_flow is None:
        max_flow = colour_scale(largest, source.height, source.width)
    return Summary(pairs, seconds, largest, max_flow if drawn else None)


def _finite(results: Iterable[Drawn]) -> Iterator[Drawn]:
    for result in results:
        if not np.isfinite(result.largest):
            raise UserError("the network predicts values that are no numbers")
        yield result


def _bar(source: Frames, what: str, results: Iterable) -> tqdm:
    """Show progress of a sequence on a terminal."""
    return tqdm(results, what, source.count, unit="pair", disable=None if source.is_sequence else True)


def _scale_of(predictor: Predictor, source: Frames) -> float:
    """One colour scale for a sequence: the 90th percentile over its moving pairs of a pair's 99th percentile.

    All pairs are predicted at low resolution, so that no moment of motion is missed.
    """
    reduced = min(1, SCALE_SIDE / max(source.height, source.width))
    height, width = Sizing().network_size(math.ceil(source.height * reduced), math.ceil(source.width * reduced))
    frames = (cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in source.frames())
    predictor = replace(predictor, sizing=Sizing())
    factors = np.float32([source.width / width, source.height / height])
    with closing(ahead(pairwise(frames), 2 * predictor.most(height, width))) as pairs:
        stream = predictor.stream(pairs, mask=False, warped=False)
        bar = _bar(source, "first pass, for the colour scale (--max_flow does without)", stream)
        motions = [usual_motion(prediction.flow * factors) for prediction in bar]
    at_rest = colour_scale(0, source.height, source.width)
    moving = [motion for motion in motions if motion > at_rest]
    usual = np.percentile(moving, SCALE_PERCENTILE, method="higher") if moving else 0
    return colour_scale(usual, source.height, source.width)


@contextmanager
def writing(output: Output, source: Frames, rate: Fraction | None) -> Iterator[Callable[[Iterable[Drawn]], Generator]]:
    """Open an output: a function that writes results and yields them. A video appears when it is complete."""
    if output.is_video:
        size = source.height, source.width
        with VideoWriter(output.path, rate or source.rate, *size, source.pixel_aspect, output.codec) as video:
            yield partial(_write_frames, video, output.role, source.times)
    else:
        numbers = chain(source.numbers, count(len(source.numbers) + 1))
        paths = (output.path_of(number, source.is_sequence) for number in numbers)
        write = partial(_write_file, output)
        yield lambda results: in_threads(map(partial, repeat(write), paths, results), THREADS, THREADS + 1)


def _write_frames(video, role: str, times: Iterable, results: Iterable[Drawn]) -> Generator:
    """Threads convert the frames to the encoder's pixels."""
    calls = (partial(lambda result: (result, video.converted(_picture(role, result))), result) for result in results)
    with closing(in_threads(calls, THREADS, THREADS + 1)) as converted:
        for (result, frame), seconds in zip(converted, times):
            video.write(frame, seconds)
            yield result


def _write_file(output: Output, path: Path, result: Drawn) -> Drawn:
    values = getattr(result, output.role)
    if output.is_drawn:
        picture = _picture(output.role, result)
        formats.write_image(path, picture[..., :1] if output.role in GREY else picture)
    elif output.role == "flow":
        formats.write_flow(path, values)
    elif output.suffix == ".pfm":
        formats.write_float_map(path, values)
    else:
        formats.write_numpy(path, values, output.role)
    return result


def _picture(role: str, result: Drawn) -> np.ndarray:
    if role == "flow" and result.colours is not None:
        return result.colours
    values = getattr(result, role)
    return to_picture(role, values, colour_scale(float(result.largest), *values.shape[:2]))


def to_picture(role: str, values: np.ndarray, max_flow: float | None) -> np.ndarray:
    """Draw a flow (H, W, 2), mask or confidence (H, W, 1) or image (H, W, 3) as RGB uint8."""
    if role == "flow":
        return flow_to_colour(values, max_flow)
    picture = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return np.repeat(picture, 3, axis=2) if role in GREY else picture
