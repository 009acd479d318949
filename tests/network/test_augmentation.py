"""The augmentation: draws within their ranges; blocks with exact labels, sparse masks, colours by their equation."""

from dataclasses import replace

import numpy as np
import pytest
from maskflownet.network.augmentation import LEAST_SHARE, ColourAugmentation, GeometryAugmentation
from maskflownet.network.compat import mx
from maskflownet.network.draws import (
    COLOUR_COLUMNS,
    colour_parameters,
    draw_colour,
    draw_geometry,
    draw_windows,
    geometry_parameters,
    hue_matrix,
)
from maskflownet.settings.configs import AugmentationRanges
from maskflownet.settings.datasets import load_data_config
from scipy.ndimage import map_coordinates

CONFIGS = {name: load_data_config(name) for name in ("chairs", "sintel", "kitti")}
COLUMNS = {name: config.augmentation for name, config in CONFIGS.items()}
SHAPES = {name: (config.orig_shape, config.target_shape) for name, config in CONFIGS.items()}  # (H, W)
CHAIRS, KITTI = COLUMNS["chairs"], COLUMNS["kitti"]
NOTHING = AugmentationRanges(
    rotation=0, zoom=(1, 1), aspect=(1, 1), translation=0, relative_rotation=0, relative_translation=0,
    relative_scale=(1, 1), contrast=(0, 0), brightness=0, gain=(1, 1), noise=0, saturation=0, hue=0,
)  # fmt: skip
ORIGINAL, TARGET = (96, 128), (64, 96)
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


def run(block, *arrays):
    return [out.asnumpy() for out in block(*(mx.nd.array(a, dtype="float32") for a in arrays))]


def scene(rng, batch, shape):
    img1, img2 = (rng.random((batch, 3, *shape)) for _ in range(2))
    flow = rng.normal(0, 5, (batch, 2, *shape))
    mask = (rng.random((batch, 1, *shape)) < 0.3).astype(float)
    return img1, img2, flow, mask


def pair(seed, batch=1, shape=(24, 40)):
    rng = np.random.default_rng(seed)
    images = [rng.random((batch, 3, *shape)) for _ in range(2)]
    return [*images, *(rng.standard_normal((batch, 3, *shape)) for _ in range(2))]


def pixels(shape):
    """(2, H, W), the (x, y) of each pixel."""
    return np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in shape[::-1])))


def smooth_flow(shape, amount):
    x, y = pixels(shape)
    return amount * np.stack([np.sin(y / 21) + 0.01 * x, np.cos(x / 33) - 0.02 * y])


def worst_label_error(original, target, params, flow):
    """Largest |A - B| in px of the original, where A is the point that image 1 shows at a pixel,
    moved by the old flow, and B the point that image 2 shows where the new label leads.

    The images hold coordinates. What image 2 shows is affine in the target's coordinates, so
    that its map can be read off the pixels inside the picture and followed to any point.
    """
    ones = np.ones((1, *original))
    img1 = np.concatenate([pixels(original) + flow, ones])
    img2 = np.concatenate([pixels(original), ones])
    inputs = (np.repeat(array[None], len(params), 0) for array in (img1, img2, flow, ones))
    img1, img2, label, mask = run(GeometryAugmentation(target), *inputs, params)
    assert np.abs(img1[:, 2] - 1).max() < 1e-5  # nothing outside the picture
    assert np.abs(mask - 1).max() < 1e-5
    at = pixels(target)
    worst = 0.0
    for moved, shown, new in zip(img1.astype(float), img2.astype(float), label.astype(float)):
        inside = shown[2] > 1 - 1e-6
        assert inside.mean() > 0.5
        points = np.stack([*at, np.ones(target)])
        affine = np.linalg.lstsq(points[:, inside].T, shown[:2, inside].T, rcond=None)[0].T
        assert np.abs(np.tensordot(affine, points, 1) - shown[:2])[:, inside].max() < 1e-3
        points[:2] += new
        worst = max(worst, np.abs(np.tensordot(affine, points, 1) - moved[:2]).max())
    return worst


@columns
@pytest.mark.parametrize(("count", "amount"), [(100, 0), (100, 10), (2, 20)])
def test_the_label_is_exact_for_many_draws_and_at_full_size(column, count, amount):
    original, target = SHAPES[column] if count == 2 else (ORIGINAL, TARGET)
    params = draw_geometry(np.random.default_rng(count), count, original, target, COLUMNS[column])
    flow = smooth_flow(original, amount) + 0.3 * amount
    assert worst_label_error(original, target, params, flow) < 1e-3


def bilinear(image, x, y):
    """Bilinear samples of image (C, H, W) at x, y, zero outside, in float64."""
    return np.stack([map_coordinates(c, (y, x), np.float64, order=1, mode="grid-constant") for c in image])


@columns
def test_images_are_sampled_where_the_windows_say(column):
    rng = np.random.default_rng(3)
    windows = draw_windows(rng, 8, ORIGINAL, TARGET, COLUMNS[column])
    img1, img2, flow, mask = scene(rng, 8, ORIGINAL)
    params = geometry_parameters(windows, ORIGINAL, TARGET)
    outputs = run(GeometryAugmentation(TARGET), img1, img2, flow, mask, params)
    d = pixels(TARGET) - (np.array(TARGET[::-1])[:, None, None] - 1) / 2
    centre = (np.array(ORIGINAL[::-1]) - 1) / 2
    for n, (A, t, B, r) in enumerate(zip(*windows)):
        at1 = (centre + t)[:, None, None] + np.tensordot(A, d, 1)
        at2 = (centre + t + r)[:, None, None] + np.tensordot(A @ B, d, 1)
        assert np.abs(outputs[0][n] - bilinear(img1[n], *at1)).max() < 1e-3
        assert np.abs(outputs[1][n] - bilinear(img2[n], *at2)).max() < 1e-3
        assert np.abs(outputs[3][n] - bilinear(mask[n], *at1)).max() < 2 * LEAST_SHARE


def test_no_range_is_the_identity():
    rng = np.random.default_rng(4)
    img1, img2, _, mask = scene(rng, 3, TARGET)
    flow = np.tile(smooth_flow(TARGET, 20), (3, 1, 1, 1))
    params = draw_geometry(rng, 3, TARGET, TARGET, NOTHING)
    outputs = run(GeometryAugmentation(TARGET), img1, img2, flow, mask, params)
    colours = pair(1)
    outputs += run(ColourAugmentation(), *colours, draw_colour(rng, 1, NOTHING))
    for got, want in zip(outputs, (img1, img2, flow * mask, mask, *colours)):
        assert np.abs(got - want).max() < 2e-5


@columns
def test_constant_flow_survives_a_sparse_mask_with_huge_values_beside(column):
    rng = np.random.default_rng(6)
    params = draw_geometry(rng, 16, ORIGINAL, TARGET, COLUMNS[column])
    img1, img2, _, mask = scene(rng, 16, ORIGINAL)
    flow = np.zeros((16, 2, *ORIGINAL)) + np.array([12.5, -7.25])[:, None, None]
    block = GeometryAugmentation(TARGET)
    dense = run(block, img1, img2, flow, np.ones_like(mask), params)[2]
    holes = np.where(mask > 0, flow, rng.choice([1e9, -1e9], flow.shape))
    label, weight = run(block, img1, img2, holes, mask, params)[2:]
    valid = weight > 0
    assert 0.3 < valid.mean() < 0.99
    assert weight.max() <= 1 + 1e-6
    assert np.abs(np.where(valid, label - dense, 0)).max() < 1e-4
    assert np.abs(np.where(valid, 0, label)).max() == 0


@pytest.mark.parametrize("block", [GeometryAugmentation(TARGET), ColourAugmentation()])
def test_imperative_hybrid_and_symbolic_agree(block):
    rng = np.random.default_rng(9)
    inputs = [*pair(9, 2), draw_colour(rng, 2, KITTI)]
    if isinstance(block, GeometryAugmentation):
        inputs = [*scene(rng, 2, ORIGINAL), draw_geometry(rng, 2, ORIGINAL, TARGET, KITTI)]
    eager = run(block, *inputs)
    names = [f"input{i}" for i in range(len(inputs))]
    graph = mx.sym.Group(list(block(*(mx.sym.var(name) for name in names)))).tojson()
    assert not block.collect_params().keys()
    loaded = mx.sym.load_json(graph)
    assert loaded.list_inputs() and set(loaded.list_inputs()) == set(names)
    bound = loaded.bind(
        mx.cpu(), {name: mx.nd.array(a, dtype="float32") for name, a in zip(names, inputs)}, grad_req="null"
    )
    symbolic = [out.asnumpy() for out in bound.forward()]
    block.hybridize()
    for one, two, three in zip(eager, run(block, *inputs), symbolic):
        assert np.array_equal(one, two)
        assert np.array_equal(one, three)


def test_colour_follows_the_equation_step_by_step():
    rng = np.random.default_rng(2)
    inputs = pair(2, batch=4)
    hue = hue_matrix(rng.uniform(0.5, 1.5, 4), rng.uniform(-1, 1, 4))
    noise, contrast = np.full(4, 0.03), rng.uniform(-0.4, 0.8, 4)
    gain, brightness = rng.uniform(0.8, 1.4, (4, 3)), rng.normal(0, 0.1, 4)
    exponent = np.exp(rng.uniform(-0.5, 0.5, 4))
    params = colour_parameters(
        hue=hue, noise=noise, contrast=contrast, gain=gain, brightness=brightness, exponent=exponent
    )
    outputs = run(ColourAugmentation(), *inputs, params)
    for i in range(2):
        for n in range(4):
            x = np.tensordot(hue[n], inputs[i][n], 1) + noise[n] * inputs[2 + i][n]
            m, g = x.mean((1, 2), keepdims=True), gain[n][:, None, None]
            x = (x - m) * (1 + contrast[n]) * g + m * g + brightness[n]
            assert x.min() < 0
            assert x.max() > 1
            expected = np.clip(x, 0, 1) ** exponent[n]
            # A steep power near 0 widens the rounding of x.
            assert np.abs(outputs[i][n] - expected).max() < 1e-3
            assert np.abs(outputs[i][n] ** (1 / exponent[n]) - np.clip(x, 0, 1)).max() < 1e-5
