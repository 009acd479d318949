"""A folder of image pairs of the user's own, with or without labels."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

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
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = _visible(subfolders)
            files = [Path(folder, name) for name in _visible(names)]
            title = os.path.relpath(folder, root).replace(os.sep, "/")
            many = any(re.search(r"_img[12]$", file.stem) and _is_picture(file) for file in files)
            for pair in _many_pairs(files, title) if many else _one_pair(files, title):
                if split == "all" and pair.flow is None:
                    raise UserError(f"{pair.img1} has no flow file beside it although labels are needed")
                yield pair


def _one_pair(files: list[Path], title: str) -> Iterator[Pair]:
    roles: dict[str | None, list[Path]] = {}
    for file in files:
        roles.setdefault(_role(file), []).append(file)
    pictures = roles.pop("picture", [])
    frames = [file for file in pictures if file.stem in ("frame10", "frame11")]
    if len(frames) == 2:
        pictures = frames
    if not pictures:
        return
    if len(pictures) != 2:
        raise UserError(f"{files[0].parent} holds {len(pictures)} pictures where a folder of a pair has two")
    roles.pop(None, None)
    for role, found in roles.items():
        if len(found) > 1:
            names = " and ".join(file.name for file in found)
            raise UserError(f"{files[0].parent} holds {names} where one {role} file is allowed")
    name = Path(os.path.abspath(files[0])).parent.name if title == "." else title
    yield Pair(name, *map(str, pictures), **{role: str(file) for role, (file,) in roles.items()})


def _role(file: Path) -> str | None:
    is_flow = file.suffix.lower() in FLOW_SUFFIXES
    if is_flow and file.stem == "flow_noc":
        return "noc"
    if is_flow and (file.stem.startswith("flow") or file.suffix.lower() == ".flo"):
        return "flow"
    return {"invalid": "invalid", "occlusions": "occlusion"}.get(file.stem, "picture") if _is_picture(file) else None


def _many_pairs(files: list[Path], title: str) -> Iterator[Pair]:
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        match = re.fullmatch(r"(.+)_(img1|img2|flow)", file.stem)
        if match and (file.suffix.lower() in FLOW_SUFFIXES if match[2] == "flow" else _is_picture(file)):
            before = found.setdefault(match[1], {}).setdefault(match[2], file)
            if before != file:
                raise UserError(f"{file.parent} holds {before.name} and {file.name}: one must go")
    for name, paths in found.items():
        for role in ("img1", "img2"):
            if role not in paths:
                raise UserError(f"{files[0].with_name(name)}_{role} is missing for its pair")
        yield Pair(name if title == "." else f"{title}/{name}", **{role: str(path) for role, path in paths.items()})


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURE_SUFFIXES


def _visible(names: list[str]) -> list[str]:
    return sorted((name for name in names if not name.startswith(".")), key=natural)
