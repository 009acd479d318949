"""What every data set yields: one image pair with its label."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Sample(NamedTuple):
    """One image pair.

    Attributes
    ----------
    img1, img2 : np.ndarray
        (H, W, 3) uint8, RGB.
    flow : np.ndarray or None
        (H, W, 2) float32, px, (u, v) from ``img1`` to ``img2``; ``None`` where there is no label.
    mask : np.ndarray or None
        (H, W, 1) uint8, 255 = the flow is valid; ``None`` = valid everywhere.
    name : str
        Identifies the pair, for instance ``clean/alley_1/frame_0001``.
    """

    img1: np.ndarray
    img2: np.ndarray
    flow: np.ndarray | None
    mask: np.ndarray | None
    name: str
