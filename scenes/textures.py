"""Pictures that the synthetic scenes are made of: photographs and cut-outs."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from maskflownet.errors import DataError
from maskflownet.reader.formats import PICTURE_SUFFIXES
from PIL import Image

# Inside every scikit-image wheel since 0.18, so that nothing is ever downloaded. Left out: pictures
# without texture (phantom, horse, clock_motion, ...) and the second view of the motorcycle.
BUNDLED = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
MAX_SIDE = 768  # px; larger pictures are reduced, a scene shows them at about that size
MAX_CACHED = 512  # pictures in memory, at most 1.2 GB of photographs of the largest size
MIN_SIDE = 16  # px; the coarsest pyramid level and the smallest usable picture


def bundled_folder() -> Path:
    """Folder of the pictures inside the installed scikit-image, found without importing it."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "scikit-image, whose pictures are the default textures, is not installed: "
            "pip install scikit-image, or name a folder of pictures with --textures"
        )
    return Path(list(spec.submodule_search_locations)[0]) / "data"


class Textures:
    """Photographs and cut-outs, decoded when first used; at most `MAX_CACHED` stay in memory.

    Parameters
    ----------
    folder : str or Path, optional
        Searched recursively. Pictures with an alpha channel are cut-outs, all others photographs.
        Default: the pictures that scikit-image ships, all of them photographs.

    Attributes
    ----------
    photographs, cutouts : list of Path
        Sorted, so that an index means the same picture on every machine.

    Raises
    ------
    DataError
        If there is no such folder, no photograph in it, or a file is not a picture.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.photographs: list[Path] = []
        self.cutouts: list[Path] = []
        if folder is None:
            root = bundled_folder()
            self.photographs = [root / name for name in BUNDLED]
            missing = [path for path in self.photographs if not path.is_file()]
            if missing:
                raise DataError(f"{missing[0]}: missing in this scikit-image, 0.18 or later has it")
            return
        root = Path(folder)
        if not root.is_dir():
            raise DataError(f"{root}: no such folder of textures")
        paths = [p for p in root.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()]
        for path in sorted(paths, key=lambda p: p.relative_to(root).as_posix()):
            (self.cutouts if _has_alpha(path) else self.photographs).append(path)
        if not self.photographs:
            raise DataError(f"{root}: no photograph (a picture without alpha) for a background")

    def photograph(self, index: int) -> tuple[np.ndarray, ...]:
        """Pyramid of a photograph: (h, w, 3) uint8 RGB, then each level half the size."""
        return _pyramid(str(self.photographs[index]), False)

    def cutout(self, index: int) -> tuple[np.ndarray, ...]:
        """Pyramid of a cut-out: (h, w, 4) uint8 RGBA, colour continued where it is transparent."""
        return _pyramid(str(self.cutouts[index]), True)


def _has_alpha(path: Path) -> bool:
    try:
        with Image.open(path) as picture:  # reads the header only
            return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"cannot read {path}: it is damaged or not a picture ({error})") from error


@lru_cache(maxsize=MAX_CACHED)
def _pyramid(path: str, alpha: bool) -> tuple[np.ndarray, ...]:
    picture = _decode(path, alpha)
    if min(picture.shape[:2]) < MIN_SIDE:
        raise DataError(f"{path}: smaller than {MIN_SIDE} px, too small for a texture")
    reduction = max(picture.shape[:2]) / MAX_SIDE
    if reduction > 1:
        size = tuple(max(1, round(side / reduction)) for side in picture.shape[1::-1])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    levels = [picture]
    while min(levels[-1].shape[:2]) >= 2 * MIN_SIDE:
        size = tuple(side // 2 for side in levels[-1].shape[1::-1])
        levels.append(cv2.resize(levels[-1], size, interpolation=cv2.INTER_AREA))
    for level in levels:
        level.flags.writeable = False  # shared by all scenes
    return tuple(levels)


def _decode(path: str, alpha: bool) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith("I"):  # 16 bit grey, which Pillow would clip at 255
                grey = np.rint(np.asarray(picture).clip(0, 65535) / 257).astype(np.uint8)
                return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
            pixels = np.array(picture.convert("RGBA" if alpha else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"cannot read {path}: it is damaged or not a picture ({error})") from error
    return _continue_colour(path, pixels) if alpha else pixels


def _continue_colour(path: str, pixels: np.ndarray) -> np.ndarray:
    """Give transparent pixels the nearest opaque colour, which soft edges are mixed with."""
    opaque = pixels[..., 3] >= 128
    if not opaque.any():
        raise DataError(f"{path}: a cut-out without one opaque pixel")
    holes = np.where(opaque, 0, 255).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(holes, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = np.zeros(labels.max() + 1, np.int64)
    nearest[labels[opaque]] = np.flatnonzero(opaque)
    pixels[..., :3] = pixels[..., :3].reshape(-1, 3)[nearest[labels]]
    return pixels
