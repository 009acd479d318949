"""Where predictions go: one file, numbered files or a video, by the suffix of the output's name."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

import numpy as np

from engine.errors import UserError
from engine.predictions import ConfidentPrediction, Prediction
from reader.colour import flow_to_colour
from reader.files import atomic_path
from reader.formats import write_float_map, write_flow
from reader.pictures import WRITABLE_SUFFIXES, write_image
from reader.video_writer import VIDEO_SUFFIXES, VideoWriter

ARRAYS = (".npy", ".npz")
GREY = ("mask", "confidence")  # roles of one channel
RAW = {
    "flow": (".flo", ".pfm", *ARRAYS),
    "mask": (".pfm", *ARRAYS),
    "warped": ARRAYS,
    "confidence": (".pfm", *ARRAYS),
}
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
        raise UserError(
            f"cannot write {path}: the suffix of the {role} is one of {', '.join(known)}"
        )
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
    output: Output,
    is_sequence: bool,
    rate: Fraction | None,
    size: tuple[int, int],
    max_flow: float | None,
) -> Iterator[Callable[[Prediction | ConfidentPrediction], None]]:
    """Open an output; the result writes one prediction per call. A video appears when complete."""
    if output.suffix in VIDEO_SUFFIXES:
        with VideoWriter(output.path, rate, *size) as video:
            yield lambda prediction: video.write(
                to_picture(output.role, getattr(prediction, output.role), max_flow)
            )
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
