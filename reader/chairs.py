"""FlyingChairs (Dosovitskiy et al., FlowNet, ICCV 2015) and whatever is stored in its layout."""

from __future__ import annotations

import os

from reader.dataset import FlowDataset, Pair, list_numbers
from reader.errors import DataError

SPLIT_FILE = "FlyingChairs_train_val.txt"
LINES = {"train": ("1",), "val": ("2",), "all": ("1", "2")}


class Chairs(FlowDataset):
    """FlyingChairs: ``data/%05d_img1.ppm``, ``_img2.ppm`` and ``_flow.flo``.

    Parameters
    ----------
    root : path
        Folder with ``data`` and ``FlyingChairs_train_val.txt``, which has a line per pair:
        1 = training, 2 = validation.
    split : {"train", "val", "all"}
        22,232, 640 or 22,872 pairs of the published set.

    Raises
    ------
    DataError
        The folder, a file or the split is missing, or the split file does not fit the pairs.
    """

    def __init__(self, root: str | os.PathLike, split: str = "train"):
        if split not in LINES:
            raise DataError(f"{root}: FlyingChairs has no split {split!r}, only {', '.join(LINES)}")
        data = os.path.join(root, "data")
        numbers = list_numbers(data, r"(\d{5,})_(?:img1\.ppm|img2\.ppm|flow\.flo)")
        lines = read_split(os.path.join(root, SPLIT_FILE), len(numbers))
        pairs = []
        for (number,), line in zip(numbers, lines):
            stem = os.path.join(data, f"{number:05d}")
            pair = Pair(f"{number:05d}", f"{stem}_img1.ppm", f"{stem}_img2.ppm", f"{stem}_flow.flo")
            if line in LINES[split]:
                pairs.append(pair)
        super().__init__(root, pairs)


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
