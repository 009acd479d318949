"""Where predictions go: one file, numbered files or a video, by the suffix of the output's name.

Flow for a user's own images and videos, from files to files.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.engine.contract import ConfidentPrediction, Prediction
from maskflownet.errors import UserError
from maskflownet.inference.predictor import Predictor
from maskflownet.reader.colour import flow_to_colour
from maskflownet.reader.files import atomic_path
from maskflownet.reader.formats import write_float_map, write_flow
from maskflownet.reader.pictures import WRITABLE_SUFFIXES, write_image
from maskflownet.reader.video import VIDEO_SUFFIXES, VideoWriter
from tqdm import tqdm

ARRAYS = (".npy", ".npz")
GREY = ("mask", "confidence")  # roles of one channel
RAW = {"flow": (".flo", ".pfm", *ARRAYS), "mask": (".pfm", *ARRAYS), "warped": ARRAYS, "confidence": (".pfm", *ARRAYS)}
NUMBERED = re.compile(r"%0?\d*d")
FIRST_NUMBER = 1


class Output(NamedTuple):
    """A checked output: `role` is the field of the prediction that is written."""

    path: Path
    role: str  # "flow", "mask", "warped" or "confidence"
    suffix: str
    kitti: bool = False

    def path_of(self, number: int, is_sequence: bool) -> Path:
        """The file of one prediction, counted from `FIRST_NUMBER`."""
        if not is_sequence or self.suffix in VIDEO_SUFFIXES:
            return self.path
        return self.path.with_name(NUMBERED.sub(lambda m: m.group() % number, self.path.name))

    @property
    def needs_scale(self) -> bool:
        """Whether a flow is drawn in colour, so that its colours need a scale."""
        return self.role == "flow" and not self.kitti and self.suffix in _drawn()


def _drawn() -> tuple:
    return WRITABLE_SUFFIXES + VIDEO_SUFFIXES


def check_output(path, role: str, is_sequence: bool, kitti: bool = False) -> Output:
    """Check the name of an output before anything is computed.

    Parameters
    ----------
    path : str or Path
        The suffix chooses what is written: a picture (.png, .jpg, ...), raw values (.flo and .pfm
        for flow, .pfm for mask and confidence, .npy, .npz) or a video (.mp4, .avi, .gif). For a
        sequence it is a video or holds a number, as `flow_%04d.png` does.
    role : {"flow", "mask", "warped", "confidence"}
    is_sequence : bool
        Whether several predictions will be written.
    kitti : bool
        Write a .png in KITTI's 16-bit format instead of colours.

    Raises
    ------
    UserError
        The suffix is unknown or does not fit, or the folder cannot be written to.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    known = (*WRITABLE_SUFFIXES, *RAW[role], *VIDEO_SUFFIXES)
    if suffix not in known:
        raise UserError(f"cannot write {path}: the suffix of the {role} is one of {', '.join(known)}")
    if kitti and suffix != ".png":
        raise UserError(f"cannot write {path}: --kitti writes a .png")
    if suffix in VIDEO_SUFFIXES and not is_sequence:
        raise UserError(f"cannot write {path}: a pair gives one picture, not a video")
    numbers = NUMBERED.findall(path.name)
    if is_sequence and suffix not in VIDEO_SUFFIXES and len(numbers) != 1:
        raise UserError(
            f"cannot write {path}: a sequence needs a video ({', '.join(VIDEO_SUFFIXES)}) or a "
            f"numbered name such as {path.stem}_%04d{path.suffix}"
        )
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: its folder {path.parent} does not exist")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: its folder {path.parent} may not be written to")
    return Output(path, role, suffix, kitti)


def to_picture(role: str, values: np.ndarray, max_flow: float | None) -> np.ndarray:
    """Draw a flow (H, W, 2), mask or confidence (H, W, 1) or image (H, W, 3) as RGB uint8."""
    if role == "flow":
        return flow_to_colour(values, max_flow)
    picture = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return np.repeat(picture, 3, axis=2) if role in GREY else picture


@contextmanager
def writing(
    output: Output, is_sequence: bool, rate: Fraction | None, size: tuple[int, int], max_flow: float | None
) -> Iterator[Callable[[Prediction | ConfidentPrediction], None]]:
    """Open an output; the result writes one prediction per call. A video appears when complete."""
    if output.suffix in VIDEO_SUFFIXES:
        with VideoWriter(output.path, rate, *size) as video:
            yield lambda prediction: video.write(to_picture(output.role, getattr(prediction, output.role), max_flow))
        return
    number = FIRST_NUMBER

    def write(prediction: Prediction) -> None:
        nonlocal number
        path = output.path_of(number, is_sequence)
        number += 1
        _write_file(output, path, getattr(prediction, output.role), max_flow)

    yield write


def _write_file(output: Output, path: Path, values: np.ndarray, max_flow) -> None:
    if output.suffix in WRITABLE_SUFFIXES and not output.kitti:
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


SCALE_PAIRS = 5  # of a sequence, looked at before it to choose one colour scale for all its frames
SCALE_PERCENTILE = 99  # of their motions: a few wild pixels shall not make the whole video pale


class Summary(NamedTuple):
    """What a call of `predict_files` did."""

    pairs: int
    height: int
    width: int
    seconds: float
    largest: float  # px, the largest motion predicted
    max_flow: float | None  # px, the scale of the colours


def check_outputs(source, flow, mask=None, warped=None, also=None, kitti=False, confidence=None) -> list[Output]:
    """Check all names at once; `also` is a second name for the flow."""
    wanted = [(flow, "flow", kitti), (also, "flow", False)]
    wanted += [(mask, "mask", False), (warped, "warped", False), (confidence, "confidence", False)]
    outputs = [
        check_output(path, role, source.is_sequence, in_kitti) for path, role, in_kitti in wanted if path is not None
    ]
    taken = {path.resolve() for path in source.paths}
    for output in outputs:
        numbers = range(FIRST_NUMBER, FIRST_NUMBER + source.count)
        paths = {output.path_of(number, source.is_sequence).resolve() for number in numbers}
        if paths & taken:
            raise UserError(f"{output.path} is named twice, or is one of the inputs")
        taken |= paths
    return outputs


def predict_files(
    predictor: Predictor, source, outputs: list[Output], max_flow: float | None = None, rate: Fraction | None = None
) -> Summary:
    """Predict every pair of a source and write the outputs as a stream.

    Parameters
    ----------
    predictor : Predictor
    source : Pair, Folder or Video
    outputs : list of Output
    max_flow : float, optional
        Motion in px that is drawn with full colour. Without it the largest motion of the pair; of
        a sequence the 99th percentile in that of five pairs spread over it which moves most.
    rate : Fraction, optional
        Frames per second of written videos; those of the source without it.
    """
    started = time.perf_counter()
    roles = {output.role for output in outputs}
    if max_flow is None and source.is_sequence and any(o.needs_scale for o in outputs):
        max_flow = _usual_motion(predictor, source.sample(SCALE_PAIRS))
    stream = predictor.stream(source.pairs(), **{role: role in roles for role in ("mask", "warped", "confidence")})
    largest = 0.0
    with ExitStack() as stack:
        size = (source.height, source.width)
        writers = [
            stack.enter_context(writing(output, source.is_sequence, rate or source.rate, size, max_flow))
            for output in outputs
        ]
        bar = stack.enter_context(tqdm(total=source.count, unit="pair", disable=None if source.is_sequence else True))
        for prediction in stream:
            if not np.isfinite(prediction.flow).all():
                raise UserError("the network predicts values that are no numbers")
            largest = max(largest, float(_lengths(prediction.flow).max()))
            for write in writers:
                write(prediction)
            bar.update()
    seconds = time.perf_counter() - started
    return Summary(source.count, *size, seconds, largest, max_flow or largest)


def _lengths(flow: np.ndarray) -> np.ndarray:
    """Motion of each pixel of a flow (H, W, 2): (H, W), px."""
    return np.hypot(flow[..., 0], flow[..., 1])


def _usual_motion(predictor: Predictor, pairs) -> float:
    stream = predictor.stream(pairs, mask=False, warped=False)
    return max(float(np.percentile(_lengths(p.flow), SCALE_PERCENTILE)) for p in stream)
