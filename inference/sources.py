"""A user's own images: a pair, a folder of frames or a video, as a stream of pairs."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.files import natural
from maskflownet.reader.formats import PICTURE_SUFFIXES, read_images, read_samples, sample_range, to_8bit
from maskflownet.reader.video import VideoReader

Images = tuple[np.ndarray, np.ndarray]  # (H, W, 3) uint8 RGB each


class Pair:
    """Two picture files. `count` is the number of pairs, `height` and `width` are theirs."""

    is_sequence = False
    rate = None
    count = 1

    def __init__(self, path_1, path_2):
        self.paths = [Path(path_1), Path(path_2)]
        self.images = tuple(read_images(self.paths))
        self.height, self.width = self.images[0].shape[:2]
        _check_same_size(self.paths, self.images)

    def pairs(self) -> Iterator[Images]:
        yield self.images


class Sequence:
    """Frames of equal size; consecutive ones are the pairs. Subclasses read them."""

    is_sequence = True
    rate: Fraction | None = None
    pixel_aspect = Fraction(1)  # width over height
    count: int

    def frames(self) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 RGB frames from the first one, holding one at a time."""
        raise NotImplementedError

    def pairs(self) -> Iterator[Images]:
        return pairwise(self.frames())

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
        pictures = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
        self.paths = sorted(pictures, key=lambda p: natural(p.name))
        if len(self.paths) < 2:
            raise UserError(f"the folder {path} holds {len(self.paths)} pictures, two are needed")
        self.count = len(self.paths) - 1
        self._range = sample_range(self._samples())

    def _samples(self):
        first = None
        for path in self.paths:
            samples = read_samples(path)
            first = samples if first is None else first
            _check_same_size((self.paths[0], path), (first, samples))
            yield samples
        self.height, self.width = first.shape[:2]

    def frames(self):
        return (to_8bit(samples, self._range) for samples in self._samples())


class Video(Sequence):
    """A video or GIF, decoded once when it is opened to count its frames and find damage."""

    def __init__(self, path):
        self.paths = [Path(path)]
        self.reader = VideoReader(path)
        self.height, self.width = self.reader.height, self.reader.width
        self.rate = self.reader.rate
        self.pixel_aspect = self.reader.pixel_aspect
        if self.reader.count < 2:
            raise UserError(f"{path} holds a single frame, two are needed")
        self.count = self.reader.count - 1

    def frames(self):
        return iter(self.reader)


def _check_same_size(paths, images) -> None:
    first, second = (f"{image.shape[0]}x{image.shape[1]}" for image in images)
    if first != second:
        raise UserError(f"{paths[0]} and {paths[1]} differ in size: {first} and {second} (height x width)")
