"""A folder of image pairs of the user's own, with or without labels."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from maskflownet.errors import UserError
from maskflownet.reader.dataset import FlowDataset, Pair
from maskflownet.reader.files import natural, walk, warn_left_out
from maskflownet.reader.formats import FLOW_SUFFIXES, is_picture


class Pairs(FlowDataset):
    """Image pairs anywhere below a root, hidden folders left out.

    The root and every folder below it that holds pictures follows one of two rules.

    *One pair a folder:* exactly two pictures, in the order of their names (2 before 10), under any
    name; where ``frame10`` and ``frame11`` are among them (Middlebury), these are the pair and
    further pictures are left out. Beside them, by name: at most one label, which is any ``.flo`` or
    a ``.pfm``, ``.png`` (KITTI), ``.npy`` or ``.npz`` called ``flow``, ``flow10`` or ``flow_occ``
    (``flow`` and no further letter: not ``flower1``); ``flow_noc.*``, the label of the
    non-occluded pixels; ``invalid.png`` and ``occlusions.png``, 255 where it says so. A picture
    with a label's name, such as ``flow_vis.png``, is a drawing of the flow and left out.

    *Many pairs a folder:* ``NAME_img1.*`` and ``NAME_img2.*`` with an optional
    ``NAME_flow.{flo,pfm,png,npy,npz}``.

    A warning counts and names the pictures and flow files that are left out.

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
        pairs: list[Pair] = []
        left_out: list[Path] = []
        for folder, subfolders, names in walk(root):
            subfolders[:] = _visible(subfolders)
            files = [Path(folder, name) for name in _visible(names)]
            title = os.path.relpath(folder, root).replace(os.sep, "/")
            many = any(re.search(r"_img[12]$", file.stem) and is_picture(file) for file in files)
            found = list(_many_pairs(files, title) if many else _one_pair(files, title))
            used = {path for pair in found for path in pair[1:]}
            left_out += [file for file in files if str(file) not in used and (is_picture(file) or _is_flow(file))]
            pairs += found
        warn_left_out(root, left_out)
        for pair in pairs:
            if split == "all" and pair.flow is None:
                raise UserError(f"{pair.img1} has no flow file beside it although labels are needed")
        return pairs


def _one_pair(files: list[Path], title: str) -> Iterator[Pair]:
    roles: dict[str | None, list[Path]] = {}
    for file in files:
        roles.setdefault(_role(file), []).append(file)
    roles.pop(None, None)
    pictures, drawings = (roles.pop(role, []) for role in ("picture", "drawing"))
    frames = [file for file in pictures if file.stem in ("frame10", "frame11")]
    if len(frames) == 2:
        pictures = frames
    elif not pictures and len(drawings) == 2:  # the frames of a scene that is called "flow"
        pictures = drawings
    if not pictures:
        return
    if len(pictures) != 2:
        raise UserError(f"{files[0].parent} holds {len(pictures)} pictures where a folder of a pair has two")
    for role, found in roles.items():
        if len(found) > 1:
            names = " and ".join(file.name for file in found)
            raise UserError(f"{files[0].parent} holds {names} where one {role} file is allowed")
    name = Path(os.path.abspath(files[0])).parent.name if title == "." else title
    yield Pair(name, *map(str, pictures), **{role: str(file) for role, (file,) in roles.items()})


def _role(file: Path) -> str | None:
    named = re.match("flow(?![a-z])", file.stem)
    if _is_flow(file) and (file.suffix.lower() == ".flo" or (named and not _is_drawing(file))):
        return "noc" if file.stem == "flow_noc" else "flow"
    if not is_picture(file):
        return None
    return "drawing" if named else {"invalid": "invalid", "occlusions": "occlusion"}.get(file.stem, "picture")


def _is_drawing(file: Path) -> bool:
    """Whether it is a PNG, but not of three 16-bit channels, as KITTI's labels are."""
    with open(file, "rb") as content:
        header = content.read(26)
    return header.startswith(b"\x89PNG") and header[24:] != b"\x10\x02"


def _many_pairs(files: list[Path], title: str) -> Iterator[Pair]:
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        match = re.fullmatch(r"(.+)_(img1|img2|flow)", file.stem)
        if match and (_is_flow if match[2] == "flow" else is_picture)(file):
            before = found.setdefault(match[1], {}).setdefault(match[2], file)
            if before != file:
                raise UserError(f"{file.parent} holds {before.name} and {file.name}: one must go")
    for name, paths in found.items():
        for role in ("img1", "img2"):
            if role not in paths:
                raise UserError(f"{files[0].with_name(name)}_{role} is missing for its pair")
        yield Pair(name if title == "." else f"{title}/{name}", **{role: str(path) for role, path in paths.items()})


def _is_flow(file: Path) -> bool:
    return file.suffix.lower() in FLOW_SUFFIXES


def _visible(names: list[str]) -> list[str]:
    return sorted((name for name in names if not name.startswith(".")), key=natural)
