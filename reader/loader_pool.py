"""Worker processes that do tasks ahead of time, in order, a bounded number at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Callable, Iterable, Iterator

import cv2

from reader.errors import DataError


class WorkerError(DataError):
    """A worker process ended without being asked to."""


class _Process(SpawnProcess):
    """A worker that does not run the main script again, which may import MXNet and use a GPU."""

    def start(self) -> None:
        with _hidden_main():
            super().start()


class Context(SpawnContext):
    """Starts workers as fresh interpreters: a fork would copy the state of MXNet and CUDA."""

    Process = _Process


class Pool:
    """Does tasks in worker processes, each of which makes its own worker object once.

    Workers ignore Ctrl-C, which is for the calling process to handle, and end with it even if it is
    killed. They do not import the main script, so what they get must come from modules.

    Parameters
    ----------
    workers : int
        Number of processes; 0 = the tasks are done in the calling process, when their result is
        asked for.
    make : callable
        Makes the worker object, which is called with each task's values. It must be importable by
        name.
    arguments : tuple
        Of ``make``; they are pickled, once per worker.
    """

    def __init__(self, workers: int, make: Callable[..., Callable], arguments: tuple = ()):
        if workers < 0:
            raise ValueError(f"a number of workers is at least 0, not {workers}")
        self.closed = False
        self._lock = threading.Lock()
        self._pending: deque = deque()
        self._executor = self._local = None
        if workers:
            self._executor = ProcessPoolExecutor(
                workers, Context(), initializer=_start, initargs=(make, arguments)
            )
        else:
            self._local = make(*arguments)

    def results(self, tasks: Iterable[tuple], ahead: int) -> Iterator[Any]:
        """Yield the results of tasks in their order until `close` is called; use it only once.

        Parameters
        ----------
        tasks : iterable of tuple
            May be endless; a task is taken from it not before it can be given to a worker.
        ahead : int
            Number of tasks that are given out and not yielded yet.

        Raises
        ------
        WorkerError
            A worker process died.
        """
        tasks = iter(tasks)
        if self._executor is None:
            for task in tasks:
                if self.closed:
                    return
                yield self._local(*task)
            return
        try:
            while self._fill(tasks, ahead):
                yield self._pending.popleft().result()
        except CancelledError:  # by `close` in another thread
            return
        except BrokenProcessPool as error:
            raise WorkerError(
                "a process that loads the data died, mostly because the memory was full "
                "or someone killed it; fewer workers need less memory"
            ) from error

    def _fill(self, tasks: Iterator[tuple], ahead: int) -> bool:
        """Give out tasks; return whether a result can be waited for."""
        with self._lock:  # nothing can be submitted once `close` has begun
            if self.closed:
                return False
            for task in islice(tasks, ahead - len(self._pending)):
                self._pending.append(self._executor.submit(_do, task))
            return bool(self._pending)

    def close(self) -> None:
        """End the workers once the samples in their hands are finished."""
        with self._lock:
            self.closed = True
        for future in list(self._pending):
            future.cancel()
        if self._executor:
            self._executor.shutdown(wait=True)


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep ``multiprocessing`` from finding the script that a new process would import first."""
    main = sys.modules["__main__"]
    names = ("__file__", "__spec__")
    hidden = {name: getattr(main, name) for name in names if hasattr(main, name)}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


_worker: Callable | None = None  # of this process, where it is a worker


def _start(make: Callable[..., Callable], arguments: tuple) -> None:
    global _worker  # noqa: PLW0603 (a worker process has no other place that outlives a task)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    _worker = make(*arguments)


def _do(task: tuple) -> Any:
    return _worker(*task)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
