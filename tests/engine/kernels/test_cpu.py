"""Threads and their memory, and the correlation on CPUs against PyTorch in float64."""

import threading
import time
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from maskflownet.engine.torch.kernels.cpu import MOST, Threads, correlate
from maskflownet.engine.torch.operators import correlation as reference

SLOPE = 0.1


@pytest.fixture(params=[1, 2, 3, 2 * MOST])
def threads(request, torch_threads):
    torch_threads(request.param)
    return Threads()


def test_each_task_is_done_once_after_what_it_needs_with_memory_of_its_thread(threads):
    finished, memories = [], {}

    def task(number, scratch):
        assert all(other in finished for other in needs[number])
        memories.setdefault(threading.get_ident(), set()).add(id(scratch))
        time.sleep(2e-3 if number % 3 else 5e-3)
        finished.append(number)

    needs = [[number - 3] if number >= 8 else [] for number in range(20)]
    needs[19] = [17, 18]
    with threads:
        threads.run([partial(task, number) for number in range(20)], needs)
    assert sorted(finished) == list(range(20))
    assert all(len(scratches) == 1 for scratches in memories.values())
    assert len(set.union(*memories.values())) == len(memories) == threads.count


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
