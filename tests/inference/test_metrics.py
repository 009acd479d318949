"""The measures, against values worked out by hand."""

import math

import numpy as np
import pytest
from maskflownet.inference import metrics
from maskflownet.inference.metrics import best_fitting, means, summarise
from maskflownet.reader.sample import Sample


def field(*vectors):
    """One row of pixels: (1, W, 2)."""
    return np.array([vectors], np.float32)


def measure(flow, label, valid=None, *masks, **others):
    """The measures of a label that is valid everywhere, unless said otherwise."""
    valid = np.full((*label.shape[:2], 1), 255, np.uint8) if valid is None else valid
    return metrics.measure(flow, label, valid, *masks, **others)


@pytest.fixture
def label():
    return np.random.default_rng(0).integers(-80, 80, (40, 50, 2)).astype(np.float32) / 4


def test_an_offset_is_the_error_of_every_pixel(label):
    found = measure(label + np.float32([3, -4]), label)
    assert found["epe"] == (5 * 2000, 2000) and means(found)["epe"] == 5
    total = summarise([found, found])
    assert total["epe"] == total["epe.pooled"] == 5


def test_invalid_pixels_never_count(label):
    valid = np.zeros((40, 50, 1), np.uint8)
    valid[10:30, 5:] = 255
    stored = label.copy()
    stored[valid[..., 0] == 0] = np.nan
    stored[0, 0] = 1e10
    flow = label + np.float32([0, 2])
    flow[valid[..., 0] == 0] = 1e6
    everything = np.full((40, 50, 1), 255, np.uint8)
    result = measure(flow, stored, valid, everything, everything)
    for name in ("epe", "unmatched", "epe_noc"):
        assert result[name] == (2 * 900, 900)
    assert result["matched"] == (0, 0)
    assert result["fl"] == (0, 900)
    assert result["3px"] == (900, 900)
    assert sum(result[name][1] for name in ("s0-10", "s10-40", "s40+")) == 900


def test_an_outlier_is_above_3_px_and_above_5_percent():
    label = field((0, 0), (0, 0), (100, 0), (100, 0), (100, 0))
    flow = field((3, 0), (3.5, 0), (104, 0), (105, 0), (105.5, 0))
    assert measure(flow, label)["fl"] == (2, 5)


def test_a_prediction_that_is_no_number_is_an_outlier_and_spoils_the_epe():
    result = measure(field((np.nan, 0), (1, 0)), field((0, 0), (1, 0)))
    assert result["fl"] == result["5px"] == (1, 2)
    assert math.isnan(result["epe"][0])


def test_shares_below_1_3_and_5_px():
    flow = field((0.5, 0), (1, 0), (2.5, 0), (3, 0), (4.5, 0), (5, 0))
    result = measure(flow, np.zeros_like(flow))
    assert (result["1px"], result["3px"], result["5px"]) == ((1, 6), (3, 6), (5, 6))


def test_of_a_finer_label_the_valid_value_that_fits_best_counts():
    """Two pixels with four values each; the closest to the second one's flow is not valid."""
    fine = np.array([[(0, 0), (3, 0), (0, 0), (9, 0)], [(0, 3), (8, 0), (0, 9), (7, 0)]], np.float32)
    valid = np.array([[255, 255, 0, 255], [255, 255, 0, 0]], np.uint8)[..., None]
    sample = Sample(np.zeros((1, 2, 3), np.uint8), None, fine[::2, ::2], valid[::2, ::2], "a", (fine, valid))
    flow = field((5, 0), (7.5, 0))
    chosen = best_fitting(flow, sample)
    np.testing.assert_array_equal(chosen.flow, field((3, 0), (9, 0)))
    assert (chosen.mask == 255).all() and chosen.fine is None
    assert measure(flow, chosen.flow, chosen.mask)["epe"] == (2 + 1.5, 2)
    hidden = sample._replace(fine=(fine, valid * 0))
    assert not best_fitting(flow, hidden).mask.any()
    assert measure(flow * np.nan, *best_fitting(flow * np.nan, sample)[2:4])["fl"] == (2, 2)
    assert best_fitting(flow, chosen) is chosen


def test_speeds_are_of_the_label():
    label = field((6, 8), (5, 0), (0, 39), (24, 32), (300, 0))  # 10, 5, 39, 40, 300 px
    result = measure(label + field((1, 0), (2, 0), (3, 0), (4, 0), (5, 0)), label)
    assert (result["s0-10"], result["s10-40"], result["s40+"]) == ((2, 1), (1 + 3, 2), (4 + 5, 2))


def test_occluded_pixels_are_unmatched_and_noc_is_part_of_all():
    flow = field((1, 0), (4, 0), (8, 0))
    valid, occlusion, noc = (
        np.array(values, np.uint8).reshape(1, 3, 1) for values in ([9, 9, 0], [0, 9, 9], [9, 9, 0])
    )
    result = measure(flow, np.zeros_like(flow), valid, occlusion)
    assert (result["matched"], result["unmatched"]) == ((1, 1), (4, 1))
    assert not {"epe_noc", "fl_noc"} & set(result)
    result = measure(flow, np.zeros_like(flow), noc=noc)
    assert (result["epe"], result["fl"]) == ((13, 3), (2, 3))
    assert (result["epe_noc"], result["fl_noc"]) == ((5, 2), (1, 2))
    assert not {"matched", "unmatched"} & set(result)


def test_means_over_images_and_over_pixels_are_both_reported_by_name():
    few = measure(field((10, 0)), field((0, 0)))  # one pixel, an outlier
    many = measure(np.zeros((1, 9, 2)), np.zeros((1, 9, 2)))  # nine exact ones
    total = summarise([few, many])
    assert (total["fl"], total["fl.pooled"]) == (0.5, 0.1)
    assert (total["epe"], total["epe.pooled"]) == (5, 1)
    assert (total["images"], total["pixels"]) == (2, 10)


def test_an_image_without_such_pixels_does_not_count_in_the_mean_over_images():
    slow = measure(field((1, 0)), field((0, 0)))
    fast = measure(field((53, 0)), field((50, 0)))
    nothing = measure(field((1, 0)), field((0, 0)), np.zeros((1, 1, 1)))
    total = summarise([slow, slow, fast, nothing])
    assert total["s40+"] == total["s40+.pooled"] == 3
    assert total["epe"] == total["epe.pooled"] == pytest.approx(5 / 3)
    assert (total["images"], total["pixels"]) == (4, 3)
    assert math.isnan(total["s10-40"]) and math.isnan(total["s10-40.pooled"])
    assert means(fast)["s40+"] == 3 and math.isnan(means(fast)["s0-10"])
