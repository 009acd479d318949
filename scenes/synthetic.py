"""The synthetic set: image pairs with exact flow, made on the fly."""

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.sample import Sample
from maskflownet.scenes.draw import MIN_SIDE, SceneOptions, draw
from maskflownet.scenes.textures import Textures


class Scene(NamedTuple):
    """One scene on the host."""

    img1: np.ndarray  # (H, W, 3) uint8 RGB
    img2: np.ndarray
    flow: np.ndarray  # (H, W, 2) float32, px, (u, v)
    occlusion: np.ndarray  # (H, W, 1) uint8, 255 = not visible in image 2


class Synthetic:
    """Scenes 0 .. length - 1 of a seed, rendered on the CPU when asked for and not kept.

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
        """Render a pair; its label is valid everywhere, occluded pixels included."""
        scene = self.scene(index)
        return Sample(scene.img1, scene.img2, scene.flow, None, f"synthetic_{self.seed}/{index % self.length:05d}")

    def scene(self, index: int) -> Scene:
        """Render a pair with its occlusion mask; IndexError if there is no such pair."""
        if not -self.length <= index < self.length:
            raise IndexError(f"pair {index} of a synthetic set of {self.length}")
        from maskflownet.scenes.render import render  # noqa: PLC0415 - PyTorch, which configs are read without

        bank = self.textures.bank()
        scenes = render(draw(bank, self.seed, [index % self.length], self.size, self.options), bank.texels)
        img1, img2, flow, occlusion = (values[0].numpy() for values in scenes)
        return Scene(img1, img2, flow, occlusion[..., None] * np.uint8(255))

    def occlusion(self, index: int) -> np.ndarray:
        """(H, W, 1) uint8, 255 = not visible in image 2."""
        return self.scene(index).occlusion

    def noc(self, index: int) -> None:
        """None: there is no second label; `occlusion` tells the same."""

    def record(self) -> dict:
        """Everything that decides what a pair looks like, for a JSON file; not the length."""
        return {
            "size": [*self.size],
            "seed": self.seed,
            "textures": [p.name for p in self.textures.photographs + self.textures.cutouts],
            "options": asdict(self.options),
        }
