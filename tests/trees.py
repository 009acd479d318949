"""Tiny trees of every data set: real small files in the layout of the real ones.

Sizes are (H, W). Labels are constant, one of twenty values (`label`), and pictures are smooth noise
from a seed, so that tests can tell pairs apart. A content that occurs again is a hard link: trees
with the file counts of the published sets take a second and little disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from maskflownet.reader.formats import write_flo, write_image, write_kitti_png, write_pfm

SIZE = (64, 128)
SINTEL_FRAMES = {
    **{"alley_1": 50, "alley_2": 50, "ambush_2": 21, "ambush_4": 33, "ambush_5": 50},
    **{"ambush_6": 20, "ambush_7": 50, "bamboo_1": 50, "bamboo_2": 50, "bandage_1": 50},
    **{"bandage_2": 50, "cave_2": 50, "cave_4": 50, "market_2": 50, "market_5": 50},
    **{"market_6": 40, "mountain_1": 50, "shaman_2": 50, "shaman_3": 50, "sleeping_1": 50},
    **{"sleeping_2": 50, "temple_2": 50, "temple_3": 50},
}
SINTEL_TEST_FRAMES = {"ambush_1": 3, "wall": 2}


def label(number: int) -> tuple[float, float]:
    """Return the (u, v) in px of label ``number``; it repeats after 20, exact in every format."""
    return number % 20 - 9.5, 4.75 - number % 20 / 2


def flow(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return label ``number`` as a field: (H, W, 2) float32, px, (u, v)."""
    return np.full((*size, 2), label(number), np.float32)


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a smooth random (H, W, 3) uint8 RGB picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR)


def holes(size: tuple[int, int] = SIZE, share: int = 3) -> np.ndarray:
    """Return a mask whose upper 1/share is 0, like the sky of a sparse label: (H, W, 1) uint8."""
    mask = np.full((*size, 1), 255, np.uint8)
    mask[: size[0] // share] = 0
    return mask


class Writer:
    """Writes pictures and labels of one size, each content only once."""

    def __init__(self, size: tuple[int, int] = SIZE):
        self.size = size
        self.made: dict[tuple, Path] = {}

    def picture(self, path: Path, seed: int) -> None:
        """Write picture ``seed``."""
        self._put(path, ("picture", seed), lambda: write_image(path, picture(seed, self.size)))

    def label(self, path: Path, number: int, mask: np.ndarray | None = None) -> None:
        """Write label ``number`` in the format of the path's suffix, not valid where mask is 0."""
        write = {".flo": write_flo, ".pfm": write_pfm, ".png": write_kitti_png}[path.suffix]
        key = ("label", number % 20, None if mask is None else mask.tobytes())
        self._put(path, key, lambda: write(path, flow(number, self.size), mask))

    def mask(self, path: Path, mask: np.ndarray) -> None:
        """Write a grey picture."""
        self._put(path, ("mask", mask.tobytes()), lambda: write_image(path, mask))

    def _put(self, path: Path, key: tuple, write) -> None:
        key = (*key, path.suffix, self.size)
        if key in self.made:
            os.link(self.made[key], path)
            return
        write()
        self.made[key] = path

    def folder(self, path: Path) -> Path:
        """Make a folder, which every file needs beforehand."""
        path.mkdir(parents=True, exist_ok=True)
        return path


def make_chairs(root: Path, train: int = 6, val: int = 2, size: tuple[int, int] = SIZE) -> Path:
    """Make FlyingChairs, numbered from 1; of the first 2 x val pairs every second is validation.

    Pair k has the pictures 2 (k % 20) and 2 (k % 20) + 1 and the label k.
    """
    assert train >= val, "validation pairs lie between training pairs"
    writer = Writer(size)
    data = writer.folder(root / "data")
    for k in range(1, train + val + 1):
        writer.picture(data / f"{k:05d}_img1.ppm", 2 * (k % 20))
        writer.picture(data / f"{k:05d}_img2.ppm", 2 * (k % 20) + 1)
        writer.label(data / f"{k:05d}_flow.flo", k)
    lines = ["1", "2"] * val + ["1"] * (train - val)
    (root / "FlyingChairs_train_val.txt").write_text("\n".join(lines) + "\n")
    return root


def make_things3d_subset(
    root: Path, sequences: int = 2, frames: int = 3, size: tuple[int, int] = SIZE, final: bool = False
) -> Path:
    """Make the FlyingThings3D subset; sequences are numbered on and have no label at their ends.

    Frame n has picture n (left) or 100 + n (right), 200 more in the final pass, and the label n
    into the future, 10 + n into the past: 4 (frames - 1) pairs per sequence and pass.
    """
    writer = Writer(size)
    train = root / "train"
    for v, view in enumerate(("left", "right")):
        for p, render in enumerate(("clean", "final") if final else ("clean",)):
            images = writer.folder(train / f"image_{render}" / view)
            for n in range(sequences * frames):
                writer.picture(images / f"{n:07d}.png", n + 100 * v + 200 * p)
        future = writer.folder(train / "flow" / view / "into_future")
        past = writer.folder(train / "flow" / view / "into_past")
        for n in range(sequences * frames):
            if n % frames != frames - 1:
                writer.label(future / f"{n:07d}.flo", n)
            if n % frames != 0:
                writer.label(past / f"{n:07d}.flo", 10 + n)
    return root


def make_things3d_full(
    root: Path, sequences: int = 2, frames: int = 3, size: tuple[int, int] = SIZE, final: bool = False
) -> Path:
    """Make the full FlyingThings3D, frames from 6 on, with labels at the sequences' ends too.

    Contents are as in `make_things3d_subset`; 4 labels per sequence have no partner.
    """
    writer = Writer(size)
    for s in range(sequences):
        sequence = Path("TRAIN") / "ABC"[s % 3] / f"{s:04d}"
        for v, view in enumerate(("left", "right")):
            for p, render in enumerate(("clean", "final") if final else ("clean",)):
                images = writer.folder(root / f"frames_{render}pass" / sequence / view)
                for n in range(6, 6 + frames):
                    writer.picture(images / f"{n:04d}.png", n + 100 * v + 200 * p)
            for d, direction in enumerate(("Future", "Past")):
                labels = root / "optical_flow" / sequence / f"into_{direction.lower()}" / view
                writer.folder(labels)
                for n in range(6, 6 + frames):
                    name = f"OpticalFlowInto{direction}_{n:04d}_{'LR'[v]}.pfm"
                    writer.label(labels / name, n + 10 * d)
    return root


def make_sintel(
    root: Path,
    frames: Mapping[str, int] = SINTEL_FRAMES,
    test_frames: Mapping[str, int] = SINTEL_TEST_FRAMES,
    size: tuple[int, int] = SIZE,
    occlusions: bool = True,
) -> Path:
    """Make MPI Sintel; by default with all training frames, which the split file needs.

    Sequence s (in sorted order), frame n has picture (s + n) % 20, 100 more in the final pass, and
    label s + n. The upper third is invalid, the upper half occluded.
    """
    writer = Writer(size)
    for s, sequence in enumerate(sorted(frames)):
        numbers = range(1, frames[sequence] + 1)
        _sintel_pictures(writer, root / "training", sequence, numbers, s)
        for kind in ("flow", "invalid", *(["occlusions"] if occlusions else [])):
            folder = writer.folder(root / "training" / kind / sequence)
            for n in numbers:
                if kind == "flow" and n < frames[sequence]:
                    writer.label(folder / f"frame_{n:04d}.flo", s + n)
                elif kind == "invalid":
                    writer.mask(folder / f"frame_{n:04d}.png", 255 - holes(size))
                elif kind == "occlusions" and n < frames[sequence]:
                    writer.mask(folder / f"frame_{n:04d}.png", 255 - holes(size, 2))
    for s, sequence in enumerate(sorted(test_frames)):
        numbers = range(1, test_frames[sequence] + 1)
        _sintel_pictures(writer, root / "test", sequence, numbers, 50 + s)
    return root


def _sintel_pictures(writer: Writer, top: Path, sequence: str, numbers: range, start: int) -> None:
    for p, render in enumerate(("clean", "final")):
        folder = writer.folder(top / render / sequence)
        for n in numbers:
            writer.picture(folder / f"frame_{n:04d}.png", (start + n) % 20 + 100 * p)


def make_kitti(
    root: Path,
    counts: Mapping[int, int] = {2012: 20, 2015: 20},  # noqa: B006 (never changed)
    test: int = 2,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Make both years of KITTI below one root, pairs 0, 1, ... of each.

    Pair k has the pictures k % 20 and 100 + k % 20, 200 more in ``testing`` and 400 more in 2015,
    and the label k in its lower two thirds; the lower half is visible in both images. Sizes differ
    by a few pixels as in the real set: (H + k % 2, W + k % 3).
    """
    writer = Writer(size)
    for year, images in ((2012, "colored_0"), (2015, "image_2")):
        for p, (part, count) in enumerate((("training", counts[year]), ("testing", test))):
            top = root / str(year) / part
            for folder in (images, *(["flow_occ", "flow_noc"] if part == "training" else [])):
                writer.folder(top / folder)
            for k in range(count):
                writer.size = (size[0] + k % 2, size[1] + k % 3)
                seed = k % 20 + 200 * p + 400 * (year == 2015)
                writer.picture(top / images / f"{k:06d}_10.png", seed)
                writer.picture(top / images / f"{k:06d}_11.png", seed + 100)
                if part == "training":
                    writer.label(top / "flow_occ" / f"{k:06d}_10.png", k, holes(writer.size))
                    writer.label(top / "flow_noc" / f"{k:06d}_10.png", k, holes(writer.size, 2))
    return root


def make_hd1k(
    root: Path,
    frames: Mapping[int, int] = {0: 4, 4: 2, 5: 3, 6: 2},  # noqa: B006 (never changed)
    size: tuple[int, int] = SIZE,
) -> Path:
    """Make HD1K from the number of frames of each sequence; 5 is the validation's.

    Frame n of sequence s has picture s + n and label s + n, the last frame too; the upper third has
    no label.
    """
    writer = Writer(size)
    images = writer.folder(root / "hd1k_input" / "image_2")
    labels = writer.folder(root / "hd1k_flow_gt" / "flow_occ")
    for s, count in frames.items():
        for n in range(count):
            writer.picture(images / f"{s:06d}_{n:04d}.png", s + n)
            writer.label(labels / f"{s:06d}_{n:04d}.png", s + n, holes(size))
    return root


def make_pairs(root: Path, size: tuple[int, int] = SIZE, unlabelled: bool = True) -> Path:
    """Make a folder of pairs of every kind that `maskflownet.reader.pairs` knows, each with its own label.

    In the order of the reader: ``flat/a`` (label 0, .pfm), ``flat/b`` (1, .flo), ``kitti`` (2),
    ``middlebury/Grove2`` (3), ``middlebury/Venus`` (4), and ``own``, which has no label.
    Pair k has the pictures 2 k and 2 k + 1.
    """
    writer = Writer(size)
    files = [
        ("flat", "a_img1.png", "a_img2.png", "a_flow.pfm"),
        ("flat", "b_img1.ppm", "b_img2.ppm", "b_flow.flo"),
        ("kitti", "frame1.png", "frame2.png", "flow_occ.png"),
        ("middlebury/Grove2", "frame10.png", "frame11.png", "flow10.flo"),
        ("middlebury/Venus", "frame10.png", "frame11.png", "flow10.flo"),
        ("own", "shot9.png", "shot10.png", None),
    ]
    for k, (folder, img1, img2, name) in enumerate(files if unlabelled else files[:-1]):
        folder = writer.folder(root / folder)  # noqa: PLW2901
        writer.picture(folder / img1, 2 * k)
        writer.picture(folder / img2, 2 * k + 1)
        if name is not None:
            writer.label(folder / name, k)
    writer.label(root / "kitti" / "flow_noc.png", 2, holes(size))
    return root
