"""FlyingThings3D (Mayer et al., CVPR 2016): the full set and the subset of DispNet/FlowNet2."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from maskflownet.errors import DataError
from maskflownet.reader.dataset import FlowDataset, Pair, list_folder, list_numbers

PASSES = ("clean", "final")
VIEWS = ("left", "right")
STEPS = {"into_future": 1, "into_past": -1}


class Things3D(FlowDataset):
    """FlyingThings3D, all of it training data, both views and both directions.

    Subset: ``train/image_PASS/VIEW/%07d.png`` and ``train/flow/VIEW/DIRECTION/%07d.flo``. Full:
    ``frames_PASSpass/TRAIN/{A,B,C}/%04d/VIEW/%04d.png`` and
    ``optical_flow/TRAIN/{A,B,C}/%04d/DIRECTION/VIEW/OpticalFlowInto{Future,Past}_%04d_{L,R}.pfm``.
    The partner of frame n is n + 1 into the future and n - 1 into the past. A label at the end of
    a sequence, beyond which there is no frame, has no partner and is left out.

    Parameters
    ----------
    root : path
        Folder that holds ``train`` (subset) or ``optical_flow`` (full).
    passes : sequence of {"clean", "final"}
        The renderings to read, one after the other.
    layout : {"subset", "full"}, optional
        By default whichever the root holds.

    Attributes
    ----------
    layout : str
        The layout that was read.
    left_out : int
        Labels without partner.

    Raises
    ------
    DataError
        The root holds neither layout or both, or a folder or a file is missing.
    """

    def __init__(self, root: str | os.PathLike, passes: Sequence[str] = ("clean",), layout: str | None = None):
        for name in passes:
            if name not in PASSES:
                raise DataError(f"{root}: FlyingThings3D has no pass {name!r}, only clean, final")
        self.layout = layout or _find_layout(root)
        self.left_out = 0
        listings = {"subset": self._list_subset, "full": self._list_full}
        if self.layout not in listings:
            raise DataError(f"{root}: FlyingThings3D has no layout {layout!r}, only subset, full")
        listing = listings[self.layout]
        super().__init__(root, [pair for name in passes for pair in listing(os.fspath(root), name)])

    def _list_subset(self, root: str, render: str) -> Iterator[Pair]:
        for view in VIEWS:
            images = os.path.join(root, "train", f"image_{render}", view, "{:07d}.png")
            for direction in STEPS:
                labels = os.path.join(root, "train", "flow", view, direction, "{:07d}.flo")
                yield from self._list(f"{render}/{view}", direction, images, labels)

    def _list_full(self, root: str, render: str) -> Iterator[Pair]:
        for sequence in _sequences(root, render):
            for view in VIEWS:
                images = os.path.join(root, f"frames_{render}pass", "TRAIN", sequence, view, "{:04d}.png")
                for direction in STEPS:
                    title = "OpticalFlowInto" + direction[len("into_") :].capitalize()
                    label = f"{title}_{{:04d}}_{view[0].upper()}.pfm"
                    labels = os.path.join(root, "optical_flow", "TRAIN", sequence, direction, view, label)
                    yield from self._list(f"{render}/{sequence}/{view}", direction, images, labels)

    def _list(self, name: str, direction: str, images: str, labels: str) -> Iterator[Pair]:
        """List one folder of labels; the paths have ``{:0Nd}`` in place of the frame's number."""
        step = STEPS[direction]
        frames = _numbers(images)
        # Only the outermost frame ends the sequence: a partner missing elsewhere is a missing file.
        end = (max if step > 0 else min)(frames, default=None)
        for number in _numbers(labels):
            if number == end:
                self.left_out += 1
            else:
                img1, img2 = _path(images, number), _path(images, number + step)
                yield Pair(f"{name}/{direction}/{number:04d}", img1, img2, _path(labels, number))


def _numbers(template: str) -> list[int]:
    """Return the sorted frame numbers of the files that fit ``FOLDER/...{:0Nd}...``."""
    folder, name = os.path.split(template)
    before, after = re.split(r"\{:0\dd\}", name)
    return [n for (n,) in list_numbers(folder, rf"{re.escape(before)}(\d+){re.escape(after)}")]


def _path(template: str, number: int) -> str:
    folder, name = os.path.split(template)
    return os.path.join(folder, name.format(number))


def _find_layout(root: str | os.PathLike) -> str:
    marks = {"subset": "train", "full": "optical_flow"}
    found = [name for name, mark in marks.items() if os.path.isdir(os.path.join(root, mark))]
    if len(found) != 1:
        what = "both layouts" if found else "neither layout"
        raise DataError(f"{root} holds {what} of FlyingThings3D: train/ (subset), optical_flow/ (full)")
    return found[0]


def _sequences(root: str, render: str) -> list[str]:
    """Return the sorted ``A/0000`` of pictures and labels together."""
    names = set()
    for top in (f"frames_{render}pass", "optical_flow"):
        train = os.path.join(root, top, "TRAIN")
        for letter in list_folder(train):
            for sequence in list_folder(os.path.join(train, letter)):
                names.add(f"{letter}/{sequence}")
    return sorted(names)
