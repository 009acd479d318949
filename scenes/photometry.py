"""Brightness, colour, blur and noise of the synthetic scenes; nothing here moves a pixel."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.scenes.options import SceneOptions

PLAIN = (0.1, 0.4)  # contrast that a plain layer keeps
MAX_BLUR = 9  # px, side of the largest kernel; OpenCV's direct filter is fast up to here
LEVELS = np.arange(256) / 255.0
# Quantiles of the normal distribution: bytes drawn at random, looked up here, are normal noise.
_NORMAL_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])


class Tone(NamedTuple):
    """Tone curve: gamma, then contrast about mid-grey, brightness, and one gain per channel."""

    gamma: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0
    gains: tuple[float, ...] = (1.0, 1.0, 1.0)

    def curve(self) -> np.ndarray:
        """(256, 3) float64 in [0, 1]: what each grey level becomes, per channel."""
        level = (LEVELS**self.gamma - 0.5) * self.contrast + 0.5 + self.brightness
        return np.clip(level[:, None] * self.gains, 0, 1)


def draw_tone(rng: np.random.Generator, strength: float) -> Tone:
    """Draw a tone curve; strength 1 is a clearly visible change, 0 none."""
    gamma, contrast, brightness, *gains = rng.normal(0, strength, 6)
    return Tone(
        gamma=float(np.exp(0.25 * gamma)),
        contrast=float(np.exp(0.2 * contrast)),
        brightness=0.07 * brightness,
        gains=tuple(np.exp(0.08 * np.array(gains))),
    )


def draw_layer_curve(
    rng: np.random.Generator, options: SceneOptions, texture: np.ndarray, fog: np.ndarray, haze: float
) -> np.ndarray:
    """Draw a layer's look-up table: its own tone, plain or not, then the fog.

    Parameters
    ----------
    rng : np.random.Generator
    options : SceneOptions
    texture : np.ndarray
        (h, w, 3) or (h, w, 4) uint8; a plain layer keeps little but its mean colour.
    fog : np.ndarray
        (3,) colour of the fog, 0..1.
    haze : float
        Share of the fog in what is seen, 0..1.

    Returns
    -------
    np.ndarray
        (1, 256, 3) uint8, as cv2.LUT takes it.
    """
    curve = draw_tone(rng, 0.6 * options.photometric).curve()
    if options.plain_share and rng.random() < options.plain_share:
        mean = _mean_colour(texture, curve)
        curve = mean + rng.uniform(*PLAIN) * (curve - mean)
    return table(curve * (1 - haze) + fog * haze)


def _mean_colour(texture: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """(3,) what a (256, 3) curve makes of the mean grey levels of an RGB or RGBA texture."""
    alpha = texture[..., 3].copy() if texture.shape[2] == 4 else None
    mean = cv2.mean(texture, alpha)[:3]
    return np.array([np.interp(mean[i], np.arange(256), curve[:, i]) for i in range(3)])


def draw_blur(rng: np.random.Generator, options: SceneOptions, shift: np.ndarray) -> np.ndarray | None:
    """Draw the kernel that blurs a layer in both frames.

    Parameters
    ----------
    rng : np.random.Generator
    options : SceneOptions
    shift : np.ndarray
        (2,) px, how far the layer moves while the shutter is open.

    Returns
    -------
    np.ndarray or None
        (k, k) float32, k odd, symmetric about its centre so that nothing is displaced.
    """
    sigma = rng.uniform(0.6, 2.0) if rng.random() < options.defocus_share else 0.0
    length = float(np.hypot(*shift))
    if sigma == 0 and length < 1:
        return None
    sigma = max(sigma, 0.35)
    shift = shift * min(1.0, (MAX_BLUR - 3) / max(length, 1e-9))
    radius = min(MAX_BLUR // 2, int(np.ceil(np.abs(shift).max() / 2 + 2 * sigma)))
    offsets = np.arange(-radius, radius + 1)
    path = shift * np.linspace(-0.5, 0.5, 17)[:, None]  # (17, 2)
    weight_x = np.exp(-((offsets - path[:, :1]) ** 2) / (2 * sigma**2))  # (17, k)
    weight_y = np.exp(-((offsets - path[:, 1:]) ** 2) / (2 * sigma**2))
    kernel = (weight_y[:, :, None] * weight_x[:, None, :]).sum(axis=0)
    return (kernel / kernel.sum()).astype(np.float32)


def expose(
    rng: np.random.Generator, frames: tuple[np.ndarray, np.ndarray], options: SceneOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Give two (H, W, 3) uint8 frames one camera: shared changes, small changes of each, noise."""
    shared = draw_tone(rng, 0.7 * options.photometric)
    saturation = float(np.exp(rng.normal(0, 0.3 * options.photometric)))
    sigma = options.noise * rng.random() ** 2
    grey = np.full((3, 3), 1 / 3)
    mix = (grey + saturation * (np.eye(3) - grey)).astype(np.float32)
    exposed = []
    for frame in frames:
        own = draw_tone(rng, 0.2 * options.photometric)
        curve = Tone(
            gamma=shared.gamma * own.gamma,
            contrast=shared.contrast * own.contrast,
            brightness=shared.brightness + own.brightness,
            gains=tuple(a * b for a, b in zip(shared.gains, own.gains)),
        ).curve()
        image = frame
        if rng.random() < options.defocus_share:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.1))
        image = cv2.LUT(cv2.transform(image, mix), table(curve))
        exposed.append(_add_noise(rng, image, sigma))
    return exposed[0], exposed[1]


def _add_noise(rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
    table = np.rint(sigma * _NORMAL_QUANTILES).clip(-127, 127).astype(np.int8)
    uniform = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    return cv2.add(image, cv2.LUT(uniform, table), dtype=cv2.CV_8U)


def table(curve: np.ndarray) -> np.ndarray:
    """Turn a (256, 3) curve into (1, 256, 3) uint8, as cv2.LUT takes it."""
    return np.rint(curve * 255).astype(np.uint8)[None]
