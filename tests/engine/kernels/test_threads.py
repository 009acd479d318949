"""Pieces of work in several threads: order, errors, PyTorch's settings of a thread."""

import threading
import time
from functools import partial

import pytest

torch = pytest.importorskip("torch")

from maskflownet.engine.torch.kernels.threads import MOST, Scratch, Threads  # noqa: E402


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


def test_memory_of_inference_mode_can_be_written_without_it():
    scratch = Scratch()
    with torch.inference_mode():
        first = scratch.take("a", 4)
    with torch.no_grad():
        again = scratch.take("a", 2, 2).fill_(3)
    assert again.data_ptr() == first.data_ptr()
    assert first.tolist() == [3] * 4
