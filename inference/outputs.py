"""From a user's pictures to files: where predictions go, and the stream that writes them."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.engine.contract import ConfidentPrediction, Prediction
from maskflownet.errors import UserError
from maskflownet.inference.predictor import Predictor
from maskflownet.reader.colour import flow_to_colour
from maskflownet.reader.files import atomic_path
from maskflownet.reader.formats import WRITABLE_SUFFIXES, write_float_map, write_flow, write_image
from maskflownet.reader.video import VIDEO_SUFFIXES, VideoWriter
from tqdm import tqdm

ARRAYS = (".npy", ".npz")
RAW = {"flow": (".flo", ".pfm", *ARRAYS), "mask": (".pfm", *ARRAYS), "warped": ARRAYS, "confidence": (".pfm", *ARRAYS)}
GREY = ("mask", "confidence")  # roles of one channel
NUMBERED = re.compile(r"%0?\d*d")
FIRST_NUMBER = 1
SCALE_PAIRS = 5  # of a sequence, looked at before it to choose one colour scale for all its frames
SCALE_PERCENTILE = 99  # of their motions: a few wild pixels shall not make the whole video pale


@dataclass(frozen=True)
class Output:
    """Where one field of the predictions is written: its name's suffix chooses how.

    A picture (.png, .jpg, ...), raw values (.flo and .pfm for flow, .pfm for mask and confidence, .npy, .npz) or a
    video (.mp4, .avi, .gif). For a sequence it is a video or holds a number, as `flow_%04d.png` does.
    """

    path: Path
    role: str  # the field: "flow", "mask", "warped" or "confidence"
    kitti: bool = False  # a .png in KITTI's 16-bit format instead of colours

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    @property
    def is_video(self) -> bool:
        return self.suffix in VIDEO_SUFFIXES

    @property
    def is_drawn(self) -> bool:
        return not self.kitti and self.suffix in WRITABLE_SUFFIXES + VIDEO_SUFFIXES

    def path_of(self, number: int, is_sequence: bool) -> Path:
        """The file of one prediction, counted from `FIRST_NUMBER`."""
        if not is_sequence or self.is_video:
            return self.path
        return self.path.with_name(NUMBERED.sub(lambda m: m.group() % number, self.path.name))

    def check(self, is_sequence: bool) -> None:
        """Raise a UserError if the suffix is unknown or does not fit, or the folder cannot be written to."""
        path, known = self.path, (*WRITABLE_SUFFIXES, *RAW[self.role], *VIDEO_SUFFIXES)
        complaint = None
        if self.suffix not in known:
            complaint = f"the suffix of the {self.role} is one of {', '.join(known)}"
        elif self.kitti and self.suffix != ".png":
            complaint = "--kitti writes a .png"
        elif self.is_video and not is_sequence:
            complaint = "a pair gives one picture, not a video"
        elif is_sequence and not self.is_video and len(NUMBERED.findall(path.name)) != 1:
            complaint = (
                f"a sequence needs a video ({', '.join(VIDEO_SUFFIXES)}) or a numbered name such as "
                f"{path.stem}_%04d{path.suffix}"
            )
        elif not path.parent.is_dir():
            complaint = f"its folder {path.parent} does not exist"
        elif path.is_dir():
            complaint = "it is a folder"
        elif not os.access(path.parent, os.W_OK):
            complaint = f"its folder {path.parent} may not be written to"
        if complaint:
            raise UserError(f"cannot write {path}: {complaint}")


def check_outputs(source, outputs: list[Output]) -> None:
    """Check all names before anything is computed; a file may neither be written twice nor be an input."""
    taken = {path.resolve() for path in source.paths}
    for output in outputs:
        output.check(source.is_sequence)
        numbers = range(FIRST_NUMBER, FIRST_NUMBER + source.count)
        paths = {output.path_of(number, source.is_sequence).resolve() for number in numbers}
        if paths & taken:
            raise UserError(f"{output.path} is named twice, or is one of the inputs")
        taken |= paths


class Summary(NamedTuple):
    """What a call of `predict_files` did."""

    pairs: int
    height: int
    width: int
    seconds: float
    largest: float  # px, the largest motion predicted
    max_flow: float | None  # px, the scale of the colours


def predict_files(
    predictor: Predictor, source, outputs: list[Output], max_flow: float | None = None, rate: Fraction | None = None
) -> Summary:
    """Predict every pair of a source and write the outputs as a stream.

    Parameters
    ----------
    predictor : Predictor
    source : Pair, Folder or Video of `inference.sources`
    outputs : list of Output
    max_flow : float, optional
        Motion in px that is drawn with full colour. Without it the largest motion of the pair; of
        a sequence the 99th percentile in that of five pairs spread over it which moves most.
    rate : Fraction, optional
        Frames per second of written videos; those of the source without it.
    """
    started = time.perf_counter()
    roles = {output.role for output in outputs}
    if max_flow is None and source.is_sequence and any(o.role == "flow" and o.is_drawn for o in outputs):
        max_flow = _usual_motion(predictor, source.sample(SCALE_PAIRS))
    stream = predictor.stream(source.pairs(), **{role: role in roles for role in ("mask", "warped", "confidence")})
    largest = 0.0
    with ExitStack() as stack:
        writers = [stack.enter_context(_writing(output, source, rate, max_flow)) for output in outputs]
        bar = stack.enter_context(tqdm(total=source.count, unit="pair", disable=None if source.is_sequence else True))
        for prediction in stream:
            if not np.isfinite(prediction.flow).all():
                raise UserError("the network predicts values that are no numbers")
            largest = max(largest, float(_lengths(prediction.flow).max()))
            for write in writers:
                write(prediction)
            bar.update()
    seconds = time.perf_counter() - started
    return Summary(source.count, source.height, source.width, seconds, largest, max_flow or largest)


def _lengths(flow: np.ndarray) -> np.ndarray:
    """Motion of each pixel of a flow (H, W, 2): (H, W), px."""
    return np.hypot(flow[..., 0], flow[..., 1])


def _usual_motion(predictor: Predictor, pairs) -> float:
    stream = predictor.stream(pairs, mask=False, warped=False)
    return max(float(np.percentile(_lengths(p.flow), SCALE_PERCENTILE)) for p in stream)


@contextmanager
def _writing(
    output: Output, source, rate: Fraction | None, max_flow: float | None
) -> Iterator[Callable[[Prediction | ConfidentPrediction], None]]:
    """Open an output; the result writes one prediction per call. A video appears when complete."""
    if output.is_video:
        with VideoWriter(output.path, rate or source.rate, source.height, source.width, source.pixel_aspect) as video:
            yield lambda prediction: video.write(to_picture(output.role, getattr(prediction, output.role), max_flow))
        return
    paths = (output.path_of(FIRST_NUMBER + i, source.is_sequence) for i in range(source.count))
    yield lambda prediction: _write_file(output, next(paths), getattr(prediction, output.role), max_flow)


def _write_file(output: Output, path: Path, values: np.ndarray, max_flow: float | None) -> None:
    if output.is_drawn:
        picture = to_picture(output.role, values, max_flow)
        write_image(path, picture[..., :1] if output.role in GREY else picture)
    elif output.role == "flow":
        write_flow(path, values)
    elif output.suffix == ".pfm":
        write_float_map(path, values)
    else:
        with atomic_path(path) as temporary:
            if output.suffix == ".npz":
                np.savez_compressed(temporary, **{output.role: values})
            else:
                np.save(temporary, values)


def to_picture(role: str, values: np.ndarray, max_flow: float | None) -> np.ndarray:
    """Draw a flow (H, W, 2), mask or confidence (H, W, 1) or image (H, W, 3) as RGB uint8."""
    if role == "flow":
        return flow_to_colour(values, max_flow)
    picture = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return np.repeat(picture, 3, axis=2) if role in GREY else picture
