"""MPI Sintel (Butler et al., ECCV 2012)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from maskflownet.errors import DataError
from maskflownet.reader.dataset import FlowDataset, Pair, list_folder, list_numbers, read_split

SPLIT_FILE = Path(__file__).resolve().parent.parent / "Sintel_train_val_maskflownet.txt"
PASSES = ("clean", "final")
LINES = {"train": "1", "val": "2"}
SPLITS = ("train", "val", "all", "test")


class Sintel(FlowDataset):
    """MPI Sintel: ``{training,test}/{clean,final}/SEQ/frame_%04d.png`` and the training labels.

    Labels are ``training/flow/SEQ/frame_%04d.flo``; ``training/invalid/SEQ/frame_%04d.png`` is 255
    where they must not be used. ``training/occlusions`` is read where it exists.

    Parameters
    ----------
    root : path
        Folder with ``training`` and, for the split ``test``, ``test``.
    passes : sequence of {"clean", "final"}
        The renderings to read, one after the other.
    split : {"train", "val", "all", "test"}
        816, 225, 1041 and 552 pairs per pass. The first two follow the split file, which has a
        line per pair of the sorted training sequences; ``test`` has no labels.

    Raises
    ------
    DataError
        A folder or a file is missing, or the split file does not fit the pairs.
    """

    def __init__(self, root: str | os.PathLike, passes: Sequence[str] = PASSES, split: str = "train"):
        for name in passes:
            if name not in PASSES:
                raise DataError(f"{root}: Sintel has no pass {name!r}, only clean and final")
        if split not in SPLITS:
            raise DataError(f"{root}: Sintel has no split {split!r}, only {', '.join(SPLITS)}")
        pairs = []
        for render in passes:
            part = list(_list(os.fspath(root), render, labelled=split != "test"))
            if split in LINES:
                lines = read_split(SPLIT_FILE, len(part))
                part = [pair for pair, line in zip(part, lines) if line == LINES[split]]
            pairs += part
        super().__init__(root, pairs)


def _list(root: str, render: str, labelled: bool) -> Iterator[Pair]:
    top = os.path.join(root, "training" if labelled else "test")
    occlusions = os.path.isdir(os.path.join(top, "occlusions"))
    sequences = set(list_folder(os.path.join(top, render)))
    if labelled:
        sequences |= set(list_folder(os.path.join(top, "flow")))
    for sequence in sorted(sequences):
        frames = list_numbers(os.path.join(top, render, sequence), r"frame_(\d{4})\.png")
        numbers = {number for (number,) in frames[:-1]}
        if labelled:
            labels = list_numbers(os.path.join(top, "flow", sequence), r"frame_(\d{4})\.flo")
            numbers |= {number for (number,) in labels}
        for number in sorted(numbers):
            name = f"{sequence}/frame_{number:04d}"
            images = os.path.join(top, render, sequence)
            pair = Pair(
                f"{render}/{name}",
                os.path.join(images, f"frame_{number:04d}.png"),
                os.path.join(images, f"frame_{number + 1:04d}.png"),
            )
            if labelled:
                pair = pair._replace(
                    flow=os.path.join(top, "flow", f"{name}.flo"),
                    invalid=os.path.join(top, "invalid", f"{name}.png"),
                    occlusion=os.path.join(top, "occlusions", f"{name}.png") if occlusions else None,
                )
            yield pair
