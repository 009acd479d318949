"""Processes and signals: how a process starts others, how they end, and what Ctrl-C does to them.

The signals of `ENDING` all do what Ctrl-C does. In training the first one completes a step and saves, in other programs
it is a KeyboardInterrupt (`Interruption`). Processes that only read data ignore them. All end with the process that
started them, even if that is killed.
"""

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import islice, repeat, takewhile
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

import cv2
from maskflownet.errors import UserError, show_warning, warn_once

# SLURM announces an end with SIGTERM or SIGUSR1, a closed terminal with SIGHUP. Windows lacks the last two.
NAMES = "SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"
ENDING = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
ONE_PRESS = 1.0  # s: launchers such as torchrun repeat the terminal's Ctrl-C at once
GRACE = 20.0  # s in which the others may save a checkpoint after one has died
SILENCE = 60.0  # s without an answer, after which a pool that waits says so
PATIENCE = 5.0  # s for an answer once the end is asked for, and for a task at the end
PARTED = b"."
ENDED = "another process of this training ended"
HOW_ON = "-c with the run's id goes on from its newest checkpoint, if it has one"
MASKS = hasattr(signal, "pthread_sigmask")  # not on Windows


@contextmanager
def handling(handler: Callable) -> Iterator[None]:
    """Inside, this handles the signals of `ENDING`; outside the main thread nothing changes.

    A SIGHUP that is ignored stays so, for nohup. Ctrl-C does not: shells ignore it for all that runs in the background.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in ENDING if in_main}
    before = {n: old for n, old in before.items() if n == signal.SIGINT or old is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def interrupt() -> None:
    raise KeyboardInterrupt


class Interruption:
    """Inside `with`, the first signal of `ENDING` sets `pressed` and calls `first`.

    A second Ctrl-C is a KeyboardInterrupt; within `ONE_PRESS` s it is the same press. Launchers repeat the other
    signals, which changes nothing. Nor does one that comes when an Interruption inside this one has ended by an error.
    """

    innermost: "Interruption | None" = None

    def __init__(self, first: Callable[[], None] | None = None):
        self.pressed, self._since = False, 0.0
        self._first, self._handling = first, handling(self._note)

    def __enter__(self) -> "Interruption":
        self._outer, Interruption.innermost = Interruption.innermost, self
        self._handling.__enter__()
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is not None and self._outer is not None:
            self._outer.pressed, self._outer._since = True, time.monotonic()
        self._handling.__exit__(None, None, None)
        Interruption.innermost = self._outer

    def _note(self, number, frame) -> None:
        if not self.pressed:
            self.pressed, self._since = True, time.monotonic()
            if self._first is not None:
                self._first()
        elif number == signal.SIGINT and time.monotonic() - self._since > ONE_PRESS:
            raise KeyboardInterrupt


def end_is_asked() -> bool:
    """Whether the innermost Interruption was pressed."""
    return Interruption.innermost is not None and Interruption.innermost.pressed


@contextmanager
def signals_later() -> Iterator[None]:
    """Handle a signal of `ENDING` that comes inside only at the end."""
    caught: list[int] = []
    try:
        with handling(lambda number, frame: caught.append(number)):
            yield
    finally:
        for number in caught:
            signal.raise_signal(number)


_starting = threading.Lock()


@contextmanager
def starting() -> Iterator[None]:
    """Processes that start inside do not import the main script, and the signals of `ENDING` are blocked in them.

    The script may import MXNet, which takes seconds and a GPU. They call `follow_parent` first.
    """
    main = sys.modules["__main__"]
    with signals_later(), _starting:  # a second thread would find the names hidden, and leave them so
        hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
        if MASKS:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
            resource_tracker.ensure_running()  # lets its own start unblock some
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            for name in hidden:
                setattr(main, name, None)
            yield
        finally:
            for name, value in hidden.items():
                setattr(main, name, value)
            if MASKS:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def follow_parent() -> None:
    """In a process that was started: end with the parent, and let the signals of `ENDING` come from now on."""

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    if MASKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def ignore_signals() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def end_together(host: str, port: int, serve: bool) -> Callable[[], None]:
    """End this process when another one that calls this for the same address dies; what is returned parts in peace.

    They keep a connection to the one that serves. After a death all have `GRACE` s, in which they may save.
    """
    parted, peers = threading.Event(), []

    def follow(peer: socket.socket) -> None:
        with suppress(OSError):
            if peer.recv(1) == PARTED:
                return
        for other in peers:
            with suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)
        if not parted.wait(GRACE):
            print(f"error: {ENDED}: {HOW_ON}", file=sys.stderr, flush=True)
            os._exit(2)

    def accept(listener: socket.socket) -> None:
        while True:
            peer, _ = listener.accept()
            peers.append(peer)
            threading.Thread(target=follow, args=(peer,), daemon=True).start()

    def part() -> None:
        parted.set()
        with suppress(OSError):
            peer.sendall(PARTED)

    if serve:
        threading.Thread(target=accept, args=(socket.create_server(("", port)),), daemon=True).start()
        return parted.set
    peer = None
    while peer is None:  # the one that serves may start later, as with the parameter server itself
        try:
            peer = socket.create_connection((host, port))
        except OSError:
            time.sleep(0.2)
    threading.Thread(target=follow, args=(peer,), daemon=True).start()
    return part


class _Process(SpawnProcess):
    def start(self) -> None:
        with starting():
            super().start()

    def terminate(self) -> None:  # as an executor does when another worker died
        self.kill()


class Context(SpawnContext):
    """Starts processes as fresh interpreters: a fork would copy the state of MXNet and CUDA."""

    Process = _Process


class Pool:
    """Does tasks in worker processes, in order and a bounded number ahead.

    `work` is called with each task's values; it is pickled, once per worker. With 0 workers the calling process does a
    task when its result is asked for.
    """

    def __init__(self, workers: int, work: Callable):
        self._work, self._executor = work, None
        if workers:
            self._executor = ProcessPoolExecutor(workers, Context(), initializer=_begin, initargs=(work,))

    def results(self, tasks: Iterable[tuple], ahead: int) -> Iterator[Any]:
        """Yield the results of tasks, which may be endless; at most `ahead` are given out and not yet yielded.

        UserError: A worker process died.
        """
        tasks, pending = iter(tasks), deque()
        if self._executor is None:
            for task in tasks:
                yield self._work(*task)
            return
        try:
            while True:
                # Ctrl-C would leave a task that the executor counts and no worker gets: it would wait for ever.
                with signals_later():
                    for task in islice(tasks, ahead - len(pending)):
                        pending.append(self._executor.submit(_do, task))
                if not pending:
                    return
                yield self._answer(pending.popleft())
        except BrokenProcessPool as error:
            raise UserError(
                "a process that loads the data died, mostly because the memory was full "
                "or someone killed it; fewer workers need less memory"
            ) from error

    def _answer(self, future) -> Any:
        begin = time.monotonic()
        while not wait([future], 1.0).done:
            silence = time.monotonic() - begin
            if end_is_asked() and silence > PATIENCE:
                raise UserError("the end was asked for, but the processes that load the data do not answer")
            if silence > SILENCE:
                warn_once(f"the processes that load the data have not answered for {SILENCE:.0f} s")
        return future.result()

    def close(self) -> None:
        """End the workers once the tasks in their hands are done, or after some seconds."""
        if self._executor:
            workers = list((self._executor._processes or {}).values())  # which have no other name
            self._executor.shutdown(wait=False, cancel_futures=True)
            latest = time.monotonic() + PATIENCE
            for worker in workers:
                worker.join(max(0, latest - time.monotonic()))
                worker.kill()
                worker.join()


def in_threads(calls: Iterable[Callable], threads: int, most: int) -> Iterator[Any]:
    """Yield what calls return, in their order; at most `most` of them are begun and not yet yielded.

    When this generator is closed, or a call raised an error, which is raised here, none is at work any more.
    """
    pending: deque = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for call in calls:
                pending.append(pool.submit(call))
                if len(pending) == most:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def ahead(items: Iterable, most: int) -> Iterator[Any]:
    """Yield items that a thread makes, at most `most` before they are asked for; see `in_threads`."""
    end = object()
    made = in_threads(repeat(partial(next, iter(items), end)), 1, most)
    with closing(made):
        yield from takewhile(lambda item: item is not end, made)


def keep_freed_memory() -> None:
    """Let this process keep what it frees, with glibc: else each picture costs hundreds of page faults."""
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, size in ((-1, 2**30), (-2, 2**26), (-3, 2**25)):  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
            mallopt(option, size)


_work: Callable | None = None  # of this process, where it is a worker


def _begin(work: Callable) -> None:
    global _work  # noqa: PLW0603 - a worker process has no other place that outlives a task
    ignore_signals()
    follow_parent()
    keep_freed_memory()
    warnings.showwarning = show_warning
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for PyTorch, which renders synthetic scenes and is not imported yet
    _work = work


def _do(task: tuple) -> Any:
    return _work(*task)
