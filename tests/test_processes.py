"""Processes that work for others: how they start, fail and end, and what Ctrl-C does to them."""

import multiprocessing
import os
import platform
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from itertools import islice

import numpy as np
import pytest
from maskflownet import processes
from maskflownet.errors import UserError
from maskflownet.processes import Context, Interruption, Pool
from maskflownet.reader.loader import TrainLoader
from maskflownet.settings.folders import ROOT

LONG = 60  # s, more than anything here needs on a loaded machine
masks = pytest.mark.skipif(not processes.MASKS, reason="signals cannot be blocked on this system")


def negative(number):
    return -number


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def children(before):
    """Those that there are: of an end that another thread has waited for multiprocessing hears a moment later."""
    return [child for child in multiprocessing.active_children() if child not in before and exists(child.pid)]


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


class Pickled:
    """Does something when it is sent to a new process, where it is an empty string."""

    def __init__(self, action):
        self.action = action

    def __reduce__(self):
        self.action()
        return (str, ())


@pytest.fixture
def default_ctrl_c():
    """Ignored where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("sent", [None, "SIGSTOP", "SIGKILL"])
def test_closing_ends_the_readers_and_a_killed_one_is_a_sentence(chairs, sent, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 1.0)
    before = multiprocessing.active_children()
    batches = TrainLoader([(chairs, 2)], (64, 128), readers=2).batches()
    next(batches)
    if sent:
        os.kill(children(before)[0].pid, getattr(signal, sent))
    if sent == "SIGKILL":
        with pytest.raises(UserError, match="a process that loads the data died"):
            begin(lambda: deque(islice(batches, 1000), maxlen=0)).result(LONG)
    begin(batches.close).result(LONG)
    assert not children(before)


def test_a_reader_that_does_not_answer_is_told_and_does_not_keep_the_end_from_coming(chairs, monkeypatch):
    monkeypatch.setattr(processes, "SILENCE", 1.0)
    monkeypatch.setattr(processes, "PATIENCE", 4.0)
    before = multiprocessing.active_children()
    with Interruption(), closing(TrainLoader([(chairs, 2)], (64, 128), readers=1).batches()) as batches:
        next(batches)
        (reader,) = children(before)
        os.kill(reader.pid, signal.SIGSTOP)
        threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with (
            pytest.warns(UserWarning, match="not answered for 1 s"),
            pytest.raises(UserError, match="the end was asked for, but "),
        ):
            deque(islice(batches, 1000), maxlen=0)
    assert not children(before)


class Slow:
    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        time.sleep(0.1)
        return self.dataset[index]


def test_the_end_is_waited_for_where_samples_are_slow(chairs, monkeypatch):
    """A reader is told of few at a time, however many readers and samples there are."""
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    with Interruption(), closing(TrainLoader([(Slow(chairs), 16)], (64, 128), readers=1).batches()) as batches:
        next(batches)
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(next(batches).names) == 16


def test_tasks_are_taken_no_further_than_asked():
    taken = []

    def tasks():
        for number in range(1000):
            taken.append(number)
            yield (number,)

    pool = Pool(1, negative)
    results = pool.results(tasks(), ahead=5)
    assert [next(results) for _ in range(3)] == [0, -1, -2]
    assert len(taken) <= 3 + 5
    pool.close()


def page_faults(_):
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [np.ones(2**20, np.uint8) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep what they like")
def test_a_worker_keeps_the_memory_that_it_frees():
    with closing(Pool(1, page_faults)) as pool:
        _, second = islice(pool.results(((i,) for i in range(2)), 1), 2)
    assert second < 1000  # without it 40,960


def test_threads_keep_the_order_and_begin_no_more_than_asked():
    begun = []

    def call(number):
        begun.append(number)
        time.sleep(0.002 * (number % 3))
        return number

    done = processes.in_threads((partial(call, i) for i in range(20)), threads=3, most=5)
    for number, result in enumerate(done):
        assert result == number and max(begun) <= number + 5
    assert list(processes.ahead(iter(range(20)), 3)) == list(range(20))


@pytest.mark.parametrize("way", ["closed", "error", "ctrl-c"])
def test_no_thread_outlives_a_generator(way):
    def numbers():
        yield from range(5)
        raise OSError("the sixth")

    before, error = threading.active_count(), {"error": OSError, "ctrl-c": KeyboardInterrupt}.get(way)
    with pytest.raises(error) if error else nullcontext(), closing(processes.ahead(numbers(), 2)) as made:
        for number in made:
            assert number < 5
            if way == "closed" and number == 2:
                break
            if way == "ctrl-c" and number == 2:
                raise KeyboardInterrupt
    assert threading.active_count() == before


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


# It ends by itself in any case.
SCRIPT = """
import multiprocessing, signal, sys, time
from itertools import islice
print("main", flush=True)
from maskflownet.reader.flying import Chairs
from maskflownet.reader.loader import TrainLoader
signal.signal(signal.SIGINT, signal.default_int_handler)
batches = TrainLoader([(Chairs(sys.argv[1]), 2)], (64, 128), readers=1).batches()
for step, batch in enumerate(islice(batches, 2)):
    if step == 1:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep({sleep})
batches.close()
"""
STARTING = """
import os, signal
from maskflownet.processes import Context
signal.signal(signal.SIGINT, signal.default_int_handler)
process = Context().Process(target=print, args=("done",))
process.start()
os.kill(process.pid, signal.SIGINT)
process.join()
print(process.exitcode, signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


@contextmanager
def running(*arguments):
    """Run Python in a process group of its own, of which nothing is left afterwards."""
    command, pipe = [sys.executable, *map(str, arguments)], subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_script_without_guard_runs_once(chairs, tmp_path):
    """Readers neither import the main script nor what only it imports."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(sleep=0))
    with running(script, chairs.root) as process:
        output, errors = process.communicate(timeout=LONG)
    assert (process.returncode, errors) == (0, "")
    assert output.count("main") == 1


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is no child of this one")
@pytest.mark.parametrize("ending", ["ctrl-c", "kill"])
def test_readers_end_with_the_program(chairs, ending):
    with running("-c", SCRIPT.format(sleep=60), chairs.root) as process:
        assert process.stdout.readline() == "main\n"
        reader = os.pidfd_open(int(process.stdout.readline()))
        if ending == "kill":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=LONG)[1]
        if ending == "ctrl-c":
            assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
        assert select.select([reader], [], [], LONG)[0], "the reader has not ended"
    os.close(reader)


@masks
def test_ctrl_c_does_not_end_a_process_that_starts():
    """Not even the first one, with which multiprocessing starts a helper that changes the mask."""
    with running("-c", STARTING) as process:
        output, errors = process.communicate(timeout=LONG)
    assert (output, errors) == ("done\n0 False\n", "")


@masks
def test_ctrl_c_comes_once_a_process_has_been_started(default_ctrl_c):
    """Half a process could be neither ended nor waited for."""

    def press():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

    end = threading.Event()
    other = begin(lambda: end.wait(LONG))  # a thread whose mask lets the signal in
    process = Context().Process(target=print, kwargs={"end": Pickled(press)})
    try:
        with pytest.raises(KeyboardInterrupt):
            process.start()
        process.join(LONG)
        assert process.exitcode == 0
    finally:
        end.set()
        other.result(LONG)


def test_ctrl_c_while_tasks_are_given_out_comes_once_all_are(default_ctrl_c):
    """An executor with half a task waits for it for ever."""
    taken = []

    def tasks():
        for number in range(1000):
            taken.append(number)
            if number == 6:
                os.kill(os.getpid(), signal.SIGINT)
            yield (number,)

    pool = Pool(1, negative)
    with pytest.raises(KeyboardInterrupt):
        list(pool.results(tasks(), ahead=5))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert taken == list(range(7)), "the task was not given out"
    begin(pool.close).result(LONG)


def test_a_second_ctrl_c_counts_only_after_a_while(default_ctrl_c, monkeypatch):
    """A human presses twice, and torchrun repeats what the terminal has sent already."""
    told = []
    with pytest.raises(KeyboardInterrupt), Interruption(lambda: told.append(1)) as interruption:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        assert interruption.pressed and told == [1]
        monkeypatch.setattr(processes, "ONE_PRESS", 0.0)
        time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
