"""Workers of programs of their own: Ctrl-C, kills, and what of them remains."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from maskflownet.reader.chairs import Chairs
from maskflownet.reader.pool import Context, Pool

from tests.pool_processes import LONG, Negative, Pickled, begin, wait_for, workers_of
from tests.trees import make_chairs

proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc who is alive")
masks = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be blocked on this system")
ROOT = Path(__file__).resolve().parent.parent.parent
# It ends by itself in any case. Python 3.8 may notice a signal only after a sleep, hence many.
SCRIPT = """
import multiprocessing, signal, sys, time
from itertools import islice
print("main", flush=True)
from maskflownet.reader.chairs import Chairs
from maskflownet.reader.loader import TrainLoader
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
from maskflownet.reader.pool import Context
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
