"""The golden files: values of the released implementation, and what is needed to compute them."""

import json
from functools import cache

import numpy as np

from tests.golden.weights import image_pair, parameter

BOUND = 1e-4  # largest difference relative to the entry's largest value


class Golden:
    """Golden arrays, parameters and image pairs of a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.shapes = json.loads((folder / "parameters.json").read_text())

    def arrays(self, name: str):
        return np.load(self.folder / f"{name}.npz")

    def check(self, file: str, entry: str, value) -> None:
        """Compare a value with a golden entry."""
        error = relative_error(value, self.arrays(file)[entry])
        assert error < BOUND, f"{file}/{entry} is off by {error:.1e} of its largest value"

    @cache  # noqa: B019 - there is one Golden
    def parameters(self, network: str) -> dict[str, np.ndarray]:
        shapes = self.shapes[network].items()
        return {name: parameter(name, tuple(shape)) for name, shape in shapes}

    def pairs(self, height: int, width: int, seeds) -> list[np.ndarray]:
        """Images 1 and images 2 of the pairs of some seeds, (N, H, W, 3) uint8 each."""
        pairs = [image_pair(height, width, seed) for seed in seeds]
        return [np.stack(images) for images in zip(*pairs)]

    def inputs(self) -> list[np.ndarray]:
        """(2, 3, 64, 128) float32 twice: images minus the mean of both."""
        images = [image.transpose(0, 3, 1, 2) / np.float32(255) for image in self.pairs(64, 128, (10, 11))]
        mean = np.concatenate(images, 2).mean((2, 3), np.float64, keepdims=True)
        return [(image - mean).astype(np.float32) for image in images]


def relative_error(value, expected) -> float:
    """Largest difference relative to the largest expected value."""
    value = value.asnumpy() if hasattr(value, "asnumpy") else np.asarray(value)
    expected = np.asarray(expected)
    assert value.shape == expected.shape, (value.shape, expected.shape)
    return float(np.abs(value - expected.astype(np.float64)).max() / np.abs(expected).max())
