"""FlyingChairs (Dosovitskiy et al., FlowNet, ICCV 2015) and whatever is stored in its layout."""

from __future__ import annotations

import os

from maskflownet.errors import DataError
from maskflownet.reader.dataset import FlowDataset, Pair, list_numbers, read_split

SPLIT_FILE = "FlyingChairs_train_val.txt"
LINES = {"train": ("1",), "val": ("2",), "all": ("1", "2")}


class Chairs(FlowDataset):
    """FlyingChairs: ``data/%05d_img1.ppm``, ``_img2.ppm`` and ``_flow.flo``.

    A synthetic set in this layout may have ``_occ.png`` besides, 255 = occluded.

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
        occlusions = set(list_numbers(data, r"(\d{5,})_occ\.png"))
        pairs = []
        for (number,), line in zip(numbers, lines):
            stem = os.path.join(data, f"{number:05d}")
            pair = Pair(f"{number:05d}", f"{stem}_img1.ppm", f"{stem}_img2.ppm", f"{stem}_flow.flo")
            if (number,) in occlusions:
                pair = pair._replace(occlusion=f"{stem}_occ.png")
            if line in LINES[split]:
                pairs.append(pair)
        super().__init__(root, pairs)
