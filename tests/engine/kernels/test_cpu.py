"""Threads and their memory; Winograd's convolution and the correlation on CPUs against PyTorch in float64."""

import threading
import time
from functools import partial

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from maskflownet.engine.torch.kernels.cpu import (  # noqa: E402
    MOST,
    POSITIONS,
    Frame,
    Scratch,
    Threads,
    TileGrid,
    correlate,
    place_outputs,
    transform_filters,
    transform_inputs,
    transform_outputs,
)
from maskflownet.engine.torch.operators import correlation as reference  # noqa: E402

SLOPE = 0.1


@pytest.fixture(params=[1, 2, 3, 2 * MOST])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield Threads()
    torch.set_num_threads(before)


def test_every_task_is_done_once_with_memory_of_its_thread(threads):
    done, memories = [], {}

    def task(number, scratch):
        memories.setdefault(threading.get_ident(), set()).add(id(scratch))
        done.append(number)
        time.sleep(1e-3)

    with threads:
        threads.run([partial(task, number) for number in range(20)])
    assert sorted(done) == list(range(20))
    assert all(len(scratches) == 1 for scratches in memories.values())
    assert len(set.union(*memories.values())) == len(memories) == threads.count


def test_a_task_starts_when_what_it_needs_is_finished(threads):
    finished = []

    def task(number, _):
        assert all(other in finished for other in needs[number])
        time.sleep(2e-3 if number % 3 else 5e-3)
        finished.append(number)

    needs = [[number - 3] if number >= 3 else [] for number in range(12)]
    needs[11] = [9, 10]
    with threads:
        threads.run([partial(task, number) for number in range(12)], needs)
    assert len(finished) == 12


def test_an_error_ends_the_round_and_reaches_the_caller(threads):
    done = []

    def task(number, _):
        if number == 1:
            raise RuntimeError("no luck")
        done.append(number)

    needs = [[], [], [1], [2], [3]]
    with threads:
        with pytest.raises(RuntimeError, match="no luck"):
            threads.run([partial(task, number) for number in range(5)], needs)
        assert done in ([], [0])
        threads.run([partial(task, 7), partial(task, 8)])
    assert sorted(done[-2:]) == [7, 8]


def test_settings_of_pytorch_hold_in_every_thread_and_return(threads):
    total, seen = torch.get_num_threads(), []

    def task(_):
        state = torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        seen.append((threading.get_ident(), state))
        time.sleep(5e-3)

    with torch.inference_mode(), threads:
        threads.run([task] * (4 * threads.count))
    assert {state for _, state in seen} == {(max(1, total // threads.count), True, False)}
    assert len({thread for thread, _ in seen}) == threads.count
    assert torch.get_num_threads() == total


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def convolve(x, weight, bias, slope, dilation, tiles):
    """One image (C, H, W) -> (K, H, W) in strips of about as many tiles."""
    channels, height, width = x.shape
    grid, scratch = TileGrid(height, width, dilation), Scratch()
    memory = Frame(height, width, dilation, *grid.padded).framed([x[None]], Threads(), "x")[0]
    filters = transform_filters(weight, Threads())
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


def test_rounding_is_far_below_that_of_the_points_0_1_2():
    """Sums of 512 channels: the paper's points are off by 8e-6 of the largest value, these 2e-6."""
    x, weight = F.leaky_relu(draw(512, 24, 24), SLOPE), draw(32, 512, 3, 3, seed=1)
    expected = F.conv2d(x[None].double(), weight.double(), padding=1)[0]
    result = convolve(x, weight, None, None, 1, 64)
    assert (result - expected).abs().max() < 4e-6 * expected.abs().max()


@pytest.mark.parametrize("slope", [None, SLOPE])
@pytest.mark.parametrize("radius", [2, 4])
@pytest.mark.parametrize("shape", [(2, 6, 5, 37), (1, 196, 1, 1), (1, 32, 9, 16)])
def test_correlation(shape, radius, slope):
    a, b = draw(*shape), draw(*shape, seed=1)
    expected = reference(a.double(), b.double(), max_displacement=radius, pad_size=radius)
    expected = expected if slope is None else F.leaky_relu(expected, slope)
    with Threads() as threads:
        for _ in range(2):  # what the first call left in memory must not matter
            result = correlate(a, b, radius, slope, threads)
            assert (result - expected).abs().max() < 1e-5
        channels_last = [x.contiguous(memory_format=torch.channels_last) for x in (a, b)]
        assert torch.allclose(correlate(*channels_last, radius, slope, threads), result, atol=1e-6)
