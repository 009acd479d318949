"""What the augmentation draws from: the ``augmentation`` keys of a dataset config."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Mapping, Tuple

Interval = Tuple[float, float]

# Each a bound b, at least 0.
_BOUNDS = (
    "rotation",
    "translation",
    "relative_rotation",
    "relative_translation",
    "brightness",
    "noise",
    "saturation",
    "hue",
)
# Each an interval, with the least that its ends may be.
_INTERVALS = {
    "zoom": 1e-3,
    "aspect": 1e-3,
    "relative_scale": 1e-3,
    "contrast": -1.0,
    "gain": 0.0,
    "gamma": -math.inf,
}


@dataclass(frozen=True)
class AugmentationRanges:
    """What the augmentation draws from; the field names are the keys of a dataset config.

    A number b means a uniform draw from [-b, b], a pair an interval [low, high], unless said
    otherwise.

    Attributes
    ----------
    rotation : float
        Rotation of the window in image 1, degrees, at most 90.
    zoom : (float, float)
        Size of the window relative to the target: below 1 magnifies.
    aspect : (float, float)
        Horizontal stretch of the window.
    translation : float
        Displacement of the window, fraction of the original size.
    relative_rotation, relative_translation, relative_scale
        The same for image 2 relative to image 1: degrees, fraction of the original size, factor.
    contrast : (float, float)
        Added to 1; not below -1.
    brightness : float
        Standard deviation of a normal draw, images in [0, 1].
    gain : (float, float)
        Factor per colour channel.
    noise : float
        The noise's standard deviation is uniform in [0, noise], one for the whole batch.
    saturation : float
        Added to 1 to scale the I/Q plane of YIQ.
    hue : float
        Rotation of the I/Q plane, in units of pi.
    gamma : (float, float), optional
        Natural logarithm of the gamma exponent; None for no gamma.

    Raises
    ------
    ValueError
        One sentence with the key, for a value of the wrong kind or out of bounds.
    """

    rotation: float
    zoom: Interval
    aspect: Interval
    translation: float
    relative_rotation: float
    relative_translation: float
    relative_scale: Interval
    contrast: Interval
    brightness: float
    gain: Interval
    noise: float
    saturation: float
    hue: float
    gamma: Interval | None = None

    def __post_init__(self) -> None:
        for key in _BOUNDS:
            object.__setattr__(self, key, _number(key, getattr(self, key), 0.0))
        for key, lowest in _INTERVALS.items():
            value = getattr(self, key)
            if key != "gamma" or value is not None:
                object.__setattr__(self, key, _interval(key, value, lowest))
        if self.rotation > 90:
            raise ValueError(f"augmentation key 'rotation' is {self.rotation}, not within 0 to 90")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AugmentationRanges:
        """Ranges of a mapping read from YAML.

        Raises
        ------
        ValueError
            One sentence naming an unknown, missing or wrong key.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(config) - set(known), key=str)
        missing = [key for key in known if key not in config and key != "gamma"]
        if unknown:
            raise ValueError(f"unknown augmentation key {unknown[0]!r}; known: {', '.join(known)}")
        if missing:
            raise ValueError(f"augmentation key {missing[0]!r} is missing")
        return cls(**config)


def _number(key: str, value: Any, lowest: float) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise ValueError(f"augmentation key {key!r} is {value!r}, not a number")
    if value < lowest:
        raise ValueError(f"augmentation key {key!r} is {value!r}, below {lowest}")
    return float(value)


def _interval(key: str, value: Any, lowest: float) -> Interval:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"augmentation key {key!r} is {value!r}, not a pair [low, high]")
    low, high = (_number(key, end, lowest) for end in value)
    if low > high:
        raise ValueError(f"augmentation key {key!r} is {value!r}, whose low exceeds its high")
    return low, high
