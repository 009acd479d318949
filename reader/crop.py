"""Random crops and flips of a sample."""

from __future__ import annotations

import cv2
import numpy as np

from reader.errors import DataError
from reader.sample import Sample


def random_crop(sample: Sample, height: int, width: int, rng: np.random.Generator) -> Sample:
    """Cut a window out of a sample, every position being equally likely.

    Parameters
    ----------
    sample : Sample
        At least as large as the window.
    height, width : int
        The window's size in px.
    rng : np.random.Generator
        Where the position comes from: two draws, first the row.

    Returns
    -------
    Sample
        Views into the arrays of the given one.

    Raises
    ------
    DataError
        The sample is smaller than the window.
    """
    rows, columns = sample.img1.shape[:2]
    if rows < height or columns < width:
        raise DataError(
            f"{sample.name} is {rows}x{columns} (HxW), too small for a crop of {height}x{width}"
        )
    top = int(rng.integers(rows - height + 1))
    left = int(rng.integers(columns - width + 1))
    return _apply(sample, lambda array: array[top : top + height, left : left + width])


def random_flip(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirror a sample left to right with probability 1/2, which negates u.

    Parameters
    ----------
    sample : Sample
        Of any size.
    rng : np.random.Generator
        Where the decision comes from: one draw.

    Returns
    -------
    Sample
        The sample itself or its mirror image.
    """
    if rng.random() >= 0.5:
        return sample
    mirrored = _apply(sample, lambda array: cv2.flip(array, 1).reshape(array.shape))
    if mirrored.flow is not None:
        mirrored.flow[..., 0] *= -1  # cv2.flip made it a copy
    return mirrored


def _apply(sample: Sample, change) -> Sample:
    arrays = (None if array is None else change(array) for array in sample[:4])
    return Sample(*arrays, sample.name)
