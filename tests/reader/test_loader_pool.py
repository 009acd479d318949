"""Workers: how they start, fail and end, and the memory that batches need."""

import multiprocessing
import os
import signal
import sys
import threading
import tracemalloc
from collections import deque
from itertools import islice

import pytest
from maskflownet.reader.chairs import Chairs
from maskflownet.reader.loader import TrainLoader, ordered
from maskflownet.reader.pool import Context, Pool, WorkerError

from tests.pool_processes import LONG, Negative, Pickled, begin, wait_for, workers_of
from tests.trees import make_chairs


@pytest.fixture(scope="module")
def chairs(tmp_path_factory):
    return Chairs(make_chairs(tmp_path_factory.mktemp("chairs"), train=7, val=0))


def test_killed_worker_is_a_sentence(chairs):
    before = multiprocessing.active_children()
    with TrainLoader([(chairs, 2)], (64, 128), workers=2, prefetch=2) as loader:
        batches = loader.batches()
        next(batches)
        os.kill(workers_of(before)[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="died"):
            begin(lambda: deque(islice(batches, 1000), maxlen=0)).result(LONG)
    assert not workers_of(before)


def test_closing_the_generator_ends_the_workers(chairs):
    before = multiprocessing.active_children()
    batches = TrainLoader([(chairs, 2)], (64, 128), workers=1, prefetch=50).batches()
    next(batches)
    assert len(workers_of(before)) == 1
    begin(batches.close).result(LONG)
    assert not workers_of(before)


def test_closing_the_loader_ends_its_generators(chairs):
    before = multiprocessing.active_children()
    with TrainLoader([(chairs, 2)], (64, 128), workers=1) as loader:
        batches = loader.batches()
        next(batches)
    assert not workers_of(before)
    assert list(batches) == []


def test_leaving_ordered_early_ends_the_workers(chairs):
    before = multiprocessing.active_children()
    for index, _ in ordered(chairs, workers=1):
        if index == 1:
            break
    assert wait_for(lambda: not workers_of(before))


def test_tasks_are_taken_no_further_than_asked():
    taken = []

    def tasks():
        for number in range(1000):
            taken.append(number)
            yield (number,)

    pool = Pool(1, Negative)
    results = pool.results(tasks(), ahead=5)
    assert [next(results) for _ in range(3)] == [0, -1, -2]
    assert len(taken) <= 3 + 5
    pool.close()


class Late(Negative):
    def __init__(self, path):
        wait_for(path.exists)


def test_two_threads_may_close_at_once():
    """One of them shuts the executor down; both return when that is done."""
    pool = Pool(1, Negative)
    assert next(pool.results([(1,), (2,)], ahead=2)) == -1
    shutdown, begun, ended = pool._executor.shutdown, [], []
    second = threading.Event()

    def slow_shutdown(wait):
        begun.append(1)
        if len(begun) == 2:
            second.set()
        second.wait(0.5)
        shutdown(wait=wait)
        ended.append(1)

    pool._executor.shutdown = slow_shutdown

    def close():
        pool.close()
        return len(ended)

    closing = [begin(close), begin(close)]
    assert [future.result(LONG) for future in closing] == [1, 1]
    assert len(begun) == 1


def test_the_result_of_a_task_that_closing_skipped_is_not_yielded(tmp_path):
    pool, taken = Pool(1, Late, (tmp_path / "go",)), []

    def tasks():
        taken.append(1)
        yield (1,)

    results = begin(lambda: list(pool.results(tasks(), ahead=1)))
    assert wait_for(lambda: taken)
    closing = begin(pool.close)
    assert wait_for(lambda: pool._stop.value)
    (tmp_path / "go").touch()
    assert results.result(LONG) == []
    closing.result(LONG)


def test_the_main_script_stays_hidden_while_two_threads_start_processes(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "the script", raising=False)
    events = first_inside, second_inside, first_done = [threading.Event() for _ in range(3)]
    seen = []

    def in_first():
        first_inside.set()
        second_inside.wait(0.3)  # which it only gets if nothing keeps it out

    def in_second():
        second_inside.set()
        first_done.wait(LONG)
        seen.append(main.__file__)

    first, second = (
        Context().Process(target=print, kwargs={"end": Pickled(action)}) for action in (in_first, in_second)
    )
    starting = begin(first.start)
    assert first_inside.wait(LONG)
    other = begin(second.start)
    starting.result(LONG)
    first_done.set()
    other.result(LONG)
    for process in (first, second):
        process.join(LONG)
    assert all(event.is_set() for event in events)
    assert seen == [None] and main.__file__ == "the script"


def test_lesson_10_memory_stays_flat(chairs):
    """Ten passes need no more memory than the first batches did."""
    batches = TrainLoader([(chairs, 2)], (64, 128)).batches()
    tracemalloc.start()
    try:
        for _ in islice(batches, 5):
            pass
        early = tracemalloc.get_traced_memory()[0]
        for _ in islice(batches, 35):
            pass
        late = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        batches.close()
    assert late - early < 64 * 128 * 15, "a sample remains in memory"
