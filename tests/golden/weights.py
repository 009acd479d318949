"""Deterministic parameters and inputs for the golden files.

Every array is a function of its name and shape alone, so that a 42 MB or 82 MB
checkpoint need not be stored to be compared against.
"""

import zlib

import numpy as np


def parameter(name, shape):
    """The float32 array of the parameter `name` (structural name, as in a .params file).

    Weights are MSRA-scaled normals (gain for a leaky slope of 0.1), biases small normals.
    """
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    values = rng.standard_normal(shape)
    if len(shape) == 4:
        fan_in = shape[1] * shape[2] * shape[3]
        return (values * np.sqrt(2.0 / (1.01 * fan_in))).astype(np.float32)
    return (values * 0.01).astype(np.float32)


def image_pair(height, width, seed):
    """Two uint8 RGB images (height, width, 3): smooth noise, the second one moved by (5, 2) px."""
    rng = np.random.RandomState(seed)
    canvas = rng.standard_normal((height + 16, width + 16, 3))
    for axis in (0, 1):
        for _ in range(3):  # three box blurs of 5 px
            canvas = sum(np.roll(canvas, shift, axis) for shift in range(-2, 3)) / 5
    canvas = canvas / np.abs(canvas).max()
    canvas = (127.5 + 127.5 * canvas).astype(np.uint8)
    first = canvas[8 : 8 + height, 8 : 8 + width]
    second = canvas[6 : 6 + height, 3 : 3 + width]
    return np.ascontiguousarray(first), np.ascontiguousarray(second)
