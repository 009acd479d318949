"""Tiny trees of every data set: real small files in the layout of the real ones.

Sizes are (H, W). Labels are constant, one of twenty values (`label`), and pictures are smooth noise
from a seed, so that tests can tell pairs apart. A content that occurs again is a hard link: trees
with the file counts of the published sets take a second and little disk.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from maskflownet.reader.formats import write_flow, write_image

SIZE = (64, 128)
_OF_50 = "alley_1 alley_2 ambush_7 bamboo_1 bamboo_2 bandage_1 bandage_2 cave_2 cave_4 market_2 market_5"
_OF_50 += " mountain_1 shaman_2 shaman_3 sleeping_1 sleeping_2 temple_2 temple_3"
SINTEL_FRAMES = {
    **dict.fromkeys(_OF_50.split(), 50),
    **{"ambush_2": 21, "ambush_4": 33, "ambush_5": 50, "ambush_6": 20, "market_6": 40},
}
SINTEL_TEST_FRAMES = {"ambush_1": 3, "wall": 2}
KITTI_COUNTS = {2012: 20, 2015: 20}
HD1K_FRAMES = {0: 4, 4: 2, 5: 3, 6: 2}
VIEWS, PASSES = ("left", "right"), ("clean", "final")


def label(number: int) -> tuple[float, float]:
    """The (u, v) in px of label ``number``; it repeats after 20, exact in every format."""
    return number % 20 - 9.5, 4.75 - number % 20 / 2


def flow(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Label ``number`` as a field: (H, W, 2) float32, px, (u, v)."""
    return np.full((*size, 2), label(number), np.float32)


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A smooth random (H, W, 3) uint8 RGB picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR)


def holes(size: tuple[int, int] = SIZE, share: int = 3) -> np.ndarray:
    """A mask whose upper 1/share is 0, like the sky of a sparse label: (H, W, 1) uint8."""
    mask = np.full((*size, 1), 255, np.uint8)
    mask[: size[0] // share] = 0
    return mask


class Writer:
    """Writes pictures and labels of one size with their folders, each content only once."""

    def __init__(self, size: tuple[int, int] = SIZE):
        self.size = size
        self.made: dict[tuple, Path] = {}

    def picture(self, path: Path, seed: int) -> None:
        self._put(path, ("picture", seed), lambda: write_image(path, picture(seed, self.size)))

    def label(self, path: Path, number: int, mask: np.ndarray | None = None) -> None:
        """Write label ``number`` in the format of the path's suffix, not valid where the mask of a .png is 0."""

        def write():
            write_flow(path, flow(number, self.size))
            if mask is not None:
                cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) * (mask > 0))

        self._put(path, ("label", number % 20, None if mask is None else mask.tobytes()), write)

    def mask(self, path: Path, mask: np.ndarray) -> None:
        self._put(path, ("mask", mask.tobytes()), lambda: write_image(path, mask))

    def _put(self, path: Path, key: tuple, write) -> None:
        key = (*key, path.suffix, self.size)
        path.parent.mkdir(parents=True, exist_ok=True)
        if key in self.made:
            os.link(self.made[key], path)
        else:
            write()
            self.made[key] = path


def make_chairs(root: Path, train: int = 6, val: int = 2, size: tuple[int, int] = SIZE) -> Path:
    """FlyingChairs, numbered from 1; of the first 2 x val pairs every second is validation.

    Pair k has the pictures 2 (k % 20) and 2 (k % 20) + 1 and the label k.
    """
    assert train >= val, "validation pairs lie between training pairs"
    writer = Writer(size)
    for k in range(1, train + val + 1):
        for i in (0, 1):
            writer.picture(root / f"data/{k:05d}_img{i + 1}.ppm", 2 * (k % 20) + i)
        writer.label(root / f"data/{k:05d}_flow.flo", k)
    lines = ["1", "2"] * val + ["1"] * (train - val)
    (root / "FlyingChairs_train_val.txt").write_text("\n".join(lines) + "\n")
    return root


def make_things3d_subset(
    root: Path, sequences: int = 2, frames: int = 3, size: tuple[int, int] = SIZE, final: bool = False
) -> Path:
    """The FlyingThings3D subset; sequences are numbered on and have no label at their ends.

    Frame n has picture n (left) or 100 + n (right), 200 more in the final pass, and the label n
    into the future, 10 + n into the past: 4 (frames - 1) pairs per sequence and pass.
    """
    writer = Writer(size)
    for v, view in enumerate(VIEWS):
        for n in range(sequences * frames):
            for p, render in enumerate(PASSES[: 1 + final]):
                writer.picture(root / f"train/image_{render}/{view}/{n:07d}.png", n + 100 * v + 200 * p)
            if n % frames != frames - 1:
                writer.label(root / f"train/flow/{view}/into_future/{n:07d}.flo", n)
            if n % frames != 0:
                writer.label(root / f"train/flow/{view}/into_past/{n:07d}.flo", 10 + n)
    return root


def make_things3d_full(
    root: Path,
    sequences: int = 2,
    frames: int = 3,
    size: tuple[int, int] = SIZE,
    final: bool = False,
    name: str = "TRAIN/{letter}/{number:04d}",
    webp: bool = False,
) -> Path:
    """The full FlyingThings3D, frames from 6 on, with labels at the sequences' ends too.

    Contents are as in `make_things3d_subset`; 4 labels per sequence have no partner.
    """
    writer = Writer(size)
    for s in range(sequences):
        sequence = name.format(letter="ABC"[s % 3], number=s)
        for v, view in enumerate(VIEWS):
            for n in range(6, 6 + frames):
                for p, render in enumerate(PASSES[: 1 + final]):
                    folder = f"frames_{render}pass" + "_webp" * webp
                    path = root / folder / sequence / view / f"{n:04d}.{'webp' if webp else 'png'}"
                    writer.picture(path, n + 100 * v + 200 * p)
                for d, direction in enumerate(("Future", "Past")):
                    labels = root / "optical_flow" / sequence / f"into_{direction.lower()}" / view
                    writer.label(labels / f"OpticalFlowInto{direction}_{n:04d}_{'LR'[v]}.pfm", n + 10 * d)
    return root


def make_chairs2(root: Path, train: int = 4, val: int = 2, size: tuple[int, int] = SIZE) -> Path:
    """FlyingChairs2: pair k has the pictures 2 k and 2 k + 1, the label k, backward 10 + k; pair 0 occlusions."""
    writer = Writer(size)
    for part, numbers in (("train", range(train)), ("val", range(train, train + val))):
        for k in numbers:
            stem = root / part / f"{k:07d}"
            for i, way in enumerate(("01", "10")):
                writer.picture(Path(f"{stem}-img_{i}.png"), 2 * k + i)
                writer.label(Path(f"{stem}-flow_{way}.flo"), k + 10 * i)
                if k == 0:
                    writer.mask(Path(f"{stem}-occ_{way}.png"), holes(size, 2 + i))
    return root


def make_chairs_sdhom(root: Path, train: int = 4, val: int = 2, size: tuple[int, int] = SIZE) -> Path:
    """ChairsSDHom: pair k has the pictures 2 k and 2 k + 1 and the label k."""
    writer = Writer(size)
    for part, numbers in (("train", range(train)), ("test", range(train, train + val))):
        for k in numbers:
            for i in (0, 1):
                writer.picture(root / "data" / part / f"t{i}" / f"{k:05d}.png", 2 * k + i)
            writer.label(root / "data" / part / "flow" / f"{k:05d}.pfm", k)
    return root


def make_spring(root: Path, train: int = 2, test: int = 1, frames: int = 3, size: tuple[int, int] = SIZE) -> Path:
    """Spring, sequences numbered on, frames from 1; frame n has picture 10 s + n (left) or 100 more (right).

    Of the four values in each pixel of label n (FW) or 10 + n (BW) the upper left is `label`, its neighbours are 1 px
    more in u and in v, the fourth is none; the upper third has none at all.
    """
    writer = Writer(size)
    for s in range(1, train + test + 1):
        top = root / ("train" if s <= train else "test") / f"{s:04d}"
        for v, view in enumerate(VIEWS):
            for n in range(1, frames + 1):
                writer.picture(top / f"frame_{view}" / f"frame_{view}_{n:04d}.png", 10 * s + n + 100 * v)
                for way, number, end in (("FW", n, frames), ("BW", 10 + n, 1)):
                    if s <= train and n != end:
                        fine = flow(number, (2 * size[0], 2 * size[1]))
                        fine[::2, 1::2, 0] += 1
                        fine[1::2, ::2, 1] += 1
                        fine[np.repeat(np.repeat(holes(size), 2, axis=0), 2, axis=1)[..., 0] == 0] = np.nan
                        fine[1::2, 1::2] = np.nan
                        path = top / f"flow_{way}_{view}" / f"flow_{way}_{view}_{n:04d}.flo5"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        write_flow(path, fine)
    return root


def make_sintel(
    root: Path,
    frames: Mapping[str, int] = SINTEL_FRAMES,
    test_frames: Mapping[str, int] = SINTEL_TEST_FRAMES,
    size: tuple[int, int] = SIZE,
    occlusions: bool = True,
) -> Path:
    """MPI Sintel; by default with all training frames, which the split file needs.

    Sequence s (in sorted order), frame n has picture (s + n) % 20, 100 more in the final pass, and
    label s + n. The upper third is invalid, the upper half occluded. Sequences of the test start at 50.
    """
    writer = Writer(size)
    for part, counts, start in (("training", frames, 0), ("test", test_frames, 50)):
        for s, sequence in enumerate(sorted(counts), start):
            for n in range(1, counts[sequence] + 1):
                for p, render in enumerate(PASSES):
                    path = root / part / render / sequence / f"frame_{n:04d}.png"
                    writer.picture(path, (s + n) % 20 + 100 * p)
                if part == "test":
                    continue
                writer.mask(root / f"training/invalid/{sequence}/frame_{n:04d}.png", 255 - holes(size))
                if n < counts[sequence]:
                    writer.label(root / f"training/flow/{sequence}/frame_{n:04d}.flo", s + n)
                    if occlusions:
                        path = root / f"training/occlusions/{sequence}/frame_{n:04d}.png"
                        writer.mask(path, 255 - holes(size, 2))
    return root


def make_kitti(
    root: Path, counts: Mapping[int, int] = KITTI_COUNTS, test: int = 2, size: tuple[int, int] = SIZE
) -> Path:
    """Both years of KITTI below one root, pairs 0, 1, ... of each.

    Pair k has the pictures k % 20 and 100 + k % 20, 200 more in ``testing`` and 400 more in 2015,
    and the label k in its lower two thirds; the lower half is visible in both images. Sizes differ
    by a few pixels as in the real set: (H + k % 2, W + k % 3).
    """
    writer = Writer(size)
    for year, images in ((2012, "colored_0"), (2015, "image_2")):
        for p, (part, count) in enumerate((("training", counts[year]), ("testing", test))):
            top = root / str(year) / part
            (top / images).mkdir(parents=True)
            for k in range(count):
                writer.size = (size[0] + k % 2, size[1] + k % 3)
                for i in (0, 1):
                    seed = k % 20 + 100 * i + 200 * p + 400 * (year == 2015)
                    writer.picture(top / images / f"{k:06d}_1{i}.png", seed)
                if part == "training":
                    writer.label(top / f"flow_occ/{k:06d}_10.png", k, holes(writer.size))
                    writer.label(top / f"flow_noc/{k:06d}_10.png", k, holes(writer.size, 2))
    return root


def make_hd1k(root: Path, frames: Mapping[int, int] = HD1K_FRAMES, size: tuple[int, int] = SIZE) -> Path:
    """HD1K from the number of frames of each sequence; 5 is the validation's.

    Frame n of sequence s has picture s + n and label s + n, the last frame too; the upper third has
    no label.
    """
    writer = Writer(size)
    for s, count in frames.items():
        for n in range(count):
            writer.picture(root / f"hd1k_input/image_2/{s:06d}_{n:04d}.png", s + n)
            writer.label(root / f"hd1k_flow_gt/flow_occ/{s:06d}_{n:04d}.png", s + n, holes(size))
    return root


def make_pairs(root: Path, size: tuple[int, int] = SIZE, unlabelled: bool = True) -> Path:
    """A folder of pairs of every kind that `maskflownet.reader.pairs` knows, each with its own label.

    In the order of the reader: ``flat/a`` (label 0, .pfm), ``flat/b`` (1, .flo), ``kitti`` (2),
    ``middlebury/Grove2`` (3), ``middlebury/Venus`` (4), and ``own``, which has no label.
    Pair k has the pictures 2 k and 2 k + 1.
    """
    writer = Writer(size)
    files = [
        ("flat/a_img1.png", "flat/a_img2.png", "flat/a_flow.pfm"),
        ("flat/b_img1.ppm", "flat/b_img2.ppm", "flat/b_flow.flo"),
        ("kitti/frame1.png", "kitti/frame2.png", "kitti/flow_occ.png"),
        ("middlebury/Grove2/frame10.png", "middlebury/Grove2/frame11.png", "middlebury/Grove2/flow10.flo"),
        ("middlebury/Venus/frame10.png", "middlebury/Venus/frame11.png", "middlebury/Venus/flow10.flo"),
        *([("own/shot9.png", "own/shot10.png")] if unlabelled else []),
    ]
    for k, (img1, img2, *labels) in enumerate(files):
        writer.picture(root / img1, 2 * k)
        writer.picture(root / img2, 2 * k + 1)
        for name in labels:
            writer.label(root / name, k)
    writer.label(root / "kitti" / "flow_noc.png", 2, holes(size))
    return root
