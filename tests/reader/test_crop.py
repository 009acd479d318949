"""Random crops and flips."""

from collections import Counter

import numpy as np
import pytest
from maskflownet.errors import DataError
from maskflownet.reader.sample import Sample, random_crop, random_flip


def make_sample(height, width):
    """Make a sample whose every array holds the pixel's own position."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y, x, y + x], -1).astype(np.uint8)
    flow = np.stack([x, y], -1).astype(np.float32)
    mask = np.where((x + y) % 2, 255, 0).astype(np.uint8)[..., None]
    return Sample(image, image + 100, flow, mask, "the/name")


def test_lesson_11_every_offset_is_reached_equally_often_and_no_other():
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


def test_lesson_11_a_sample_smaller_than_the_crop_is_an_error():
    sample = make_sample(7, 9)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(random_crop(sample, 7, 9, rng).img1, sample.img1)
    for height, width in ((8, 9), (7, 10)):
        with pytest.raises(DataError, match=rf"the/name is 7x9 .*{height}x{width}"):
            random_crop(sample, height, width, rng)


def test_lesson_05_a_crop_is_height_then_width():
    crop = random_crop(make_sample(10, 40), 4, 30, np.random.default_rng(0))
    assert crop.flow.shape == (4, 30, 2)


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


def test_the_flipped_label_still_matches_the_pictures():
    img1 = np.random.default_rng(0).integers(0, 256, (5, 12, 3), dtype=np.uint8)
    img2 = np.roll(img1, 3, axis=1)  # everything moves 3 px to the right
    flow = np.full((5, 12, 2), (3, 0), np.float32)
    sample = Sample(img1, img2, flow, None, "name")
    rng = np.random.default_rng(0)
    flipped = next(s for s in (random_flip(sample, rng) for _ in range(50)) if s is not sample)
    u = int(flipped.flow[0, 0, 0])
    np.testing.assert_array_equal(np.roll(flipped.img1, u, axis=1), flipped.img2)
    assert flipped.mask is None


def test_samples_without_label_and_equal_seeds():
    sample = make_sample(9, 9)._replace(flow=None, mask=None)

    def draw(seed):
        rng = np.random.default_rng(seed)
        return [random_flip(random_crop(sample, 5, 5, rng), rng).img1.tobytes() for _ in range(8)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
