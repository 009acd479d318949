"""A folder of image pairs of the user's own, with or without labels."""

import os
import re

from maskflownet.errors import UserError
from maskflownet.reader.dataset import FlowDataset, Pair
from maskflownet.reader.files import natural
from maskflownet.reader.formats import FLOW_SUFFIXES, PICTURE_SUFFIXES


class Pairs(FlowDataset):
    """Image pairs anywhere below a root, hidden folders left out.

    The root and every folder below it that holds pictures follows one of two rules.

    *One pair a folder:* exactly two pictures, in the order of their names (2 before 10), under any
    name; where ``frame10`` and ``frame11`` are among them (Middlebury), these are the pair and
    further pictures are ignored. Beside them, by name: at most one label, which is any ``.flo`` or
    a ``.pfm``, ``.png`` (KITTI), ``.npy`` or ``.npz`` whose name starts with ``flow``;
    ``flow_noc.*``, the label of the non-occluded pixels; ``invalid.png`` and ``occlusions.png``,
    255 where it says so.

    *Many pairs a folder:* ``NAME_img1.*`` and ``NAME_img2.*`` with an optional
    ``NAME_flow.{flo,pfm,png,npy,npz}``.

    The split ``all`` needs a label of every pair, ``test`` does not.
    """

    name = "pairs"
    splits = ("all", "test")
    validation = "all"
    measured = ("all",)
    counts = {("test", None): None}

    def list_pairs(self, root, split, version):
        if not os.path.isdir(root):
            raise UserError(f"{root} is not a folder although image pairs are to be read from it")
        for folder, subfolders, files in os.walk(root):
            subfolders[:] = _visible(subfolders)
            title = os.path.relpath(folder, root).replace(os.sep, "/")
            for pair in _pairs_of(folder, _visible(files), title):
                if split == "all" and pair.flow is None:
                    raise UserError(f"{pair.img1} has no flow file beside it although labels are needed")
                yield pair


def _pairs_of(folder: str, names: list[str], title: str) -> list[Pair]:
    """List the pairs of one folder."""
    pictures = [name for name in names if _suffix(name) in PICTURE_SUFFIXES]
    if any(re.search(r"_img[12]$", _stem(name)) for name in pictures):
        return _many_pairs(folder, names, title)
    roles = {"flow": [], "noc": [], "invalid": [], "occlusion": [], "picture": []}
    for name in names:
        role = _role(name)
        if role:
            roles[role].append(name)
    frames = [name for name in roles["picture"] if _stem(name) in ("frame10", "frame11")]
    found = frames if len(frames) == 2 else roles.pop("picture")
    roles.pop("picture", None)
    if not found:
        return []
    if len(found) != 2:
        raise UserError(f"{folder} holds {len(found)} pictures where a folder of a pair has two")
    for role, files in roles.items():
        if len(files) > 1:
            raise UserError(f"{folder} holds {' and '.join(files)} where one {role} file is allowed")
    rest = {role: os.path.join(folder, files[0]) for role, files in roles.items() if files}
    name = os.path.basename(os.path.abspath(folder)) if title == "." else title
    return [Pair(name, *(os.path.join(folder, picture) for picture in found), **rest)]


def _many_pairs(folder: str, names: list[str], title: str) -> list[Pair]:
    """List the pairs of a folder of ``NAME_img1``, ``NAME_img2`` and ``NAME_flow`` files."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        match = re.fullmatch(r"(.+)_(img1|img2|flow)", _stem(name))
        if match and _suffix(name) in (FLOW_SUFFIXES if match[2] == "flow" else PICTURE_SUFFIXES):
            files = found.setdefault(match[1], {})
            if match[2] in files:
                raise UserError(f"{folder} holds {files[match[2]]} and {name}: one must go")
            files[match[2]] = name
    pairs = []
    for name, files in found.items():
        for role in ("img1", "img2"):
            if role not in files:
                raise UserError(f"{os.path.join(folder, name)}_{role} is missing for its pair")
        paths = {role: os.path.join(folder, file) for role, file in files.items()}
        pairs.append(Pair(name if title == "." else f"{title}/{name}", **paths))
    return pairs


def _role(name: str) -> str | None:
    stem, suffix = _stem(name), _suffix(name)
    if stem == "flow_noc" and suffix in FLOW_SUFFIXES:
        return "noc"
    if suffix == ".flo" or (stem.startswith("flow") and suffix in FLOW_SUFFIXES):
        return "flow"
    if suffix not in PICTURE_SUFFIXES:
        return None
    return {"invalid": "invalid", "occlusions": "occlusion"}.get(stem, "picture")


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _visible(names: list[str]) -> list[str]:
    return sorted((name for name in names if not name.startswith(".")), key=natural)
