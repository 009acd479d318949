"""Freiburg's rendered sets for training: FlyingChairs and FlyingThings3D.

Chairs: Dosovitskiy et al., FlowNet, ICCV 2015, and whatever is stored in its layout. Things: Mayer et al., CVPR 2016,
the full set and the subset of DispNet/FlowNet2.
"""

import os
import re
from itertools import product

from maskflownet.errors import UserError
from maskflownet.reader.dataset import FlowDataset, Pair, list_folder, list_numbers, read_split

SPLIT_FILE = "FlyingChairs_train_val.txt"
LINES = {"train": ("1",), "val": ("2",), "all": ("1", "2")}
RECORD_FILE = "synthetic.json"  # beside the split file of a set that tools.synthetic wrote
VIEWS = ("left", "right")
STEPS = {"into_future": 1, "into_past": -1}


class Chairs(FlowDataset):
    """``data/%05d_img1.ppm``, ``_img2.ppm``, ``_flow.flo``, and the split file with a line per pair.

    A synthetic set in this layout has ``_occ.png`` besides, 255 = occluded.
    """

    name = "chairs"
    measured = ("val",)
    counts = {("train", None): 22232, ("val", None): 640}

    @classmethod
    def expected(cls, root):
        # What maskflownet.tools.synthetic has written has any length.
        synthetic = os.path.isfile(os.path.join(root, RECORD_FILE))
        return {("all", None): None} if synthetic else cls.counts

    def list_pairs(self, root, split, version):
        data = os.path.join(root, "data")
        numbers = list_numbers(data, r"(\d{5,})_(?:img1\.ppm|img2\.ppm|flow\.flo)")
        lines = read_split(os.path.join(root, SPLIT_FILE), len(numbers))
        occlusions = set(list_numbers(data, r"(\d{5,})_occ\.png"))
        for (number,), line in zip(numbers, lines):
            if line in LINES[split]:
                stem = os.path.join(data, f"{number:05d}")
                occlusion = f"{stem}_occ.png" if (number,) in occlusions else None
                files = (f"{stem}_img1.ppm", f"{stem}_img2.ppm", f"{stem}_flow.flo")
                yield Pair(f"{number:05d}", *files, occlusion=occlusion)


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
        found = [name for name in ("train", "optical_flow") if os.path.isdir(os.path.join(root, name))]
        if len(found) != 1:
            what = "both layouts" if found else "neither layout"
            raise UserError(f"{root} holds {what} of FlyingThings3D: train/ (subset), optical_flow/ (full)")
        for name, direction, images, labels in (_subset if found == ["train"] else _full)(root, version):
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


# Each yields the folders of labels: (name, direction, path of pictures, path of labels), the paths
# as (folder, file name with "{:0Nd}" in place of the frame's number).


def _subset(root: str, version: str):
    for view, direction in product(VIEWS, STEPS):
        images = os.path.join(root, "train", f"image_{version}", view)
        labels = os.path.join(root, "train", "flow", view, direction)
        yield f"{version}/{view}", direction, (images, "{:07d}.png"), (labels, "{:07d}.flo")


def _full(root: str, version: str):
    tops = [os.path.join(root, name, "TRAIN") for name in (f"frames_{version}pass", "optical_flow")]
    sequences = {
        os.path.join(letter, sequence)
        for top in tops
        for letter in list_folder(top)
        for sequence in list_folder(os.path.join(top, letter))
    }
    for sequence, view, direction in product(sorted(sequences), VIEWS, STEPS):
        images = os.path.join(tops[0], sequence, view)
        labels = os.path.join(tops[1], sequence, direction, view)
        label = f"OpticalFlowInto{direction[len('into_') :].capitalize()}_{{:04d}}_{view[0].upper()}.pfm"
        yield f"{version}/{sequence}/{view}", direction, (images, "{:04d}.png"), (labels, label)


def _numbers(path: tuple[str, str]) -> list[int]:
    before, after = map(re.escape, re.split(r"\{:0\dd\}", path[1]))
    return [number for (number,) in list_numbers(path[0], rf"{before}(\d+){after}")]


def _path(path: tuple[str, str], number: int) -> str:
    return os.path.join(path[0], path[1].format(number))
