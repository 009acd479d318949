"""Workers: how they start, fail and end, and the memory that batches need."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest
from trees import make_chairs

from reader.chairs import Chairs
from reader.loader import TrainLoader, ordered
from reader.loader_pool import Context, Pool, WorkerError

LONG = 60  # s, more than anything here needs on a loaded machine
proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc who is alive")
masks = pytest.mark.skipif(
    not hasattr(signal, "pthread_sigmask"), reason="signals cannot be blocked on this system"
)
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
STARTING = """
import os, signal
from reader.loader_pool import Context
signal.signal(signal.SIGINT, signal.default_int_handler)
process = Context().Process(target=print, args=("done",))
process.start()
os.kill(process.pid, signal.SIGINT)
process.join()
print(process.exitcode, signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


@pytest.fixture(scope="module")
def chairs(tmp_path_factory):
    return Chairs(make_chairs(tmp_path_factory.mktemp("chairs"), train=7, val=0))


def workers_of(before):
    return [child for child in multiprocessing.active_children() if child not in before]


def wait_for(condition):
    end = time.monotonic() + LONG
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def begin(action) -> Future:
    """Do it in a thread, so that a test does not hang with it."""
    future = Future()

    def work():
        try:
            future.set_result(action())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


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


class Negative:
    def __call__(self, number):
        return -number


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
        Context().Process(target=print, kwargs={"end": Pickled(action)})
        for action in (in_first, in_second)
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


class Pickled:
    """Does something when it is sent to a new process, where it is an empty string."""

    def __init__(self, action):
        self.action = action

    def __reduce__(self):
        self.action()
        return (str, ())


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
        output, errors = process.communicate(timeout=LONG)
    assert (process.returncode, errors) == (0, "")
    assert output.count("main") == 1


@proc
def test_ctrl_c_leaves_nothing_behind(chairs):
    with running("-c", SCRIPT.format(sleeps=600), chairs.root) as process:
        assert process.stdout.readline() == "main\n"
        (worker,) = map(int, process.stdout.readline().split())
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=LONG)[1]
        assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
        assert wait_for(lambda: not alive(worker))


@masks
def test_ctrl_c_does_not_end_a_process_that_starts():
    """Not even the first one, with which multiprocessing starts a helper that changes the mask."""
    with running("-c", STARTING) as process:
        output, errors = process.communicate(timeout=LONG)
    assert (output, errors) == ("done\n0 False\n", "")


@masks
def test_ctrl_c_comes_once_a_process_has_been_started():
    """Half a process could be neither ended nor waited for."""

    def press():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    end = threading.Event()
    other = begin(lambda: end.wait(LONG))  # a thread whose mask lets the signal in
    process = Context().Process(target=print, kwargs={"end": Pickled(press)})
    try:
        with pytest.raises(KeyboardInterrupt):
            process.start()
        process.join(LONG)
        assert process.exitcode == 0
    finally:
        signal.signal(signal.SIGINT, before)
        end.set()
        other.result(LONG)


@masks
def test_ctrl_c_while_workers_start_is_ignored():
    before = multiprocessing.active_children()
    pool = Pool(2, Negative)
    try:
        results = begin(lambda: list(pool.results(((n,) for n in range(4)), ahead=4)))

        def press():
            for worker in workers_of(before):
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGINT)
            return results.done()

        assert wait_for(press)
        assert results.result() == [0, -1, -2, -3]
    finally:
        pool.close()


@proc
def test_workers_end_when_their_parent_is_killed(chairs):
    with running("-c", SCRIPT.format(sleeps=600), chairs.root) as process:
        process.stdout.readline()
        (worker,) = map(int, process.stdout.readline().split())
        process.kill()
        process.communicate(timeout=LONG)
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
        assert [future.result(LONG) for future in pool._pending] == [-2, -3, -4, -5, -6]
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
