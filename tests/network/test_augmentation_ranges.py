"""A wrong value in the augmentation's part of a config is refused by name."""

import pytest
from maskflownet.network.draws import AugmentationRanges

from tests.network.augmentation_cases import CHAIRS, KITTI


def test_values_and_default():
    ranges = AugmentationRanges(**CHAIRS)
    assert (ranges.rotation, ranges.aspect, ranges.gamma) == (17.0, (0.9, 1 / 0.9), None)
    assert AugmentationRanges(**KITTI).gamma == (-0.5, 0.5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rotation", "17"),
        ("rotation", True),
        ("rotation", 91),
        ("rotation", [0, 17]),
        ("translation", -0.1),
        ("hue", float("nan")),
        ("zoom", 1.0),
        ("zoom", [1.2, 0.8]),
        ("zoom", [0, 1]),
        ("aspect", [1, 1, 1]),
        ("relative_scale", [-1, 1]),
        ("contrast", [-1.5, 0]),
        ("gain", [None, 1]),
        ("gamma", 0.5),
    ],
)
def test_wrong_value_names_the_key(key, value):
    with pytest.raises(ValueError, match=f"augmentation key '{key}'"):
        AugmentationRanges(**{**CHAIRS, key: value})
