"""The measures, against values worked out by hand."""

import math

import numpy as np
import pytest
from maskflownet.inference.metrics import Totals, end_point_error, means, measure


def field(*vectors):
    """One row of pixels: (1, W, 2)."""
    return np.array([vectors], np.float32)


def mean(measures, name):
    total, count = measures[name]
    return total / count


@pytest.fixture
def label():
    return np.random.default_rng(0).integers(-80, 80, (40, 50, 2)).astype(np.float32) / 4


def test_the_error_is_the_length_of_the_difference():
    error = end_point_error(field((3, 4), (1, 1)), field((0, 0), (1, -1)))
    np.testing.assert_array_equal(error, [[5, 2]])


def test_an_offset_of_the_label_gives_exactly_its_length(label):
    assert measure(label + np.float32([3, -4]), label)["epe"] == (5 * 2000, 2000)
    assert measure(label, label)["epe"] == (0, 2000)


def test_lesson_14_without_a_mask_the_epe_itself(label):
    flow = label + np.float32([0.5, 0])
    unmasked = measure(flow, label)
    assert mean(unmasked, "epe") == 0.5
    assert unmasked == measure(flow, label, np.full((40, 50, 1), 255, np.uint8))
    totals = Totals([unmasked, unmasked])
    assert totals.per_image()["epe"] == totals.pooled()["epe"] == 0.5


@pytest.mark.parametrize("axes", [2, 3])
def test_invalid_pixels_never_count(label, axes):
    mask = np.zeros((40, 50, 1), np.uint8)
    mask[10:30, 5:] = 255
    stored = label.copy()
    stored[mask[..., 0] == 0] = np.nan
    stored[0, 0] = 1e10
    flow = label + np.float32([0, 2])
    flow[mask[..., 0] == 0] = 1e6
    everything = np.full((40, 50, 1), 255, np.uint8)
    result = measure(flow, stored, mask[..., 0] if axes == 2 else mask, everything, everything)
    for name in ("epe", "unmatched", "epe_noc"):
        assert result[name] == (2 * 900, 900)
    assert result["matched"] == (0, 0)
    assert result["fl"] == (0, 900)
    assert result["3px"] == (900, 900)
    assert sum(result[name][1] for name in ("s0-10", "s10-40", "s40+")) == 900


@pytest.mark.parametrize("unknown", [np.nan, np.inf, -np.inf, 1.7e9, -2e9])
def test_a_label_that_is_unknown_is_not_valid(unknown):
    label = field((0, 0), (1, 0), (0, 0))
    label[0, 2, 1] = unknown
    assert measure(np.zeros((1, 3, 2), np.float32), label)["epe"] == (1, 2)


def test_an_outlier_is_above_3_px_and_above_5_percent():
    label = field((0, 0), (0, 0), (100, 0), (100, 0), (100, 0))
    flow = field((3, 0), (3.5, 0), (104, 0), (105, 0), (105.5, 0))
    assert measure(flow, label)["fl"] == (2, 5)


def test_a_prediction_that_is_no_number_is_an_outlier_and_spoils_the_epe():
    result = measure(field((np.nan, 0), (1, 0)), field((0, 0), (1, 0)))
    assert result["fl"] == (1, 2)
    assert result["5px"] == (1, 2)
    assert math.isnan(result["epe"][0])


def test_shares_below_1_3_and_5_px():
    flow = field((0.5, 0), (1, 0), (2.5, 0), (3, 0), (4.5, 0), (5, 0))
    result = measure(flow, np.zeros_like(flow))
    assert (result["1px"], result["3px"], result["5px"]) == ((1, 6), (3, 6), (5, 6))


def test_speeds_are_of_the_label():
    label = field((6, 8), (5, 0), (0, 39), (24, 32), (300, 0))  # 10, 5, 39, 40, 300 px
    flow = label + field((1, 0), (2, 0), (3, 0), (4, 0), (5, 0))
    result = measure(flow, label)
    assert result["s0-10"] == (2, 1)
    assert result["s10-40"] == (1 + 3, 2)
    assert result["s40+"] == (4 + 5, 2)


def test_occluded_pixels_are_unmatched():
    flow = field((1, 0), (2, 0), (4, 0))
    occlusion = np.array([[[0], [255], [255]]], np.uint8)
    mask = np.array([[[255], [255], [0]]], np.uint8)
    result = measure(flow, np.zeros_like(flow), mask, occlusion)
    assert (result["matched"], result["unmatched"]) == ((1, 1), (2, 1))
    assert not {"matched", "unmatched", "epe_noc", "fl_noc"} & set(measure(flow, flow))


def test_noc_is_part_of_all():
    flow = field((1, 0), (4, 0), (8, 0))
    noc = np.array([[[255], [255], [0]]], np.uint8)
    result = measure(flow, np.zeros_like(flow), noc=noc)
    assert (result["epe"], result["fl"]) == ((13, 3), (2, 3))
    assert (result["epe_noc"], result["fl_noc"]) == ((5, 2), (1, 2))


def test_lesson_27_per_image_and_pooled_are_both_reported_by_name():
    few = measure(field((10, 0)), field((0, 0)))  # one pixel, an outlier
    many = measure(np.zeros((1, 9, 2)), np.zeros((1, 9, 2)))  # nine exact ones
    summary = Totals([few, many]).summary()
    assert summary["fl"] == 0.5
    assert summary["fl.pooled"] == 0.1
    assert summary["epe"] == 5
    assert summary["epe.pooled"] == 1
    assert (summary["images"], summary["pixels"]) == (2, 10)


def test_an_image_without_such_pixels_does_not_count_in_the_mean_over_images():
    slow = measure(field((1, 0)), field((0, 0)))
    fast = measure(field((53, 0)), field((50, 0)))
    summary = Totals([slow, slow, fast]).summary()
    assert summary["s40+"] == summary["s40+.pooled"] == 3
    assert summary["epe"] == pytest.approx(5 / 3)
    assert math.isnan(summary["s10-40"])
    assert math.isnan(summary["s10-40.pooled"])
    assert means(fast)["s40+"] == 3
    assert math.isnan(means(fast)["s0-10"])


def test_images_without_any_valid_pixel_are_left_out():
    nothing = measure(field((1, 0)), field((0, 0)), np.zeros((1, 1, 1)))
    something = measure(field((2, 0)), field((0, 0)))
    summary = Totals([nothing, something]).summary()
    assert (summary["epe"], summary["epe.pooled"], summary["images"]) == (2, 2, 2)
