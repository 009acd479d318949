"""The draws of the augmentation: windows, labels, colours, seeds; NumPy in float64 throughout."""

from dataclasses import replace

import numpy as np
import pytest
from maskflownet.network.draws import COLOUR_COLUMNS, draw_colour, draw_geometry, draw_windows, hue_matrix

from tests.network.augmentation_cases import CHAIRS, COLUMNS, NOTHING, SHAPES

columns = pytest.mark.parametrize("column", sorted(COLUMNS))
LARGE, SMALL = (4000, 5000), (320, 448)  # far apart: the picture does not limit the zoom


@columns
@pytest.mark.parametrize("change", [{}, {"zoom": (3, 3)}, {"translation": 2}, {"rotation": 90}])
def test_image_1_stays_inside(column, change):
    original, target = SHAPES[column]
    windows = draw_windows(np.random.default_rng(4), 500, original, target, replace(COLUMNS[column], **change))
    half = (np.array(target[::-1])[:, None] - 1) / 2
    corners = windows.t[:, :, None] + windows.A @ (half * [[-1, -1, 1, 1], [-1, 1, -1, 1]])
    overhang = np.abs(corners) - (np.array(original[::-1])[:, None] - 1) / 2
    assert overhang.max() < 1e-9
    if "zoom" in change:  # every window is limited: it spans the picture along one axis
        assert np.abs(overhang.max((1, 2))).max() < 1e-9


def test_windows_fill_their_ranges():
    still = replace(CHAIRS, translation=0)
    A, t, B, r = draw_windows(np.random.default_rng(5), 4000, LARGE, SMALL, still)
    scale = np.hypot(A[:, 1, 0], A[:, 1, 1])
    slack = np.array(LARGE[::-1]) - scale[:, None] * np.array(SMALL[::-1])
    drawn = {
        "rotation": (np.rad2deg(np.arctan2(A[:, 1, 0], A[:, 1, 1])), -17, 17),
        "zoom": (scale, 0.5, 1 / 0.9),
        "aspect": (np.hypot(A[:, 0, 0], A[:, 0, 1]) / scale, 0.9, 1 / 0.9),
        "relative_rotation": (np.rad2deg(np.arctan2(B[:, 1, 0], B[:, 0, 0])), -4.25, 4.25),
        "relative_scale": (np.hypot(B[:, 1, 0], B[:, 0, 0]), 0.96, 1 / 0.96),
        "r_x": (r[:, 0], -0.025 * 4999, 0.025 * 4999),
        "r_y": (r[:, 1], -0.025 * 3999, 0.025 * 3999),
        "t_x": (t[:, 0] / slack[:, 0], -0.5, 0.5),
        "t_y": (t[:, 1] / slack[:, 1], -0.5, 0.5),
    }
    for name, (values, low, high) in drawn.items():
        width = high - low
        assert low - 1e-9 <= values.min() < low + 0.01 * width, name
        assert high - 0.01 * width < values.max() <= high + 1e-9, name
        assert abs(values.mean() - (low + high) / 2) < 0.02 * width, name


def test_hue_matrix_is_that_of_yiq():
    # NTSC's I and Q to three digits, as in any textbook.
    chroma = np.array([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    luma = np.array([0.299, 0.587, 0.114])
    angle = np.array([0.0, 0.4, -1.3])
    matrix = hue_matrix(np.array([1.5, 1.0, 0.5]), angle)
    assert np.allclose(luma @ matrix, luma, atol=1e-12)
    assert np.allclose(matrix @ np.ones(3), 1, atol=1e-12)  # greys stay
    assert np.allclose(chroma @ matrix[0], 1.5 * chroma, atol=2e-3)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    assert np.allclose(chroma @ matrix[1], turn @ chroma, atol=2e-3)


@columns
def test_colours_fill_their_ranges(column):
    table = COLUMNS[column]
    params = draw_colour(np.random.default_rng(10), 4000, table)
    drawn = {key: params[:, b:e].astype(float) for key, (b, e) in COLOUR_COLUMNS.items()}
    gain = drawn["scale"] + drawn["mean"]  # (1 + c) g - c g
    contrast = -drawn["mean"] / gain
    assert np.ptp(contrast, axis=1).max() < 1e-5  # one per sample, for all channels
    matrix = drawn["hue"].reshape(-1, 3, 3).transpose(0, 2, 1)
    squared = np.linalg.det(matrix)  # a turn and scaling of a plane: saturation squared
    gamma = table.gamma or (0, 0)
    angle = np.arccos(np.clip((np.trace(matrix, axis1=1, axis2=2) - 1) / 2 / squared**0.5, -1, 1))
    bounds = {
        "gain": (gain, *table.gain),
        "contrast": (contrast, *table.contrast),
        "saturation": (squared**0.5, 1 - table.saturation, 1 + table.saturation),
        "hue": (angle / np.pi, 0, table.hue),
        "gamma": (np.log(drawn["gamma"]), *gamma),
    }
    for name, (values, low, high) in bounds.items():
        width = high - low
        assert low - 1e-3 <= values.min() <= low + 0.01 * width + 1e-6, name
        assert high - 0.01 * width - 1e-6 <= values.max() <= high + 1e-3, name
    assert abs(drawn["brightness"].std() / table.brightness - 1) < 0.05
    assert abs(drawn["brightness"]).max() > 2.5 * table.brightness  # normal, not uniform


def test_noise_is_one_per_batch():
    rng = np.random.default_rng(11)
    begin, end = COLOUR_COLUMNS["noise"]
    sigma = np.stack([draw_colour(rng, 4, CHAIRS)[:, begin:end] for _ in range(300)])
    assert np.ptp(sigma, axis=1).max() == 0
    assert 0 <= sigma.min() < 0.001
    assert 0.039 < sigma.max() <= 0.04


def test_what_is_switched_off_is_still_drawn():
    """So that the data that follow do not depend on the ranges, and a state gives one result."""
    found = []
    for ranges in (CHAIRS, CHAIRS, NOTHING):
        rng = np.random.default_rng(8)
        found.append(
            (draw_geometry(rng, 4, *SHAPES["chairs"], ranges), draw_colour(rng, 4, ranges), rng.integers(2**31))
        )
    one, two, off = found
    assert all(np.array_equal(a, b) for a, b in zip(one, two))
    assert off[2] == one[2]
