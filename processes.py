"""Processes and signals: how a process starts others, how they end, and what Ctrl-C does to them.

A process in training lets the first Ctrl-C complete a step and save (`Interruption`), the second one ends it. Those
that only read data ignore Ctrl-C. All end with the process that started them, even if that is killed.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import islice, repeat, takewhile
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

import cv2
from maskflownet.errors import UserError

ONE_PRESS = 1.0  # s: launchers such as torchrun repeat the terminal's Ctrl-C at once
GRACE = 20.0  # s in which the others may save a checkpoint after one has died
PARTED = b"."
ENDED = "another process of this training ended"
MASKS = hasattr(signal, "pthread_sigmask")  # not on Windows


class Interruption:
    """Inside `with`, the first Ctrl-C sets `pressed` and calls `first`; a second one is a KeyboardInterrupt.

    What follows within `ONE_PRESS` s is the same press. Outside the main thread Ctrl-C stays what it is.
    """

    def __init__(self, first: Callable[[], None] | None = None):
        self.pressed = False
        self._first = first

    def __enter__(self) -> "Interruption":
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number, frame) -> None:
        if not self.pressed:
            self.pressed, self._since = True, time.monotonic()
            if self._first is not None:
                self._first()
        elif time.monotonic() - self._since > ONE_PRESS:
            signal.signal(signal.SIGINT, self._before)
            raise KeyboardInterrupt


def note_sigterm() -> Callable[[], bool]:
    """Tells from now on whether SIGTERM came, by which a launcher ends those that remain when one has died."""
    came = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: came.set())
    return came.is_set


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Handle a Ctrl-C that comes inside only at the end."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not callable(signal.getsignal(signal.SIGINT)):
        yield
        return
    caught: list[tuple] = []
    handler = signal.signal(signal.SIGINT, lambda *values: caught.append(values))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if caught:
            handler(*caught[0])


_starting = threading.Lock()


@contextmanager
def starting() -> Iterator[None]:
    """Processes that start inside do not import the main script, and Ctrl-C is blocked in them.

    The script may import MXNet, which takes seconds and a GPU. They call `follow_parent` first.
    """
    main = sys.modules["__main__"]
    with ctrl_c_later(), _starting:  # a second thread would find the names hidden, and leave them so
        hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
        if MASKS:
            resource_tracker.ensure_running()  # its own start would unblock the signal
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for name in hidden:
                setattr(main, name, None)
            yield
        finally:
            for name, value in hidden.items():
                setattr(main, name, value)
            if MASKS:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def follow_parent(ctrl_c: bool) -> None:
    """In a process that was started: end with the parent, and let Ctrl-C come from now on or ignore it."""

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler if ctrl_c else signal.SIG_IGN)
    if MASKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


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
            print(
                f"error: {ENDED}: -c with the run's id goes on from its newest checkpoint", file=sys.stderr, flush=True
            )
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


class Context(SpawnContext):
    """Starts processes as fresh interpreters: a fork would copy the state of MXNet and CUDA."""

    Process = _Process


class Pool:
    """Does tasks in worker processes, in order and a bounded number ahead.

    Parameters
    ----------
    workers : int
        Number of processes; 0 = a task is done in the calling process, when its result is asked for.
    work : callable
        Is called with each task's values. It is pickled, once per worker.
    """

    def __init__(self, workers: int, work: Callable):
        self._work, self._executor = work, None
        if workers:
            self._executor = ProcessPoolExecutor(workers, Context(), initializer=_begin, initargs=(work,))

    def results(self, tasks: Iterable[tuple], ahead: int) -> Iterator[Any]:
        """Yield the results of tasks, which may be endless; at most `ahead` are given out and not yet yielded.

        Raises
        ------
        UserError
            A worker process died.
        """
        tasks, pending = iter(tasks), deque()
        if self._executor is None:
            for task in tasks:
                yield self._work(*task)
            return
        try:
            while True:
                # Ctrl-C would leave a task that the executor counts and no worker gets: it would wait for ever.
                with ctrl_c_later():
                    for task in islice(tasks, ahead - len(pending)):
                        pending.append(self._executor.submit(_do, task))
                if not pending:
                    return
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that loads the data died, mostly because the memory was full "
                "or someone killed it; fewer workers need less memory"
            ) from error

    def close(self) -> None:
        """End the workers once the tasks in their hands are done."""
        if self._executor:
            self._executor.shutdown(cancel_futures=True)


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


_work: Callable | None = None  # of this process, where it is a worker


def _begin(work: Callable) -> None:
    global _work  # noqa: PLW0603 - a worker process has no other place that outlives a task
    follow_parent(ctrl_c=False)
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for PyTorch, which renders synthetic scenes and is not imported yet
    _work = work


def _do(task: tuple) -> Any:
    return _work(*task)
