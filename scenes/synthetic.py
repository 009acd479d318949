"""The synthetic set: image pairs with exact flow, made on the fly, and the pictures that they are made of."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.files import check_pixels, walk
from maskflownet.reader.formats import is_picture, sample_range, to_8bit
from maskflownet.reader.sample import Labelled, Sample
from maskflownet.scenes.draw import MIN_SIDE, SceneOptions, draw
from PIL import Image

# Inside every scikit-image wheel since 0.18, so that nothing is downloaded. Left out: pictures without
# texture (phantom, horse, clock_motion, ...) and the second view of the motorcycle.
BUNDLED = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png"),
    *("retina.jpg", "rocket.jpg", "text.png"),
)
PHOTOGRAPH_SIDES = (640, 860)  # px, short and long side at most: what a scene of 448x576 shows
CUTOUT_SIDE = 256  # px, the long side at most
PICTURE_MIN_SIDE = 16  # px
LEVELS = 5  # of a picture's pyramid, each half the size of the one before
BANK_BYTES = 2**31  # about 690 photographs of the largest size


class Synthetic:
    """Scenes 0 .. length - 1 of a seed, rendered on the CPU when asked for.

    Scene i of a seed is always the same scene; a larger set begins with the same pairs. `textures` is a folder of
    pictures; without one those that scikit-image ships are taken.

    UserError: the set is empty, the textures cannot be used, the seed is negative, the size below 16 px, or PyTorch is
    missing.
    """

    def __init__(
        self,
        length: int,
        height: int = 320,
        width: int = 448,
        seed: int = 0,
        textures: str | Path | None = None,
        options: SceneOptions | None = None,
    ) -> None:
        if length < 1:
            raise UserError(f"a synthetic set of {length} pairs is empty")
        if min(height, width) < MIN_SIDE:
            raise UserError(f"a scene of {height}x{width} px is smaller than {MIN_SIDE} px")
        if not 0 <= seed < 2**63:
            raise UserError(f"the seed of synthetic scenes is {seed}, it must be between 0 and 2^63")
        if importlib.util.find_spec("torch") is None:
            raise UserError("synthetic scenes need PyTorch, which is not installed: pip install torch")
        self.length, self.size, self.seed = length, (height, width), seed
        self.textures = Textures(textures)
        self.options = options or SceneOptions()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        return self.labelled(index).sample

    def labelled(self, index: int) -> Labelled:
        """Render a pair, whose label is valid everywhere, occluded pixels included; IndexError if there is none.

        PyTorch has one thread meanwhile. So do not call this from several threads.
        """
        if not -self.length <= index < self.length:
            raise IndexError(f"pair {index} of a synthetic set of {self.length}")
        import torch  # noqa: PLC0415 - which configs are read without
        from maskflownet.scenes.render import render  # noqa: PLC0415

        bank, threads = self.textures.bank(), torch.get_num_threads()
        torch.set_num_threads(1)  # of small steps: several threads would mostly wait, on a busy machine for each other
        try:
            scenes = render(draw(bank, self.seed, [index % self.length], self.size, self.options), bank.texels)
        finally:
            torch.set_num_threads(threads)
        *arrays, occlusion = (values[0].numpy() for values in scenes)
        valid = np.full((*self.size, 1), 255, np.uint8)
        sample = Sample(*arrays, valid, f"synthetic_{self.seed}/{index % self.length:05d}")
        return Labelled(sample, occlusion[..., None] * np.uint8(255))

    def record(self) -> dict:
        """Everything that decides what a pair looks like, for a JSON file; not the length."""
        return {
            "size": [*self.size],
            "seed": self.seed,
            "textures": [p.name for p in self.textures.photographs + self.textures.cutouts],
            "options": asdict(self.options),
        }


class Bank(NamedTuple):
    """Pyramids of all pictures, one after the other; photographs first.

    A texel is an int32, R + 256 G + 65536 B + 2^24 A, so that one gather reads four channels.
    """

    texels: np.ndarray  # (n,) int32
    first: np.ndarray  # (P, LEVELS) int64, index of a level's first texel
    sides: np.ndarray  # (P, LEVELS, 2) int64, width and height; a small picture repeats its last level
    mean: np.ndarray  # (P, 3) float64, mean colour where opaque, 0 .. 255
    photographs: int  # how many of the P pictures are photographs


class Textures:
    """The pictures below a folder, by default scikit-image's: those with an alpha channel are cut-outs.

    `photographs` and `cutouts` are sorted paths, so that an index means the same picture on every machine. UserError:
    no such folder, no photograph in it, or a file is not a picture.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.photographs: list[Path] = []
        self.cutouts: list[Path] = []
        root = _bundled_folder() if folder is None else Path(folder)
        if not root.is_dir():
            raise UserError(f"{root}: no such folder of textures")
        files = (Path(folder, name) for folder, _, names in walk(root) for name in names)
        paths = [path for path in files if is_picture(path) and path.is_file()]
        if folder is None:
            paths = [root / name for name in BUNDLED]
        for path in sorted(paths, key=lambda p: p.relative_to(root).as_posix()):
            (self.cutouts if _has_alpha(path) else self.photographs).append(path)
        if not self.photographs:
            raise UserError(f"{root}: no photograph (a picture without alpha) for a background")

    def bank(self) -> Bank:
        """Decode all pictures, once per process. Beyond `BANK_BYTES` some are left out, with a warning."""
        return _bank(tuple(self.photographs), tuple(self.cutouts))


def _bundled_folder() -> Path:
    spec = importlib.util.find_spec("skimage")  # not imported
    if spec is None:
        raise UserError(
            "the default textures are scikit-image's: pip install scikit-image, or name a folder of pictures"
        )
    return Path(spec.origin).parent / "data"


@lru_cache(maxsize=4)
def _bank(photographs: tuple[Path, ...], cutouts: tuple[Path, ...]) -> Bank:
    pyramids, room = {}, BANK_BYTES // 4  # bytes of a texel
    for path in (*cutouts, *photographs):  # cut-outs first: they are small
        pyramid = _pyramid(path, path in cutouts)
        size = sum(level.shape[0] * level.shape[1] for level in pyramid)
        if size <= room:
            pyramids[path], room = pyramid, room - size
    left_out = len(photographs) + len(cutouts) - len(pyramids)
    if left_out:
        warnings.warn(f"{left_out} of {left_out + len(pyramids)} textures are left out: the bank is full", stacklevel=3)
    kept = [pyramids[path] for path in (*photographs, *cutouts) if path in pyramids]
    texels = [level.reshape(-1, 4).view(np.int32)[:, 0] for pyramid in kept for level in pyramid]
    return Bank(
        np.concatenate(texels),
        np.cumsum([0, *(level.size for level in texels[:-1])]).reshape(-1, LEVELS),
        np.array([[level.shape[1::-1] for level in pyramid] for pyramid in kept]),
        np.array([cv2.mean(pyramid[0], pyramid[0][..., 3].copy())[:3] for pyramid in kept]),
        sum(path in pyramids for path in photographs),
    )


def _pyramid(path: Path, cutout: bool) -> list[np.ndarray]:
    """`LEVELS` pictures (h, w, 4) uint8 RGBA; a cut-out's has a transparent border of one texel."""
    picture = _decode(path)
    if cutout:
        _continue_colour(path, picture)
    short, long = sorted(picture.shape[:2])
    if short < PICTURE_MIN_SIDE:
        raise UserError(f"{path}: smaller than {PICTURE_MIN_SIDE} px, too small for a texture")
    reduction = long / CUTOUT_SIDE if cutout else max(short / PHOTOGRAPH_SIDES[0], long / PHOTOGRAPH_SIDES[1])
    levels = []
    for number in range(LEVELS):
        width, height = (max(1, round(side / max(reduction, 1) / 2**number)) for side in picture.shape[1::-1])
        if min(width, height) < PICTURE_MIN_SIDE // 2:
            levels.append(levels[-1])
            continue
        level = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        if cutout:
            level = cv2.copyMakeBorder(level, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
            level[[0, -1], :, 3] = level[:, [0, -1], 3] = 0
        levels.append(level)
    return levels


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:  # reads the header only
            check_pixels(path, picture.width * picture.height)
            yield picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read {path}: it is damaged or not a picture ({error})") from error


def _has_alpha(path: Path) -> bool:
    with _opened(path) as picture:
        return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info


def _decode(path: Path) -> np.ndarray:
    """(h, w, 4) uint8 RGBA."""
    with _opened(path) as picture:
        if picture.mode.startswith("I"):  # 16 bit grey, which Pillow would clip at 255
            grey = np.asarray(picture).clip(0, 65535).astype(np.uint16)
            return cv2.cvtColor(to_8bit(grey, sample_range([grey])), cv2.COLOR_GRAY2RGBA)
        picture.draft("RGB", PHOTOGRAPH_SIDES[::-1])  # a JPEG much too large is decoded at half the size
        return np.array(picture.convert("RGBA"))


def _continue_colour(path: Path, pixels: np.ndarray) -> None:
    """Give transparent pixels the nearest opaque colour, which soft edges are mixed with."""
    opaque = pixels[..., 3] >= 128
    if not opaque.any():
        raise UserError(f"{path}: a cut-out without one opaque pixel")
    holes = np.where(opaque, 0, 255).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(holes, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = np.zeros(labels.max() + 1, np.int64)
    nearest[labels[opaque]] = np.flatnonzero(opaque)
    pixels[..., :3] = pixels[..., :3].reshape(-1, 3)[nearest[labels]]
