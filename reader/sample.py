"""What every data set yields: one image pair with its label. Cropping, flipping and resizing it."""

from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.errors import UserError

# The nearest of the four pixels that bilinear interpolation joins never weighs less than 1/4. With
# this threshold a pixel whose nearest label is valid stays valid, and labels hardly spread further.
LEAST_WEIGHT = 0.25


class Sample(NamedTuple):
    """One image pair."""

    img1: np.ndarray  # (H, W, 3) uint8, RGB
    img2: np.ndarray
    flow: np.ndarray | None  # (H, W, 2) float32, px, (u, v) from img1 to img2; None = no label
    mask: np.ndarray | None  # (H, W, 1) uint8, 255 = the flow is valid; None = no label
    name: str  # for instance clean/alley_1/frame_0001
    # A label with k x k values in each pixel (Spring), (kH, kW, 2) px of img1, and its mask (kH, kW, 1); flow has the
    # upper left of them. It does not outlast a crop, a flip or a change of size.
    fine: tuple[np.ndarray, np.ndarray] | None = None


class Labelled(NamedTuple):
    """A sample whose flow is to be measured; None where its data set has no such array."""

    sample: Sample
    occlusion: np.ndarray | None = None  # (H, W, 1) uint8, above 0 = not visible in image 2
    noc: np.ndarray | None = None  # (H, W, 1) uint8, above 0 = valid and visible in image 2


def random_crop(sample: Sample, height: int, width: int, rng: np.random.Generator) -> Sample:
    """Cut a window out of a labelled sample, every position being equally likely: two draws, first the row.

    Returns views into the sample's arrays; a UserError where the sample is smaller than the window.
    """
    rows, columns = sample.img1.shape[:2]
    if rows < height or columns < width:
        raise UserError(f"{sample.name} is {rows}x{columns} (HxW), too small for a crop of {height}x{width}")
    top = int(rng.integers(rows - height + 1))
    left = int(rng.integers(columns - width + 1))
    return _apply(sample, lambda array: array[top : top + height, left : left + width])


def random_flip(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirror a labelled sample left to right with probability 1/2 (one draw), which negates u."""
    if rng.random() >= 0.5:
        return sample
    mirrored = _apply(sample, lambda array: cv2.flip(array, 1).reshape(array.shape))  # cv2 drops a last axis of 1
    mirrored.flow[..., 0] *= -1  # cv2.flip made it a copy
    return mirrored


def _apply(sample: Sample, change) -> Sample:
    return Sample(*map(change, sample[:4]), sample.name)


def resize_flow(flow: np.ndarray, valid: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Resize a flow field to (height, width, 2), reading its valid pixels only.

    The label is sum(valid x flow) / sum(valid) over the four pixels that bilinear interpolation
    joins (pixel centres at half-integers); u is scaled with the width's ratio, v with the height's.
    `valid` is (H, W, 1), above 0 = valid. Where it is 0 the flow may be anything, even NaN.

    In the result a pixel is valid (255, else 0) where valid pixels have at least a quarter of the
    weight; elsewhere its flow is 0.
    """
    ratio = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)  # (u, v)
    valid = valid > 0  # (H, W, 1)
    total = _linear(np.where(valid, flow, np.float32(0)), height, width)  # (height, width, 2)
    weight = _linear(valid.astype(np.float32), height, width)[..., None]  # (height, width, 1)
    keep = weight >= LEAST_WEIGHT - 1e-4
    flow = np.where(keep, total / np.where(keep, weight, 1), 0) * ratio
    return flow.astype(np.float32), np.where(keep, 255, 0).astype(np.uint8)


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a picture: by area along an axis that shrinks, bilinearly along one that grows."""
    small = (min(height, image.shape[0]), min(width, image.shape[1]))
    if small != image.shape[:2]:
        image = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)
    return image if small == (height, width) else _linear(image, height, width)


def resize_sample(sample: Sample, height: int, width: int) -> Sample:
    """Resize pictures, label and mask of a labelled sample; itself where it has the size already."""
    if sample.img1.shape[:2] == (height, width):
        return sample
    img1, img2 = (resize_image(image, height, width) for image in (sample.img1, sample.img2))
    return Sample(img1, img2, *resize_flow(sample.flow, sample.mask, height, width), sample.name)


def _linear(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H, W, C) or (H, W, 1) bilinearly; OpenCV drops a last axis of 1."""
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)
