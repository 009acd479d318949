"""Winograd's convolution against PyTorch in float64."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from maskflownet.engine.torch.kernels.threads import Frame, Scratch, Threads  # noqa: E402
from maskflownet.engine.torch.kernels.winograd import (  # noqa: E402
    POSITIONS,
    TileGrid,
    place_outputs,
    transform_filters,
    transform_inputs,
    transform_outputs,
)

SLOPE = 0.1


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def convolve(x, weight, bias, slope, dilation, tiles):
    """One image (C, H, W) -> (K, H, W) in strips of about as many tiles."""
    channels, height, width = x.shape
    grid, scratch = TileGrid(height, width, dilation), Scratch()
    memory = Frame(height, width, dilation, *grid.padded).framed([x[None]], Threads(), "x")[0]
    filters = transform_filters(weight)
    target = torch.full((*grid.covered, weight.shape[0]), torch.nan)
    for strip in grid.strips(tiles):
        inputs = torch.empty(POSITIONS, grid.tiles(strip), channels)
        transform_inputs(memory, grid, strip, scratch, inputs)
        outputs = transform_outputs(inputs @ filters, bias, scratch)
        place_outputs(outputs, slope, grid, strip, target)
    return target[:height, :width].permute(2, 0, 1)


@pytest.mark.parametrize("tiles", [1, 7, 10**6])
@pytest.mark.parametrize("dilation", [1, 2, 3, 16])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 12), (37, 70)])
def test_convolution_of_any_size_dilation_and_strip(size, dilation, tiles):
    x, weight, bias = draw(6, *size), draw(5, 6, 3, 3, seed=1), draw(5, seed=2)
    expected = F.conv2d(x[None].double(), weight.double(), bias.double(), padding=dilation, dilation=dilation)
    expected = F.leaky_relu(expected, SLOPE)[0]
    result = convolve(x, weight, bias, SLOPE, dilation, tiles)
    assert (result - expected).abs().max() < 1e-5 * expected.abs().max()


def test_without_bias_and_activation():
    x, weight = draw(3, 10, 11), draw(4, 3, 3, 3, seed=1)
    expected = F.conv2d(x[None], weight, padding=1)[0]
    assert torch.allclose(convolve(x, weight, None, None, 1, 4), expected, atol=1e-4)


def test_rounding_is_far_below_that_of_the_points_0_1_2():
    """Sums of 512 channels: the paper's points are off by 8e-6 of the largest value, these 2e-6."""
    x, weight = F.leaky_relu(draw(512, 24, 24), SLOPE), draw(32, 512, 3, 3, seed=1)
    expected = F.conv2d(x[None].double(), weight.double(), padding=1)[0]
    result = convolve(x, weight, None, None, 1, 64)
    assert (result - expected).abs().max() < 4e-6 * expected.abs().max()


def test_every_row_of_tiles_is_in_one_strip():
    for height, dilation, tiles in ((112, 1, 256), (30, 4, 20), (112, 16, 100), (3, 2, 1)):
        grid = TileGrid(height, 64, dilation)
        rows = [
            strip.row + band * strip.step + i * dilation
            for strip in grid.strips(tiles)
            for band in range(strip.bands)
            for i in range(4)
        ]
        assert sorted(rows) == list(range(grid.covered[0]))
