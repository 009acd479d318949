"""The pictures of a validation report, against values known by construction."""

import io

import numpy as np
import pytest
from maskflownet.engine.contract import ConfidentPrediction, Prediction
from maskflownet.inference.metrics import Labelled, Measured
from maskflownet.reader.sample import Sample
from maskflownet.report.pictures import (
    ERROR_TICKS,
    TITLES,
    UNKNOWN,
    draw_views,
    encode,
    error_to_colour,
    shrink,
    usual_motion,
)
from PIL import Image

from tests.trees import picture

SIZE = (48, 96)


def pair_of(label, mask=None, occlusion=None, noc=None):
    sample = Sample(picture(1, SIZE), picture(2, SIZE), label.astype(np.float32), mask, "a")
    return Labelled(sample, occlusion, noc)


def draw(pair, flow, mask=None, width=768):
    return draw_views(pair, Measured({}, Prediction(flow.astype(np.float32), mask, None)), width)


def random_flow():
    return np.random.default_rng(0).normal(0, 5, (*SIZE, 2))


def test_only_what_is_known_is_drawn():
    label = random_flow()
    views = draw(pair_of(label), label)
    assert list(views.pictures) == ["frame", "flow", "truth", "error"]
    full = Measured({}, ConfidentPrediction(label.astype(np.float32), np.ones((*SIZE, 1)), None, np.zeros((*SIZE, 1))))
    occluded = np.zeros((*SIZE, 1), np.uint8)
    everything = draw_views(pair_of(label, occlusion=occluded), full, 768)
    assert list(everything.pictures) == list(TITLES)
    assert all(p.shape[:2] == SIZE and p.dtype == np.uint8 for p in everything.pictures.values())
    assert (everything.pictures["mask"] == 255).all()
    assert (everything.pictures["confidence"] == 0).all()
    np.testing.assert_array_equal(everything.pictures["frame"], picture(1, SIZE))


def test_flow_and_ground_truth_share_the_scale_of_the_truth():
    label = np.zeros((*SIZE, 2))
    label[..., 0] = 8
    views = draw(pair_of(label), label)
    assert views.max_flow == pytest.approx(8)
    np.testing.assert_array_equal(views.pictures["flow"], views.pictures["truth"])
    half = draw(pair_of(label), label / 2)
    assert half.max_flow == pytest.approx(8)
    np.testing.assert_array_equal(half.pictures["truth"], views.pictures["truth"])
    assert half.pictures["flow"].min() == pytest.approx(127, abs=1)  # half saturated
    assert draw(pair_of(label * 0), label).max_flow == pytest.approx(8)  # a scene at rest
    assert draw(pair_of(label * 0), label * 0).max_flow == 1


def test_the_scale_is_that_of_the_labelled_pixels_less_a_few():
    label = np.full((*SIZE, 2), (3.0, 4.0))
    mask = np.full((*SIZE, 1), 255, np.uint8)
    label[:20], mask[:20] = 1000, 0
    label[-1, :10] = 500  # 10 of 2688 labelled pixels
    assert draw(pair_of(label, mask), label).max_flow == pytest.approx(5)
    assert usual_motion(np.array([[np.nan, 1], [3, 4]])) == 5
    assert usual_motion(np.empty((0, 2))) == 0


def test_unknown_pixels_have_their_own_look_and_wild_ones_the_brightest():
    label = np.zeros((*SIZE, 2))
    label[:10] = np.nan
    flow = np.zeros((*SIZE, 2))
    flow[10:20] = np.nan
    flow[20:30] = 1e6
    views = draw(pair_of(label), flow)
    error, truth = views.pictures["error"], views.pictures["truth"]
    assert (error[:10] == UNKNOWN).all()
    assert (truth[:10] == 0).all()
    assert (error[10:30] == error[10, 0]).all()
    assert error[10, 0].sum() > 500  # near white
    assert (error[30:] < 10).all()  # near black


def test_colours_of_errors_grow_brighter_with_every_tick():
    ticks = np.array([ERROR_TICKS], float)
    colours = error_to_colour(ticks, np.ones_like(ticks, bool))[0].astype(int)
    luminance = colours @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > 8).all()
    beyond = error_to_colour(np.array([[1e9, np.inf]]), np.ones((1, 2), bool))
    assert (beyond == colours[-1]).all()


def test_a_sparse_label_keeps_its_values_and_points_when_it_is_shrunk():
    values, where = np.full((40, 80), 1e3), np.zeros((40, 80), bool)
    values[4::8, 4::8], where[4::8, 4::8] = 7, True
    small, known = shrink(values, (20, 10), where)
    assert small.shape == known.shape == (10, 20)
    assert known.sum() == where.sum()
    np.testing.assert_allclose(small[known], 7, rtol=1e-5)
    assert (small[~known] == 0).all()
    flow, _ = shrink(np.stack([values, -values], axis=2), (20, 10), where)
    np.testing.assert_allclose(flow[known], [(7, -7)] * known.sum(), rtol=1e-5)


def test_large_images_are_bounded_in_width():
    label = random_flow()
    views = draw(pair_of(label), label, np.ones((*SIZE, 1)), width=64)
    assert {p.shape[:2] for p in views.pictures.values()} == {(32, 64)}


def test_occlusion_comes_from_either_label():
    label = random_flow()
    flags = np.zeros((*SIZE, 1), np.uint8)
    flags[:16] = 255
    occluded = draw(pair_of(label, occlusion=flags), label).pictures["occlusion"]
    assert (occluded[:16] == 0).all()
    assert (occluded[16:] == 255).all()
    mask = np.full((*SIZE, 1), 255, np.uint8)
    mask[40:] = 0
    visible = draw(pair_of(label, mask, noc=flags), label).pictures["occlusion"]
    assert (visible[:16] == 255).all()
    assert (visible[16:40] == 0).all()
    assert (visible[40:] == UNKNOWN).all()


@pytest.mark.parametrize("name", ["frame", "occlusion"])
def test_pictures_are_webp(name):
    levels = np.where(np.random.default_rng(0).random(SIZE) > 0.5, 255, 0).astype(np.uint8)
    drawn = levels if name == "occlusion" else picture(3, SIZE)
    decoded = Image.open(io.BytesIO(encode(name, drawn)))
    assert decoded.format == "WEBP"
    pixels = np.asarray(decoded.convert("L" if name == "occlusion" else "RGB"))
    if name == "occlusion":
        np.testing.assert_array_equal(pixels, drawn)
    assert np.abs(pixels.astype(int) - drawn).mean() < 6
