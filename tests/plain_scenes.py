"""Synthetic scenes without blur, noise and changes of light, and textures that suit them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from maskflownet.scenes.options import SceneOptions
from maskflownet.scenes.textures import Textures

CLEAN = SceneOptions(photometric=0, noise=0, defocus_share=0, motion_blur_share=0, fog_share=0, min_objects=3)
# Options under which objects move by other rules than usual.
SPECIAL = [{}, {"travel_share": 1}, {"dart_share": 1}, {"travel_share": 1, "dart_share": 1}, {"vehicle_share": 1}]


def smooth_textures(folder: Path) -> Textures:
    """Photographs that bilinear sampling reproduces almost without error, and one cut-out."""
    rng = np.random.default_rng(0)
    for number in range(3):
        coarse = rng.integers(0, 256, (14, 18, 3), np.uint8)
        picture = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.GaussianBlur(picture, (0, 0), 6))
    disc = cv2.circle(np.zeros((480, 640), np.uint8), (320, 240), 200, 255, -1, cv2.LINE_AA)
    cv2.imwrite(str(folder / "cut.png"), np.dstack([picture, disc]))
    return Textures(folder)
