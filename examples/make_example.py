"""Render the example pair again: ``python examples/make_example.py [FOLDER]``.

Six layers placed by hand, from six of the public-domain pictures that scikit-image ships.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from any folder

from maskflownet.reader.formats import write_image, write_kitti_png  # noqa: E402
from maskflownet.scenes.layers import Composition, Layer, compose  # noqa: E402
from maskflownet.scenes.motion import Motion  # noqa: E402
from maskflownet.scenes.photometry import Tone, table  # noqa: E402
from maskflownet.scenes.textures import BUNDLED, Textures  # noqa: E402

SIZE = (384, 512)  # px, (H, W)

# Outlines in px of the bundled pictures.
ASTRONAUT = """22,511 24,420 40,300 58,250 112,212 110,178 130,158 178,150 160,122 154,90 164,48
190,22 225,14 262,26 290,55 300,85 292,120 264,145 258,172 292,200 306,240 340,266 360,345
400,344 448,360 484,400 500,460 508,511"""
ROCKET = "322,126 331,140 335,165 335,404 307,404 307,165 313,140"


def polygon(text: str) -> list[np.ndarray]:
    return [np.array([[float(n) for n in pair.split(",")] for pair in text.split()])]


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)[:, None]
    return np.hstack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)])


def cut(picture: np.ndarray, outlines: list[np.ndarray], scale: float, hole: np.ndarray | None = None) -> np.ndarray:
    """(h, w, 4) RGBA: what any outline holds but the hole, reduced, with a transparent border."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    for outline in outlines:
        cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    if hole is not None:
        cv2.fillPoly(mask, [np.rint(hole * 16).astype(np.int32)], 0, cv2.LINE_AA, 4)
    x, y, w, h = cv2.boundingRect(mask)
    texture = cv2.merge([*cv2.split(picture), mask])[y : y + h, x : x + w]
    size = (round(w * scale), round(h * scale))
    texture = cv2.resize(texture, size, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(texture, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))


def rotation(degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def layer(
    texture: np.ndarray,
    centre: tuple[float, float],
    shift: tuple[float, float],
    placed: float = 0.0,
    turn: float = 0.0,
    zoom: float = 1.0,
    bend: tuple[float, float] = (0.0, 0.0),
    wavelength: float = 200.0,
    tone: Tone | None = None,
) -> Layer:
    """Put a texture's middle at `centre` px, turned by `placed` degrees.

    Between the frames it moves by `shift` px, turns by `turn` degrees, grows by `zoom` and waves by
    `bend` px along a diagonal of that wavelength.
    """
    middle = np.array([texture.shape[1] - 1, texture.shape[0] - 1]) / 2
    placement = np.column_stack([rotation(placed), centre - rotation(placed) @ middle])
    wave = np.full((1, 2), np.sqrt(2) * np.pi / wavelength)
    motion = Motion(rotation(turn) * zoom, np.zeros(2), np.array([bend]), wave, -wave @ centre)
    motion = motion._replace(offset=np.add(centre, shift) - motion.forward(np.array(centre)))
    return Layer(texture, placement, motion, None if tone is None else table(tone.curve()))


def scene() -> Composition:
    """Render the pair."""
    textures = Textures()
    picture = {name: textures.photograph(i)[0] for i, name in enumerate(BUNDLED)}
    bricks = picture["brick.png"]
    saucer = [ellipse(277, 228, 199, 159), ellipse(289, 112, 116, 92)]
    cat = [ellipse(228, 152, 160, 140)]
    ring, hole = [ellipse(256, 256, 200, 200)], ellipse(256, 256, 172, 172)
    layers = [
        layer(
            bricks, (256, 192), (4, 2.5), turn=0.3, zoom=1.005, bend=(0.8, -0.8), wavelength=400,
            tone=Tone(contrast=0.8, brightness=0.06, gains=(1.12, 0.84, 0.72)),
        ),
        layer(
            cut(picture["gravel.png"], ring, 0.5, hole), (404, 96), (-11, 9), zoom=1.05,
            tone=Tone(contrast=0.8, brightness=0.12, gains=(0.75, 0.95, 1.1)),
        ),
        layer(cut(picture["coffee.png"], saucer, 0.42), (400, 98), (-17, 7), placed=-8, turn=-5),
        layer(
            cut(picture["chelsea.png"], cat, 0.5), (404, 284), (9, -12), turn=3, bend=(1.5, 2.5),
            wavelength=130,
        ),
        layer(
            cut(picture["astronaut.png"], polygon(ASTRONAUT), 0.56), (172, 250), (8, 1),
            zoom=1.02, bend=(2.0, 1.0), wavelength=260,
        ),
        layer(cut(picture["rocket.jpg"], polygon(ROCKET), 0.8), (262, 190), (7, -23), placed=14),
    ]  # fmt: skip
    return compose(layers, *SIZE)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    made = scene()
    write_image(folder / "example_1.png", made.img1)
    write_image(folder / "example_2.png", made.img2)
    write_kitti_png(folder / "example_flow.png", made.flow)
    write_image(folder / "example_occlusion.png", made.occlusion)


if __name__ == "__main__":
    main()
