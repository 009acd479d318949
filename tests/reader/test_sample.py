"""Crops, flips and resizing of a sample."""

from collections import Counter

import numpy as np
import pytest
from maskflownet.reader.sample import Sample, random_crop, random_flip, resize_flow, resize_image, resize_sample

SIZES = [(24, 40), (48, 80), (31, 77), (13, 19), (12, 20), (24, 55), (11, 40), (60, 15)]
STORED = [0.0, np.nan, np.inf, -np.inf, 1e10, -1e10, 3e38]


def make_sample(height, width):
    """Make a sample whose every array holds the pixel's own position."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y, x, y + x], -1).astype(np.uint8)
    flow = np.stack([x, y], -1).astype(np.float32)
    mask = np.where((x + y) % 2, 255, 0).astype(np.uint8)[..., None]
    return Sample(image, image + 100, flow, mask, "the/name")


def test_every_offset_is_reached_equally_often_and_no_other():
    sample = make_sample(7, 9)
    rng = np.random.default_rng(0)
    offsets = Counter()
    for _ in range(2400):
        crop = random_crop(sample, 5, 6, rng)
        assert crop.img1.shape == (5, 6, 3)
        offsets[tuple(crop.img1[0, 0, :2].tolist())] += 1
    assert set(offsets) == {(y, x) for y in range(3) for x in range(4)}
    assert min(offsets.values()) > 140  # 200 expected, a deviation of 14
    assert max(offsets.values()) < 260


def test_the_arrays_are_cut_alike():
    rng = np.random.default_rng(1)
    crop = random_crop(make_sample(20, 30), 8, 9, rng)
    y, x = crop.img1[0, 0, :2].astype(int)
    whole = make_sample(20, 30)
    for part, array in zip(crop[:4], whole[:4]):
        np.testing.assert_array_equal(part, array[y : y + 8, x : x + 9])
    assert crop.name == "the/name"


def test_a_flip_mirrors_everything_and_negates_u():
    sample = make_sample(4, 6)
    rng = np.random.default_rng(0)
    results = [random_flip(sample, rng) for _ in range(400)]
    flipped = [result for result in results if result is not sample]
    assert 150 < len(flipped) < 250
    result = flipped[0]
    np.testing.assert_array_equal(result.img1, sample.img1[:, ::-1])
    np.testing.assert_array_equal(result.img2, sample.img2[:, ::-1])
    np.testing.assert_array_equal(result.mask, sample.mask[:, ::-1])
    np.testing.assert_array_equal(result.flow[..., 0], -sample.flow[:, ::-1, 0])
    np.testing.assert_array_equal(result.flow[..., 1], sample.flow[:, ::-1, 1])
    assert result.flow.dtype == np.float32
    assert result.name == sample.name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_constant_flow_stays_constant_through_holes(size, share):
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
    new_flow, mask = resize_flow(flow, np.full((1, 2, 1), 255, np.uint8), 1, 4)
    assert (mask == 255).all()
    np.testing.assert_allclose(new_flow[0, :, 0], [8, 10, 14, 16])  # u doubles
    np.testing.assert_allclose(new_flow[0, :, 1], [2, 3, 5, 6])  # v does not
    left = np.array([[[255], [0]]], np.uint8)
    new_flow, mask = resize_flow(flow, left, 1, 4)
    assert mask[0, :, 0].tolist() == [255, 255, 255, 0]
    np.testing.assert_allclose(new_flow[0, :, 0], [8, 8, 8, 0])


@pytest.mark.parametrize("size", SIZES)
def test_an_affine_flow_stays_exact(size):
    def field(height, width):
        y = (np.arange(height)[:, None] + 0.5) / height * np.ones((1, width))
        x = (np.arange(width)[None] + 0.5) / width * np.ones((height, 1))
        return np.stack([(3 + 5 * x - 4 * y) * width, (2 * x + y) * height], -1)

    new_flow, _ = resize_flow(field(24, 40).astype(np.float32), np.full((24, 40, 1), 255, np.uint8), *size)
    inner = tuple(slice(n // 10 + 1, n - n // 10 - 1) for n in size)  # beyond it the edge is held
    np.testing.assert_allclose(new_flow[inner], field(*size)[inner], atol=0.02)


def test_a_sample_is_resized_to_height_and_width():
    image = np.zeros((10, 30, 3), np.uint8)
    sample = Sample(image, image, np.ones((10, 30, 2), np.float32), np.full((10, 30, 1), 255, np.uint8), "name")
    assert resize_sample(sample, 10, 30) is sample
    resized = resize_sample(sample, 20, 90)
    assert [array.shape for array in resized[:4]] == [(20, 90, channels) for channels in (3, 3, 2, 1)]
    np.testing.assert_allclose(resized.flow[5, 5], (3, 2), rtol=1e-6)
    assert resized.name == "name"


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
