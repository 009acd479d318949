"""Synthetic scenes with exact flow: layered photographs that move and deform."""

from __future__ import annotations

import numpy as np
from maskflownet.scenes.draw import draw_layers
from maskflownet.scenes.layers import Composition, compose
from maskflownet.scenes.options import SceneOptions
from maskflownet.scenes.photometry import expose
from maskflownet.scenes.textures import Textures

MIN_SIDE = 16  # px
Scene = Composition


def render_scene(
    textures: Textures, seed: int, index: int, height: int, width: int, options: SceneOptions | None = None
) -> Scene:
    """Render scene `index` of the set `seed`.

    The same arguments give the same bytes, in whatever order, process or thread they are asked
    for. Motions and objects grow with the square root of the picture's area. The label is exact to
    `maskflownet.scenes.motion.ACCURACY` px; OpenCV before version 5 samples pictures at 1/32 px.

    Parameters
    ----------
    textures : Textures
    seed, index : int
        Not negative.
    height, width : int
        px, at least 16.
    options : SceneOptions, optional
        The difficulty.

    Returns
    -------
    Scene
        img1, img2 (H, W, 3) uint8 RGB; flow (H, W, 2) float32, px, (u, v); occlusion (H, W, 1)
        uint8, 255 = not visible in frame 2.

    Raises
    ------
    DataError
        If a texture cannot be read.
    ValueError
        If the size is below 16 px or a number is negative.
    """
    check_arguments(seed, index, height, width)
    options = options or SceneOptions()
    rng = np.random.default_rng([seed, index])
    scene = compose(draw_layers(textures, rng, height, width, options), height, width)
    img1, img2 = expose(rng, (scene.img1, scene.img2), options)
    return scene._replace(img1=img1, img2=img2)


def check_arguments(seed: int, index: int, height: int, width: int) -> None:
    """Raise ValueError where `render_scene` would, before anything is rendered."""
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"a scene of {height}x{width} px is smaller than {MIN_SIDE} px")
    if seed < 0 or index < 0:
        raise ValueError(f"seed {seed} and index {index} of a scene must not be negative")
