"""The random numbers of a training step, drawn on the host: the same for every engine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.interface import TrainingSettings
from network.augmentation_draws import draw_colour, draw_geometry, draw_noise_seed

AUGMENTATION, NOISE = 1, 2  # streams of random numbers, beside those of the loader


class Draws(NamedTuple):
    """What the augmentation of N samples draws."""

    geometry: np.ndarray  # (N, 22) float32, for `GeometryAugmentation`
    colour: np.ndarray  # (N, 18) float32, for `ColourAugmentation`
    noise_seeds: list[list[int]]  # N, each the entropy of one sample's noise; none without noise


def draw_step(settings: TrainingSettings, count: int, step: int) -> Draws | None:
    """Draw what this process's samples need in the step that follows `step` steps.

    There is one stream for the whole batch, of which each process takes its rows: how many devices
    share it changes nothing.

    Parameters
    ----------
    settings : TrainingSettings
    count : int
        Samples of this process.
    step : int

    Returns
    -------
    Draws or None
        None without augmentation.
    """
    ranges = settings.augmentation
    if ranges is None:
        return None
    rng = np.random.default_rng([settings.seed, AUGMENTATION, step])
    part, parts = settings.share
    total = count * parts * settings.world
    geometry = draw_geometry(rng, total, settings.original, settings.target, ranges)
    colour = draw_colour(rng, total, ranges)
    seed = draw_noise_seed(rng)
    first = (settings.rank * parts + part) * count
    rows = slice(first, first + count)
    seeds = [[seed, NOISE, row] for row in range(first, first + count)] if ranges.noise else []
    return Draws(geometry[rows], colour[rows], seeds)


def draw_noise(seeds: list[list[int]], target: tuple[int, int]) -> np.ndarray:
    """Draw standard normal noise for both images of N samples: (N, 2, 3, H, W) float32."""
    return np.stack(
        [np.random.default_rng(seed).standard_normal((2, 3, *target), np.float32) for seed in seeds]
    )
