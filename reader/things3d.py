"""FlyingThings3D (Mayer et al., CVPR 2016): the full set and the subset of DispNet/FlowNet2."""

import os
import re
from collections.abc import Iterator

from maskflownet.errors import UserError
from maskflownet.reader.dataset import FlowDataset, Pair, list_folder, list_numbers

VIEWS = ("left", "right")
STEPS = {"into_future": 1, "into_past": -1}


class Things3D(FlowDataset):
    """All of it training data, both views and both directions, in whichever layout the root holds.

    Subset: ``train/image_PASS/VIEW/%07d.png`` and ``train/flow/VIEW/DIRECTION/%07d.flo``. Full:
    ``frames_PASSpass/TRAIN/{A,B,C}/%04d/VIEW/%04d.png`` and
    ``optical_flow/TRAIN/{A,B,C}/%04d/DIRECTION/VIEW/OpticalFlowInto{Future,Past}_%04d_{L,R}.pfm``.
    The partner of frame n is n + 1 into the future and n - 1 into the past. A label at the end of
    a sequence, beyond which there is no frame, has no partner and is left out.
    """

    name = "things3d"
    splits = ("all",)
    versions = ("clean", "final")
    default_versions = ("clean",)
    validation = None
    counts = {("all", "clean"): (76000, 80000), ("all", "final"): (76000, 80000)}

    @classmethod
    def lacks(cls, root, split, version):
        folders = [os.path.join(root, name) for name in (f"train/image_{version}", f"frames_{version}pass")]
        return (
            f"{root} holds no pass {version}" if version == "final" and not any(map(os.path.isdir, folders)) else None
        )

    @classmethod
    def expected(cls, root):
        subset = os.path.isdir(os.path.join(root, "train"))
        return {part: count if subset else None for part, count in super().expected(root).items()}

    def list_pairs(self, root, split, version):
        return {"train": self._list_subset, "optical_flow": self._list_full}[_folder_of_layout(root)](root, version)

    def _list_subset(self, root: str, version: str) -> Iterator[Pair]:
        for view in VIEWS:
            images = os.path.join(root, "train", f"image_{version}", view, "{:07d}.png")
            for direction in STEPS:
                labels = os.path.join(root, "train", "flow", view, direction, "{:07d}.flo")
                yield from self._list(f"{version}/{view}", direction, images, labels)

    def _list_full(self, root: str, version: str) -> Iterator[Pair]:
        for sequence in _sequences(root, version):
            for view in VIEWS:
                images = os.path.join(root, f"frames_{version}pass", "TRAIN", sequence, view, "{:04d}.png")
                for direction in STEPS:
                    title = "OpticalFlowInto" + direction[len("into_") :].capitalize()
                    label = f"{title}_{{:04d}}_{view[0].upper()}.pfm"
                    labels = os.path.join(root, "optical_flow", "TRAIN", sequence, direction, view, label)
                    yield from self._list(f"{version}/{sequence}/{view}", direction, images, labels)

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


def _folder_of_layout(root: str) -> str:
    found = [name for name in ("train", "optical_flow") if os.path.isdir(os.path.join(root, name))]
    if len(found) != 1:
        what = "both layouts" if found else "neither layout"
        raise UserError(f"{root} holds {what} of FlyingThings3D: train/ (subset), optical_flow/ (full)")
    return found[0]


def _sequences(root: str, version: str) -> list[str]:
    """Return the sorted ``A/0000`` of pictures and labels together."""
    names = set()
    for top in (f"frames_{version}pass", "optical_flow"):
        train = os.path.join(root, top, "TRAIN")
        for letter in list_folder(train):
            for sequence in list_folder(os.path.join(train, letter)):
                names.add(f"{letter}/{sequence}")
    return sorted(names)
