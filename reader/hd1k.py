"""HD1K (Kondermann et al., CVPR Workshops 2016)."""

from __future__ import annotations

import os

from maskflownet.errors import DataError
from maskflownet.reader.dataset import FlowDataset, Pair, list_numbers

VAL_SEQUENCE = 5
SPLITS = ("train", "val", "all")


class HD1K(FlowDataset):
    """HD1K: ``hd1k_input/image_2/%06d_%04d.png``, ``hd1k_flow_gt/flow_occ/%06d_%04d.png``.

    The numbers are sequence and frame. A pair is a frame and the next one of the same sequence; the
    label of a sequence's last frame has no partner and is left out.

    Parameters
    ----------
    root : path
        Folder with ``hd1k_input`` and ``hd1k_flow_gt``.
    split : {"train", "val", "all"}
        Sequence 5 is the validation part.

    Attributes
    ----------
    left_out : int
        Labels without partner, over all sequences of the split.

    Raises
    ------
    DataError
        A folder or a file is missing.
    """

    def __init__(self, root: str | os.PathLike, split: str = "train"):
        if split not in SPLITS:
            raise DataError(f"{root}: HD1K has no split {split!r}, only {', '.join(SPLITS)}")
        images = os.path.join(root, "hd1k_input", "image_2")
        labels = os.path.join(root, "hd1k_flow_gt", "flow_occ")
        frames = list_numbers(images, r"(\d{6})_(\d{4})\.png")
        last = dict(frames)  # sequence -> its last frame, as the list is sorted
        labelled = set(list_numbers(labels, r"(\d{6})_(\d{4})\.png"))
        self.left_out = 0
        pairs = []
        for sequence, frame in sorted(labelled | set(frames)):
            if split != "all" and (sequence == VAL_SEQUENCE) != (split == "val"):
                continue
            if last.get(sequence) == frame:
                self.left_out += (sequence, frame) in labelled
                continue
            name, partner = (f"{sequence:06d}_{number:04d}" for number in (frame, frame + 1))
            paths = (os.path.join(images, f"{name}.png"), os.path.join(images, f"{partner}.png"))
            pairs.append(Pair(name, *paths, os.path.join(labels, f"{name}.png")))
        super().__init__(root, pairs)
