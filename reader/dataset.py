"""Files that say which pairs of a data set are for training and which for validation.

The base of every data set on disk: a list of files, decoded one pair at a time.

Views on data sets: joined, thinned or shortened, without touching their split.

A data set is anything with ``len``, ``dataset[i] -> Sample``, ``occlusion(i)`` and ``noc(i)``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from maskflownet.errors import DataError
from maskflownet.reader.formats import read_flow
from maskflownet.reader.pictures import read_image, read_mask
from maskflownet.reader.sample import Sample


def read_split(path: str | os.PathLike, count: int) -> list[str]:
    """Read a split file: one line per pair, 1 = training, 2 = validation.

    Parameters
    ----------
    path : path
        The file.
    count : int
        How many pairs it must describe.

    Returns
    -------
    list of str
        ``"1"`` or ``"2"`` per pair.

    Raises
    ------
    DataError
        The file is missing, holds anything else, or has another number of lines.
    """
    try:
        with open(path, encoding="ascii") as file:
            lines = file.read().split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a split file: {error}") from error
    wrong = sorted(set(lines) - {"1", "2"})
    if wrong:
        raise DataError(f"{path} holds {wrong[0]!r} where only 1 (training) and 2 are allowed")
    if len(lines) != count:
        raise DataError(f"{path} describes {len(lines)} pairs where the data set holds {count}")
    return lines


class Pair(NamedTuple):
    """The files of one image pair; ``None`` where the data set has no such file.

    Attributes
    ----------
    name : str
        Identifies the pair inside its data set.
    img1, img2 : str
        The two pictures.
    flow : str or None
        The label, in any format of ``maskflownet.reader.formats``.
    invalid : str or None
        Picture with 255 where the label must not be used.
    occlusion : str or None
        Picture with 255 where a pixel of ``img1`` is not visible in ``img2``.
    noc : str or None
        The label of the non-occluded pixels only.
    """

    name: str
    img1: str
    img2: str
    flow: str | None = None
    invalid: str | None = None
    occlusion: str | None = None
    noc: str | None = None

    def files(self) -> list[str]:
        """Return the paths of all files that the pair needs."""
        return [path for path in self[1:] if path is not None]


class MissingFiles(DataError):
    """Files that a data set needs and lacks; ``paths`` lists every one of them."""

    def __init__(self, paths: Sequence[str]):
        more = f" (and {len(paths) - 1} more files)" if len(paths) > 1 else ""
        super().__init__(f"{paths[0]} is missing although its image pair needs it{more}")
        self.paths = list(paths)


class FlowDataset:
    """Image pairs listed from a folder.

    A subclass lists its pairs and passes them on; this class checks that every file exists and
    decodes a pair when it is asked for, keeping nothing.

    Parameters
    ----------
    root : path
        The folder that the user named, for messages.
    pairs : sequence of Pair
        In their final order.

    Raises
    ------
    MissingFiles
        A file of a pair does not exist.
    DataError
        There is no pair at all.
    """

    def __init__(self, root: str | os.PathLike, pairs: Sequence[Pair]):
        self.root = os.fspath(root)
        self.pairs = list(pairs)
        if not self.pairs:
            raise DataError(f"{self.root} holds no image pair of {type(self).__name__}")
        missing = missing_files(self.pairs)
        if missing:
            raise MissingFiles(missing)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Decode one pair.

        Raises
        ------
        DataError
            A file cannot be read, or its size differs from the first picture's.
        """
        pair = self.pairs[index]
        img1 = read_image(pair.img1)  # (H, W, 3)
        img2 = _same_size(read_image(pair.img2), img1, pair.img2, pair)
        flow = mask = None
        if pair.flow is not None:
            flow, mask = read_flow(pair.flow)  # (H, W, 2) px (u, v), (H, W, 1)
            _same_size(flow, img1, pair.flow, pair)
        if mask is not None and pair.invalid is not None:
            valid = 255 - self._mask(pair, pair.invalid, img1)
            mask = np.minimum(mask, valid)
        return Sample(img1, img2, flow, mask, pair.name)

    def occlusion(self, index: int) -> np.ndarray | None:
        """Return where image 1 is not visible in image 2.

        Returns
        -------
        np.ndarray or None
            (H, W, 1) uint8, 255 = occluded; ``None`` where the data set does not say.
        """
        path = self.pairs[index].occlusion
        return None if path is None else self._mask(self.pairs[index], path)

    def noc(self, index: int) -> np.ndarray | None:
        """Return where the label is valid and the pixel is visible in both images.

        Returns
        -------
        np.ndarray or None
            (H, W, 1) uint8, 255 = valid and not occluded; ``None`` where the data set does not say.
        """
        path = self.pairs[index].noc
        return None if path is None else read_flow(path)[1]

    @staticmethod
    def _mask(pair: Pair, path: str, img1: np.ndarray | None = None) -> np.ndarray:
        """Read a picture of 0 and not 0 as (H, W, 1) uint8 of 0 and 255."""
        mask = read_mask(path)
        if img1 is not None:
            _same_size(mask, img1, path, pair)
        return np.where(mask > 0, 255, 0).astype(np.uint8)


def missing_files(pairs: Sequence[Pair]) -> list[str]:
    """Return the files of the pairs that do not exist, each folder being listed only once."""
    folders: dict[str, set[str]] = {}
    missing: dict[str, None] = {}
    for pair in pairs:
        for path in pair.files():
            folder, name = os.path.split(path)
            if folder not in folders:
                folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
            if name not in folders[folder]:
                missing[path] = None
    return list(missing)


def list_folder(folder: str) -> list[str]:
    """Return the sorted names in a folder, hidden ones left out.

    Raises
    ------
    DataError
        The folder does not exist.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder} is not a folder although the data set needs it")
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def list_numbers(folder: str, pattern: str) -> list[tuple[int, ...]]:
    """Return the numbers in the names of a folder's files, sorted.

    Parameters
    ----------
    folder : str
        The folder, which must exist.
    pattern : str
        Regular expression for the whole name; its groups are the numbers.

    Returns
    -------
    list of tuple of int
        One tuple per name that fits, without repetition.
    """
    matches = (re.fullmatch(pattern, name) for name in list_folder(folder))
    return sorted({tuple(int(group) for group in match.groups()) for match in matches if match})


def _same_size(array: np.ndarray, img1: np.ndarray, path: str, pair: Pair) -> np.ndarray:
    if array.shape[:2] != img1.shape[:2]:
        size, wanted = ("x".join(map(str, a.shape[:2])) for a in (array, img1))
        raise DataError(f"{path} is {size} (HxW) where {pair.img1} is {wanted}")
    return array


class View:
    """The samples of a data set at the given indices.

    Parameters
    ----------
    dataset : data set
        What is looked at; it stays as it is.
    indices : sequence of int
        Which samples, in which order.
    """

    def __init__(self, dataset, indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    def occlusion(self, index: int) -> np.ndarray | None:
        """Return the sample's occlusion, (H, W, 1) uint8, 255 = occluded, or ``None``."""
        return self.dataset.occlusion(self.indices[index])

    def noc(self, index: int) -> np.ndarray | None:
        """Return the sample's non-occluded label mask, (H, W, 1) uint8, or ``None``."""
        return self.dataset.noc(self.indices[index])


class Thin(View):
    """Every N-th sample of a data set, beginning with its first (``--shard``).

    Raises
    ------
    DataError
        ``every`` is below 1.
    """

    def __init__(self, dataset, every: int):
        if every < 1:
            raise DataError(f"a shard of every {every}-th sample is not possible: it starts at 1")
        super().__init__(dataset, range(0, len(dataset), every))


def first(dataset, count: int) -> View:
    """Return the first samples of a data set, all where it has fewer (``--debug``).

    Raises
    ------
    DataError
        ``count`` is below 1.
    """
    if count < 1:
        raise DataError(f"a data set cannot be shortened to {count} samples: 1 is the least")
    return View(dataset, range(min(count, len(dataset))))


class Concat:
    """Several data sets one after the other.

    Raises
    ------
    DataError
        There is no data set, or one of them is empty.
    """

    def __init__(self, datasets: Sequence):
        self.datasets = list(datasets)
        self.ends = np.cumsum([len(dataset) for dataset in self.datasets], dtype=np.int64)
        if not self.datasets or not all(len(dataset) for dataset in self.datasets):
            raise DataError("data sets can be joined only where each has at least one sample")

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Sample:
        dataset, index = self._locate(index)
        return dataset[index]

    def occlusion(self, index: int) -> np.ndarray | None:
        """Return the sample's occlusion, (H, W, 1) uint8, 255 = occluded, or ``None``."""
        dataset, index = self._locate(index)
        return dataset.occlusion(index)

    def noc(self, index: int) -> np.ndarray | None:
        """Return the sample's non-occluded label mask, (H, W, 1) uint8, or ``None``."""
        dataset, index = self._locate(index)
        return dataset.noc(index)

    def _locate(self, index: int):
        index = range(len(self))[index]
        which = int(np.searchsorted(self.ends, index, side="right"))
        return self.datasets[which], index - (int(self.ends[which - 1]) if which else 0)
