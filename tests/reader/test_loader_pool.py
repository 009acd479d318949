"""Workers: how they start, fail and end, and the memory that batches need."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest
from trees import make_chairs

from reader.chairs import Chairs
from reader.loader import TrainLoader, ordered
from reader.loader_pool import Pool, WorkerError

proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc who is alive")
ROOT = Path(__file__).resolve().parent.parent.parent
# It ends by itself in any case. Python 3.8 may notice a signal only after a sleep, hence many.
SCRIPT = """
import multiprocessing, signal, sys, time
from itertools import islice
print("main", flush=True)
from reader.chairs import Chairs
from reader.loader import TrainLoader
# Ignored where the tests run in the background of a shell, which child processes inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
loader = TrainLoader([(Chairs(sys.argv[1]), 2)], (64, 128), workers=1)
for step, batch in enumerate(islice(loader.batches(), 2)):
    if step == 1:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        for _ in range({sleeps}):
            time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def chairs(tmp_path_factory):
    return Chairs(make_chairs(tmp_path_factory.mktemp("chairs"), train=7, val=0))


def workers_of(before):
    return [child for child in multiprocessing.active_children() if child not in before]


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_killed_worker_is_a_sentence(chairs):
    before = multiprocessing.active_children()
    with TrainLoader([(chairs, 2)], (64, 128), workers=2, prefetch=2) as loader:
        batches = loader.batches()
        next(batches)
        os.kill(workers_of(before)[0].pid, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(WorkerError, match="died"):
            for _ in islice(batches, 1000):
                pass
        assert time.monotonic() - start < 10
    assert not workers_of(before)


def test_closing_the_generator_ends_the_workers(chairs):
    before = multiprocessing.active_children()
    batches = TrainLoader([(chairs, 2)], (64, 128), workers=1, prefetch=50).batches()
    next(batches)
    assert len(workers_of(before)) == 1
    start = time.monotonic()
    batches.close()
    assert not workers_of(before) and time.monotonic() - start < 3


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


class Negative:
    def __call__(self, number):
        return -number


@contextmanager
def running(*arguments):
    """Run Python in a process group of its own, of which nothing is left afterwards."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_script_without_guard_runs_once(chairs, tmp_path):
    """Workers neither import the main script nor what only it imports."""
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})" + SCRIPT.format(sleeps=0))
    with running(script, chairs.root) as process:
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert output.count("main") == 1


@proc
def test_ctrl_c_leaves_nothing_behind(chairs):
    with running("-c", SCRIPT.format(sleeps=600), chairs.root) as process:
        assert process.stdout.readline() == "main\n"
        (worker,) = map(int, process.stdout.readline().split())
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=20)[1]
        assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
        assert wait_for(lambda: not alive(worker))


@proc
def test_workers_end_when_their_parent_is_killed(chairs):
    with running("-c", SCRIPT.format(sleeps=600), chairs.root) as process:
        process.stdout.readline()
        (worker,) = map(int, process.stdout.readline().split())
        process.kill()
        process.communicate(timeout=20)
        assert wait_for(lambda: not alive(worker))


def test_ctrl_c_while_tasks_are_given_out_comes_once_all_are():
    """An executor with half a task waits for it for ever."""
    taken = []

    def tasks():
        for number in range(1000):
            taken.append(number)
            if number == 6:
                os.kill(os.getpid(), signal.SIGINT)
            yield (number,)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pool = Pool(1, Negative)
    results = pool.results(tasks(), ahead=5)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(results)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert taken == list(range(7)), "the task was not given out"
        assert [future.result(10) for future in pool._pending] == [-2, -3, -4, -5, -6]
    finally:
        signal.signal(signal.SIGINT, before)
        pool.close()


def alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


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
