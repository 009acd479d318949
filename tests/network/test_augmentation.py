"""The augmentation's blocks: exact labels, sparse masks, colours by their equation, one result in every mode."""

import numpy as np
import pytest
from maskflownet.network.augmentation import LEAST_SHARE, ColourAugmentation, GeometryAugmentation
from maskflownet.network.compat import mx
from maskflownet.network.draws import (
    colour_parameters,
    draw_colour,
    draw_geometry,
    draw_windows,
    geometry_parameters,
    hue_matrix,
)

from tests.network.augmentation_cases import COLUMNS, KITTI, NOTHING, SHAPES, pair, run, scene

ORIGINAL, TARGET = (96, 128), (64, 96)
columns = pytest.mark.parametrize("column", sorted(COLUMNS))


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
    batch = len(params)

    def repeat(array):
        return np.repeat(array[None], batch, 0)

    ones = np.ones((1, *original))
    img1 = np.concatenate([pixels(original) + flow, ones])
    img2 = np.concatenate([pixels(original), ones])
    block = GeometryAugmentation(target)
    img1, img2, label, mask = run(block, repeat(img1), repeat(img2), repeat(flow), repeat(ones), params)
    assert np.abs(img1[:, 2] - 1).max() < 1e-5  # nothing outside the picture
    assert np.abs(mask - 1).max() < 1e-5
    at = pixels(target)
    worst = 0.0
    for moved, shown, new in zip(img1.astype(float), img2.astype(float), label.astype(float)):
        inside = shown[2] > 1 - 1e-6
        assert inside.mean() > 0.5
        points = np.stack([*at, ones[0, :1, :1].repeat(at.shape[1], 0).repeat(at.shape[2], 1)])
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
    _, height, width = image.shape
    padded = np.pad(image.astype(float), ((0, 0), (1, 1), (1, 1)))
    x, y = np.clip(x + 1, 0, width + 1 - 1e-9), np.clip(y + 1, 0, height + 1 - 1e-9)
    j, i = x.astype(int), y.astype(int)
    u, v = x - j, y - i
    top = (1 - u) * padded[:, i, j] + u * padded[:, i, j + 1]
    return (1 - v) * top + v * ((1 - u) * padded[:, i + 1, j] + u * padded[:, i + 1, j + 1])


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


def cases():
    rng = np.random.default_rng(9)
    geometry = draw_geometry(rng, 2, ORIGINAL, TARGET, KITTI)
    yield GeometryAugmentation(TARGET), [*scene(rng, 2, ORIGINAL), geometry]
    yield ColourAugmentation(), [*pair(9, 2), draw_colour(rng, 2, KITTI)]


@pytest.mark.parametrize("index", [0, 1])
def test_imperative_hybrid_and_symbolic_agree(index):
    block, inputs = list(cases())[index]
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
