"""Freiburg's rendered sets for training.

FlyingChairs: Dosovitskiy et al., FlowNet, ICCV 2015, and whatever is stored in its layout. ChairsSDHom: Ilg et al.,
FlowNet 2.0, CVPR 2017. FlyingChairs2: Ilg et al., ECCV 2018. FlyingThings3D, Monkaa and Driving: Mayer et al., CVPR
2016; of FlyingThings3D also the subset of DispNet/FlowNet2.
"""

import os
import re
from collections.abc import Iterable, Iterator
from itertools import product

from maskflownet.errors import UserError
from maskflownet.reader.dataset import FlowDataset, Pair, list_folder, list_numbers, part_of
from maskflownet.reader.files import warn_left_out

SPLIT_FILE = "FlyingChairs_train_val.txt"
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
        occlusions = set(list_numbers(data, r"(\d{5,})_occ\.png"))
        for (number,) in part_of(numbers, split, os.path.join(root, SPLIT_FILE)):
            stem = os.path.join(data, f"{number:05d}")
            occlusion = f"{stem}_occ.png" if (number,) in occlusions else None
            files = (f"{stem}_img1.ppm", f"{stem}_img2.ppm", f"{stem}_flow.flo")
            yield Pair(f"{number:05d}", *files, occlusion=occlusion)


class Chairs2(FlowDataset):
    """``{train,val}/%07d-{img_0,img_1}.png``, ``-flow_01.flo``, ``-flow_10.flo``; ``-occ_01.png``, ``-occ_10.png``.

    The version `backward` is the flow from the second image to the first. An ``occ`` picture is read where it exists.
    Assumed, as no file was at hand: it is above 0 where a pixel is occluded.
    """

    name = "chairs2"
    versions = ("forward", "backward")
    measured = ("val",)
    counts = {(split, v): n for v in ("forward", "backward") for split, n in (("train", 22232), ("val", 640))}

    def list_pairs(self, root, split, version):
        first, second = ("0", "1") if version == "forward" else ("1", "0")
        for part in ("train", "val") if split == "all" else (split,):
            names = list_folder(os.path.join(root, part))
            held = set(names)
            for stem in _stems(names, f"-img_0.png -img_1.png -flow_{first}{second}.flo".split()):
                path, occlusion = os.path.join(root, part, stem), f"-occ_{first}{second}.png"
                files = f"{path}-img_{first}.png", f"{path}-img_{second}.png", f"{path}-flow_{first}{second}.flo"
                occluded = path + occlusion if stem + occlusion in held else None
                yield Pair(f"{version}/{part}/{stem}", *files, occlusion=occluded)


class ChairsSDHom(FlowDataset):
    """``data/{train,test}/{t0,t1}/NAME.png``, ``flow/NAME.pfm``; `test`, which has labels, is the validation part.

    Assumed, as no file was at hand: the layout; rows of the labels from the bottom to the top, as in every .pfm.
    """

    name = "chairs_sdhom"
    measured = ("val",)
    counts = {("train", None): None, ("val", None): None}

    def list_pairs(self, root, split, version):
        for part in {"train": ("train",), "val": ("test",), "all": ("train", "test")}[split]:
            folders = [os.path.join(root, "data", part, kind) for kind in ("t0", "t1", "flow")]
            for stem in _stems(sum(map(list_folder, folders), []), (".png", ".pfm")):
                files = (os.path.join(top, stem + end) for top, end in zip(folders, (".png", ".png", ".pfm")))
                yield Pair(f"{part}/{stem}", *files)


def _stems(names: list[str], ends: Iterable[str]) -> list[str]:
    """Return the sorted names without their ends, of those that have one of `ends`."""
    return sorted({name.removesuffix(end) for end in ends for name in names if name.endswith(end)})


class Monkaa(FlowDataset):
    """All of it training data: both views (left, right) and both directions of time, or what the root holds of them.

    ``frames_PASSpass/SEQUENCE/VIEW/%04d.png``, or ``frames_PASSpass_webp`` with ``.webp``, and
    ``optical_flow/SEQUENCE/DIRECTION/VIEW/OpticalFlowInto{Future,Past}_%04d_{L,R}.pfm``, where SEQUENCE is a path.
    A view or a direction may be absent as a whole. The partner of frame n is n + 1 into the future and n - 1 into the
    past. A label at the end of a sequence, beyond which there is no frame, has no partner and is left out.
    """

    name = "monkaa"
    splits = ("all",)
    versions = ("clean", "final")
    default_versions = ("clean",)
    validation = None
    counts = {("all", "clean"): None, ("all", "final"): None}
    part = ""  # folder of the sequences

    @classmethod
    def lacks(cls, root, split, version):
        held = any(os.path.isdir(os.path.join(root, name)) for name in (f"train/image_{version}", *_frames(version)))
        return f"{root} holds no pass {version}" if version == "final" and not held else None

    def folders(self, root: str, version: str) -> Iterator[tuple]:
        """Yield of every folder of labels (name, direction, pictures, labels).

        The last two are (folder, file name with "{:0Nd}" in place of the frame's number).
        """
        found = [name for name in _frames(version) if os.path.isdir(os.path.join(root, name))]
        frames, labels = (os.path.join(root, n, self.part) for n in ((found or _frames(version))[0], "optical_flow"))
        suffix = ".webp" if found and found[0].endswith("_webp") else ".png"
        pictured, labelled = _sequences(frames, VIEWS), _sequences(labels, STEPS)
        tops = (os.path.join(labels, sequence, step) for sequence, steps in labelled.items() for step in steps)
        views = set().union(*map(list_folder, tops))
        parts = _parts(root, set().union(*pictured.values()), views, set().union(*labelled.values()))
        for sequence, (view, step) in product(sorted({*pictured, *labelled}), parts):
            label = f"OpticalFlowInto{step[len('into_') :].capitalize()}_{{:04d}}_{view[0].upper()}.pfm"
            images = os.path.join(frames, sequence, view), "{:04d}" + suffix
            yield f"{version}/{sequence}/{view}", step, images, (os.path.join(labels, sequence, step, view), label)

    def list_pairs(self, root, split, version):
        for name, direction, images, labels in self.folders(root, version):
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


class Driving(Monkaa):
    """As Monkaa; a sequence is ``{15,35}mm_focallength/scene_{forwards,backwards}/{fast,slow}``."""

    name = root_name = "driving"


class Things3D(Monkaa):
    """As Monkaa, in whichever layout the root holds.

    Full: a sequence is ``TRAIN/{A,B,C}/%04d``. Subset: ``train/image_PASS/VIEW/%07d.png`` and
    ``train/flow/VIEW/DIRECTION/%07d.flo``.
    """

    name = root_name = "things3d"
    part = "TRAIN"
    per_folder = (19000, 20000)  # labels of one view and direction of the subset

    @classmethod
    def expected(cls, root):
        folders = [os.path.join(root, "train", "flow", *part) for part in product(VIEWS, STEPS)]
        held = sum(map(os.path.isdir, folders))
        count = tuple(held * n for n in cls.per_folder) if os.path.isdir(os.path.join(root, "train")) else None
        return dict.fromkeys(super().expected(root), count)

    def folders(self, root, version):
        found = [name for name in ("train", "optical_flow") if os.path.isdir(os.path.join(root, name))]
        if len(found) != 1:
            what = "both layouts" if found else "neither layout"
            raise UserError(f"{root} holds {what} of FlyingThings3D: train/ (subset), optical_flow/ (full)")
        if found == ["optical_flow"]:
            yield from super().folders(root, version)
            return
        frames, labels = os.path.join(root, "train", f"image_{version}"), os.path.join(root, "train", "flow")
        labelled = _sequences(labels, STEPS)
        for view, step in _parts(root, list_folder(frames), labelled, set().union(*labelled.values())):
            images = os.path.join(frames, view), "{:07d}.png"
            yield f"{version}/{view}", step, images, (os.path.join(labels, view, step), "{:07d}.flo")


def _frames(version: str) -> list[str]:
    return [f"frames_{version}pass", f"frames_{version}pass_webp"]


def _sequences(top: str, inside: Iterable[str]) -> dict[str, set[str]]:
    """Return the folders below `top` with a sub-folder of one of the names `inside`, and which they have."""
    list_folder(top)  # it must exist
    found = {}
    for folder, names, _ in os.walk(top, followlinks=True):
        held = set(names).intersection(inside)
        if held:
            found[os.path.relpath(folder, top)] = held
            names.clear()
    return found


def _parts(root: str, pictured: Iterable[str], labelled: Iterable[str], directions: Iterable[str]) -> list[tuple]:
    """Return the views and directions to read; a warning names a view with frames or labels alone."""
    alone = sorted(set(pictured).symmetric_difference(labelled).intersection(VIEWS))
    warn_left_out(root, [f"{view} (frames or labels alone)" for view in alone])
    views = [view for view in VIEWS if view in pictured and view in labelled]
    return list(product(views, [step for step in STEPS if step in directions]))


def _numbers(path: tuple[str, str]) -> list[int]:
    before, after = map(re.escape, re.split(r"\{:0\dd\}", path[1]))
    return [number for (number,) in list_numbers(path[0], rf"{before}(\d+){after}")]


def _path(path: tuple[str, str], number: int) -> str:
    return os.path.join(path[0], path[1].format(number))
