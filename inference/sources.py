"""A user's own images: a pair, a folder of frames or a video, as a stream of pairs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.pictures import PICTURE_SUFFIXES, read_image
from maskflownet.reader.video import VideoReader

Images = "tuple[np.ndarray, np.ndarray]"


class Pair:
    """Two picture files. `count` is the number of pairs, `height` and `width` are theirs."""

    is_sequence = False
    rate = None
    count = 1

    def __init__(self, path_1, path_2):
        self.paths = [Path(path_1), Path(path_2)]
        self.images = read_image(path_1), read_image(path_2)
        self.height, self.width = self.images[0].shape[:2]
        if self.images[0].shape != self.images[1].shape:
            raise UserError(
                f"{path_1} and {path_2} differ in size: "
                f"{size_of(self.images[0])} and {size_of(self.images[1])} (height x width)"
            )

    def pairs(self) -> Iterator[Images]:
        yield self.images


class Sequence:
    """Frames of equal size; consecutive ones are the pairs. Subclasses read them."""

    is_sequence = True
    rate: Fraction | None = None
    count: int

    def frames(self) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 RGB frames from the first one, holding one at a time."""
        raise TypeError(f"{type(self).__name__} reads no frames")

    def pairs(self) -> Iterator[Images]:
        previous = None
        for frame in self.frames():
            if previous is not None:
                yield previous, frame
            previous = frame

    def sample(self, number: int) -> Iterator[Images]:
        """Yield at most `number` pairs, spread evenly from the first to the last."""
        wanted = set(np.linspace(0, self.count - 1, min(number, self.count)).astype(int).tolist())
        for i, pair in enumerate(islice(self.pairs(), max(wanted) + 1)):
            if i in wanted:
                yield pair


class Folder(Sequence):
    """The pictures of a folder in natural order: frame_2 comes before frame_10.

    All are decoded once when the folder is opened, so that a broken one is known at once.
    """

    def __init__(self, path):
        folder = Path(path)
        if not folder.is_dir():
            raise UserError(f"--folder {path} is no folder")
        self.paths = sorted(
            (p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")),
            key=_natural,
        )
        if len(self.paths) < 2:
            raise UserError(f"the folder {path} holds {len(self.paths)} pictures, two are needed")
        self.count = len(self.paths) - 1
        first = read_image(self.paths[0])
        self.height, self.width = first.shape[:2]
        for other in self.paths[1:]:
            image = read_image(other)
            if image.shape != first.shape:
                raise UserError(
                    f"{self.paths[0]} and {other} differ in size: "
                    f"{size_of(first)} and {size_of(image)} (height x width)"
                )

    def frames(self):
        return map(read_image, self.paths)


class Video(Sequence):
    """A video or GIF, decoded once when it is opened to count its frames and find damage."""

    def __init__(self, path):
        self.paths = [Path(path)]
        self.reader = VideoReader(path)
        self.height, self.width = self.reader.height, self.reader.width
        self.rate = self.reader.rate
        frames = self.reader.count()
        if frames < 2:
            raise UserError(f"{path} holds a single frame, two are needed")
        self.count = frames - 1

    def frames(self):
        return iter(self.reader)


def _natural(path: Path) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def size_of(image: np.ndarray) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"
