"""Resizing of pictures and sparse labels."""

import numpy as np
import pytest
from maskflownet.reader.pairs import Pairs
from maskflownet.reader.sample import LEAST_WEIGHT, Sample, resize_flow, resize_image, resize_sample

SIZES = [(24, 40), (48, 80), (31, 77), (13, 19), (12, 20), (24, 55), (11, 40), (60, 15)]
STORED = [0.0, np.nan, np.inf, -np.inf, 1e10, -1e10, 3e38]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_lesson_04_a_constant_flow_stays_constant_through_holes(size, share):
    rng = np.random.default_rng(7)
    mask = np.where(rng.random((24, 40, 1)) < share, 255, 0).astype(np.uint8)
    flow = np.full((24, 40, 2), (30.0, -7.0), np.float32)
    flow[mask[..., 0] == 0] = rng.choice(np.float32(STORED), ((mask == 0).sum(), 2))
    new_flow, new_mask = resize_flow(flow, mask, *size)
    assert new_flow.shape == (*size, 2)
    assert new_flow.dtype == np.float32
    assert new_mask.shape == (*size, 1)
    assert set(np.unique(new_mask)) <= {0, 255}
    assert (new_mask > 0).any()
    valid = new_mask[..., 0] > 0
    wanted = (30.0 * size[1] / 40, -7.0 * size[0] / 24)
    np.testing.assert_allclose(new_flow[valid], np.broadcast_to(wanted, (valid.sum(), 2)), rtol=1e-5)
    assert (new_flow[~valid] == 0).all()


def test_lesson_04_what_an_invalid_pixel_stores_changes_nothing():
    rng = np.random.default_rng(3)
    mask = np.where(rng.random((24, 40, 1)) < 0.6, 255, 0).astype(np.uint8)
    clean = rng.normal(0, 20, (24, 40, 2)).astype(np.float32) * (mask > 0)
    results = []
    for value in STORED:
        results.append(resize_flow(np.where(mask > 0, clean, np.float32(value)), mask, 31, 77))
    for flow, new_mask in results[1:]:
        np.testing.assert_array_equal(flow, results[0][0])
        np.testing.assert_array_equal(new_mask, results[0][1])


@pytest.mark.parametrize("size", SIZES)
def test_a_pixel_whose_nearest_label_is_valid_stays_valid(size):
    rng = np.random.default_rng(5)
    mask = np.where(rng.random((24, 40, 1)) < 0.3, 255, 0).astype(np.uint8)
    new_mask = resize_flow(np.zeros((24, 40, 2), np.float32), mask, *size)[1]
    rows = ((np.arange(size[0]) + 0.5) * 24 / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * 40 / size[1]).astype(int)
    nearest = mask[np.ix_(rows, columns)]
    assert not (new_mask < nearest).any()


def test_worked_out_by_hand():
    # Twice as wide: new pixels lie at old x = -0.25, 0.25, 0.75, 1.25 of centres 0 and 1, so the
    # weights of the left pixel are 1, 0.75, 0.25, 0.
    flow = np.array([[[4, 2], [8, 6]]], np.float32)  # (1, 2, 2)
    new_flow, mask = resize_flow(flow, None, 1, 4)
    assert mask is None
    np.testing.assert_allclose(new_flow[0, :, 0], [8, 10, 14, 16])  # u doubles
    np.testing.assert_allclose(new_flow[0, :, 1], [2, 3, 5, 6])  # v does not
    left = np.array([[[255], [0]]], np.uint8)
    new_flow, mask = resize_flow(flow, left, 1, 4)
    assert LEAST_WEIGHT == 0.25
    assert mask[0, :, 0].tolist() == [255, 255, 255, 0]
    np.testing.assert_allclose(new_flow[0, :, 0], [8, 8, 8, 0])


@pytest.mark.parametrize("size", SIZES)
def test_an_affine_flow_stays_exact(size):
    def field(height, width):
        y = (np.arange(height)[:, None] + 0.5) / height * np.ones((1, width))
        x = (np.arange(width)[None] + 0.5) / width * np.ones((height, 1))
        return np.stack([(3 + 5 * x - 4 * y) * width, (2 * x + y) * height], -1)

    new_flow, _ = resize_flow(field(24, 40).astype(np.float32), None, *size)
    inner = tuple(slice(n // 10 + 1, n - n // 10 - 1) for n in size)  # beyond it the edge is held
    np.testing.assert_allclose(new_flow[inner], field(*size)[inner], atol=0.02)


def test_lesson_05_sizes_are_height_then_width():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (10, 30, 3), dtype=np.uint8)
    mask = np.full((10, 30, 1), 255, np.uint8)
    flow = np.ones((10, 30, 2), np.float32)
    sample = resize_sample(Sample(image, image, flow, mask, "name"), 20, 90)
    assert sample.img1.shape == sample.img2.shape == (20, 90, 3)
    assert sample.flow.shape == (20, 90, 2)
    assert sample.mask.shape == (20, 90, 1)
    assert sample.name == "name"
    np.testing.assert_allclose(sample.flow[5, 5], (3, 2), rtol=1e-6)


def test_a_sample_of_the_size_or_without_label_passes():
    image = np.zeros((6, 8, 3), np.uint8)
    sample = Sample(image, image, None, None, "name")
    assert resize_sample(sample, 6, 8) is sample
    resized = resize_sample(sample, 3, 4)
    assert resized.img1.shape == (3, 4, 3)
    assert resized.flow is None
    assert resized.mask is None


def test_pictures_shrink_by_area_and_grow_smoothly():
    stripes = np.zeros((8, 40, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (resize_image(stripes, 8, 20) == 100).all()  # every pixel counts
    assert resize_image(stripes, 8, 20).dtype == np.uint8
    ramp = np.repeat(np.arange(0, 240, 8, dtype=np.uint8)[:, None, None], 3, axis=2)  # (30, 1, 3)
    grown = resize_image(np.repeat(ramp, 8, axis=1), 60, 4)  # rows grow while columns shrink
    assert grown.shape == (60, 4, 3)
    steps = np.diff(grown[2:-2, 0, 0].astype(int))
    assert set(steps) == {4}


def reference(flow, mask, height, width):
    """Compute sum(mask x flow) / sum(mask) and sum(mask) over four pixels, in float64."""
    total, weights = np.zeros((height, width, 2)), np.zeros((height, width, 1))
    axes = []
    for new, old in ((height, flow.shape[0]), (width, flow.shape[1])):
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(position).astype(int)
        axes.append(((low, low + 1 - position), (np.minimum(low + 1, old - 1), position - low)))
    for rows, row_weights in axes[0]:
        for columns, column_weights in axes[1]:
            share = row_weights[:, None, None] * column_weights[None, :, None]
            share = share * (mask[np.ix_(rows, columns)] > 0)
            total += share * flow[np.ix_(rows, columns)]
            weights += share
    ratio = (width / flow.shape[1], height / flow.shape[0])
    return total / np.maximum(weights, 1e-9) * ratio, weights


def test_lesson_04_the_real_sparse_pair(shared):
    sample = Pairs(shared / "data" / "pairs" / "kitti")[0]
    resized = resize_sample(sample, 576, 1280)
    assert resized.img1.shape == (576, 1280, 3)
    wanted, weights = reference(sample.flow, sample.mask, 576, 1280)
    clear = np.abs(weights - LEAST_WEIGHT) > 1e-3  # OpenCV's weights are rounded
    np.testing.assert_array_equal((resized.mask > 0)[clear], (weights > LEAST_WEIGHT)[clear])
    valid = resized.mask[..., 0] > 0
    assert 0.2 < valid.mean() < 0.5
    np.testing.assert_allclose(resized.flow[valid], wanted[valid], atol=0.01)
