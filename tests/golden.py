"""The golden files: values of the released implementation, and what is needed to compute them."""

from __future__ import annotations

import importlib.util
import json

import numpy as np

BOUND = 1e-4  # largest difference relative to the entry's largest value


class Golden:
    """Golden arrays, parameters and image pairs of a folder."""

    def __init__(self, folder):
        self.folder = folder
        spec = importlib.util.spec_from_file_location("golden_weights", folder / "weights.py")
        weights = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(weights)
        self.image_pair = weights.image_pair
        self._parameter = weights.parameter
        self.shapes = json.loads((folder / "parameters.json").read_text())

    def arrays(self, name: str):
        return np.load(self.folder / f"{name}.npz")

    def parameters(self, network: str) -> dict[str, np.ndarray]:
        shapes = self.shapes[network].items()
        return {name: self._parameter(name, tuple(shape)) for name, shape in shapes}

    def pairs(self, height: int, width: int, seeds) -> list[np.ndarray]:
        """Images 1 and images 2 of the pairs of some seeds, (N, H, W, 3) uint8 each."""
        pairs = [self.image_pair(height, width, seed) for seed in seeds]
        return [np.stack(images) for images in zip(*pairs)]


def relative_error(value, expected) -> float:
    """Largest difference relative to the largest expected value."""
    value = value.asnumpy() if hasattr(value, "asnumpy") else np.asarray(value)
    expected = np.asarray(expected)
    assert value.shape == expected.shape, (value.shape, expected.shape)
    return float(np.abs(value - expected.astype(np.float64)).max() / np.abs(expected).max())
