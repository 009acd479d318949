"""What the augmentation draws, and from what: the same numbers for every engine.

Everything random of the augmentation is drawn here by NumPy, on the host. The blocks of
`maskflownet.network.augmentation` get one row of float32 parameters per sample, and the pixels' noise. The draws of a
step follow from the run's seed and the step, so a resumed run needs no state. Only the torch engine on GPUs draws the
pixels' noise itself. `ranges` are those of a dataset config, `maskflownet.settings.configs.AugmentationRanges`. This
module does not import MXNet.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Shape = tuple[int, int]  # (H, W)

# Columns [begin, end) of the parameter rows. Matrices are stored column by column, save the three
# 2x3 affine maps, which are row by row as MXNet's GridGenerator reads them.
GEOMETRY_COLUMNS = {"grid1": (0, 6), "grid2": (6, 12), "windows": (12, 18), "flow": (18, 22)}
COLOUR_COLUMNS = {
    "hue": (0, 9),
    "noise": (9, 10),
    "scale": (10, 13),
    "mean": (13, 16),
    "brightness": (16, 17),
    "gamma": (17, 18),
}


class Windows(NamedTuple):
    """Where the samples of a batch are taken, float64, (x, y) order, px about the centres.

    Target offset d lies at ``t + A d`` in image 1 and at ``t + A B d + r`` in image 2.
    """

    A: np.ndarray  # (N, 2, 2)
    t: np.ndarray  # (N, 2)
    B: np.ndarray  # (N, 2, 2)
    r: np.ndarray  # (N, 2)


def _rotation(angle: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)  # (N, 2, 2)


def draw_windows(rng: np.random.Generator, batch: int, original: Shape, target: Shape, ranges) -> Windows:
    """Draw the affine windows of a batch; every position read in image 1 lies inside the picture.

    `rng` is advanced by the same number of draws whatever the ranges are.
    """
    size_o, size_t = (np.array(shape[::-1], float) for shape in (original, target))  # (W, H)

    def uniform(low: float, high: float, *axes: int) -> np.ndarray:
        return rng.uniform(low, high, (batch, *axes))

    theta = np.deg2rad(uniform(-ranges.rotation, ranges.rotation))
    zoom, aspect = uniform(*ranges.zoom), uniform(*ranges.aspect)
    anchor, shift = uniform(-0.5, 0.5, 2), uniform(-ranges.translation, ranges.translation, 2)
    angle = np.deg2rad(uniform(-ranges.relative_rotation, ranges.relative_rotation))
    factor = uniform(*ranges.relative_scale)
    relative = uniform(-ranges.relative_translation, ranges.relative_translation, 2)

    cos, sin = np.abs(np.cos(theta)), np.abs(np.sin(theta))
    wide, high = size_t - 1
    extent = np.stack([aspect * (wide * cos + high * sin), high * cos + wide * sin], -1)  # (N, 2)
    scale = np.minimum(zoom, ((size_o - 1) / extent).min(-1))[:, None]  # (N, 1)
    stretch = scale * np.stack([aspect, np.ones(batch)], -1)  # (N, 2)

    # Anywhere the window fits, then up to `translation` beyond, clipped to the picture.
    position = anchor * np.maximum(size_o - scale * size_t, 0) + shift * size_o
    room = np.maximum(size_o - 1 - scale * extent, 0) / 2
    return Windows(
        A=stretch[:, :, None] * _rotation(theta),
        t=np.clip(position, -room, room),
        B=factor[:, None, None] * _rotation(angle),
        r=relative * (size_o - 1),
    )


def geometry_parameters(windows: Windows, original: Shape, target: Shape) -> np.ndarray:
    """What `GeometryAugmentation` needs to sample `windows`: (N, 22) float32.

    Columns ``grid1`` and ``grid2`` map the target's coordinates in [-1, 1] to those of the two
    images in [-1, 1]. The new label at d is d2 - d, where the flow f of image 1 leads from d to d2:
    ``t + A d + f = t + A B d2 + r``, so d2 = B^-1 (d + A^-1 (f - r)). The label is ``(B^-1 - 1) d - (A B)^-1 r``
    (columns ``windows``, of d in [-1, 1]: what the windows' relative motion adds) plus ``(A B)^-1 f`` (columns
    ``flow``).
    """
    size_o, size_t = (np.array(shape[::-1], float) for shape in (original, target))  # (W, H)
    half_o, half_t = (size_o - 1) / 2, (size_t - 1) / 2
    A, t, B, r = windows
    AB = A @ B
    inverse = np.linalg.inv(AB)

    def affine(matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
        return np.concatenate([matrix * half_t, offset[:, :, None]], 2)  # (N, 2, 3)

    parts = {
        "grid1": affine(A, t) / half_o[:, None],
        "grid2": affine(AB, t + r) / half_o[:, None],
        "windows": affine(np.linalg.inv(B) - np.eye(2), -(inverse @ r[:, :, None])[:, :, 0]),
        "flow": inverse.transpose(0, 2, 1),
    }
    return _rows(parts, GEOMETRY_COLUMNS)


def draw_geometry(rng: np.random.Generator, batch: int, original: Shape, target: Shape, ranges) -> np.ndarray:
    """`draw_windows` as the parameters of `GeometryAugmentation`, (N, 22) float32."""
    return geometry_parameters(draw_windows(rng, batch, original, target, ranges), original, target)


def _yiq_from_rgb() -> np.ndarray:
    red, _, blue = np.eye(3)
    luma = np.array([0.299, 0.587, 0.114])
    u, v = 0.492111 * (blue - luma), 0.877283 * (red - luma)
    cos, sin = math.cos(math.radians(33)), math.sin(math.radians(33))
    return np.stack([luma, cos * v - sin * u, sin * v + cos * u])  # (3, 3)


def hue_matrix(saturation: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """RGB to RGB, (N, 3, 3): scale YIQ's I/Q plane by `saturation`, turn it by `angle` (rad)."""
    turn = np.tile(np.eye(3), (len(angle), 1, 1))
    turn[:, 1:, 1:] = saturation[:, None, None] * _rotation(angle)
    yiq = _yiq_from_rgb()
    return np.linalg.inv(yiq) @ turn @ yiq


def colour_parameters(*, hue, noise, contrast, gain, brightness, exponent) -> np.ndarray:
    """What `ColourAugmentation` needs for the given draws: (N, 18) float32.

    ``(x - m)(1 + contrast) gain + m gain + brightness`` is stored as the factors of x (``scale``)
    and of the mean m (``mean``). Shapes: hue (N, 3, 3), gain (N, 3), the others (N,).
    """
    parts = {
        "hue": hue.transpose(0, 2, 1),
        "noise": noise,
        "scale": (1 + contrast[:, None]) * gain,
        "mean": -contrast[:, None] * gain,
        "brightness": brightness,
        "gamma": exponent,
    }
    return _rows(parts, COLOUR_COLUMNS)


def draw_colour(rng: np.random.Generator, batch: int, ranges) -> np.ndarray:
    """Draw the parameters of `ColourAugmentation` for N samples, (N, 18) float32."""
    saturation = 1 + rng.uniform(-ranges.saturation, ranges.saturation, batch)
    angle = np.pi * rng.uniform(-ranges.hue, ranges.hue, batch)
    return colour_parameters(  # drawn in this order
        hue=hue_matrix(saturation, angle),
        noise=np.full(batch, rng.uniform(0, ranges.noise)),
        contrast=rng.uniform(*ranges.contrast, batch),
        gain=rng.uniform(*ranges.gain, (batch, 3)),
        brightness=ranges.brightness * rng.standard_normal(batch),
        exponent=np.exp(rng.uniform(*(ranges.gamma or (0.0, 0.0)), batch)),
    )


def _rows(parts: Mapping[str, np.ndarray], columns: Mapping[str, tuple[int, int]]) -> np.ndarray:
    flat = [parts[key].reshape(-1, end - begin) for key, (begin, end) in columns.items()]
    return np.concatenate(flat, 1).astype(np.float32)


# Streams of random numbers. Steps 0 and 1 share theirs with the loader's data set 1, as SeedSequence appends zeros:
# [s, 1, 0] is its [s, 1, ORDER, 0].
AUGMENTATION, NOISE = 1, 2


class Draws(NamedTuple):
    """What the augmentation of N samples draws."""

    geometry: np.ndarray  # (N, 22) float32, for `GeometryAugmentation`
    colour: np.ndarray  # (N, 18) float32, for `ColourAugmentation`
    # N, each the entropy of one sample's noise; none without noise. `draw_noise` makes the noise on the host; an
    # engine may seed its device's generator with it instead, once per sample.
    noise_seeds: list[list[int]]


def draw_step(settings, count: int, step: int, rank: int = 0, world_size: int = 1) -> Draws | None:
    """Draw what this process's samples need in the step that follows `step` steps; None without augmentation.

    `settings` is a `maskflownet.engine.contract.TrainingSettings`; `count` is the same for all processes. There is one
    stream for the whole batch, of which each process takes its rows: how many devices share it changes nothing.
    """
    ranges = settings.augmentation
    if ranges is None:
        return None
    rng = np.random.default_rng([settings.seed, AUGMENTATION, step])
    geometry = draw_geometry(rng, count * world_size, settings.original, settings.target, ranges)
    colour = draw_colour(rng, count * world_size, ranges)
    seed = int(rng.integers(2**31))
    rows = range(rank * count, (rank + 1) * count)
    seeds = [[seed, NOISE, row] for row in rows] if ranges.noise else []
    return Draws(geometry[rows], colour[rows], seeds)


def draw_noise(seeds: list[list[int]], target: tuple[int, int]) -> np.ndarray:
    """Draw standard normal noise for both images of N samples: (N, 2, 3, H, W) float32."""
    return np.stack([np.random.default_rng(seed).standard_normal((2, 3, *target), np.float32) for seed in seeds])
