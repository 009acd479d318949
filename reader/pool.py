"""Worker processes that do tasks ahead of time, in order, a bounded number at once.

Memory for batches that workers fill in place, as pipes are too slow for pictures.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, NamedTuple

import cv2
import numpy as np
from maskflownet.errors import DataError
from maskflownet.reader.sample import Sample


class WorkerError(DataError):
    """A worker process ended without being asked to."""


class _Process(SpawnProcess):
    """A process that does not run the main script again, which may import MXNet and use a GPU.

    Ctrl-C is kept from it, from its very beginning, until it calls `allow_ctrl_c`.
    """

    def start(self) -> None:
        with _ctrl_c_later(), _hidden_main(), _ctrl_c_blocked():
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
        self.closed = self._ended = False
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._pending: deque = deque()
        self._executor = self._local = None
        if workers:
            # Tasks that are left over at the end are skipped by the workers, not cancelled: up to
            # Python 3.9 an executor of which only cancelled tasks remain never shuts down. Without
            # a lock, as a worker that is killed would keep it.
            self._stop = Context().RawValue(ctypes.c_bool, False)
            self._executor = ProcessPoolExecutor(
                workers, Context(), initializer=_start, initargs=(self._stop, make, arguments)
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
                result = self._pending.popleft().result()
                if self.closed:  # by another thread, so that the task may have been skipped
                    return
                yield result
        except BrokenProcessPool as error:
            raise WorkerError(
                "a process that loads the data died, mostly because the memory was full "
                "or someone killed it; fewer workers need less memory"
            ) from error

    def _fill(self, tasks: Iterator[tuple], ahead: int) -> bool:
        """Give out tasks; return whether a result can be waited for."""
        # Nothing can be submitted once `close` has begun, and Ctrl-C in the midst of it would leave
        # a task that the executor counts and no worker gets: it would wait for it for ever.
        with _ctrl_c_later(), self._lock:
            if self.closed:
                return False
            for task in islice(tasks, ahead - len(self._pending)):
                self._pending.append(self._executor.submit(_do, task))
            return bool(self._pending)

    def close(self) -> None:
        """End the workers once the samples in their hands are finished; any thread may call it."""
        with self._lock:
            self.closed = True
        if self._executor:
            self._stop.value = True
            # Two threads that shut an executor down at once write to a pipe that one has closed.
            with self._closing:
                if not self._ended:
                    self._executor.shutdown(wait=True)
                    self._ended = True


_hiding = threading.Lock()


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep ``multiprocessing`` from finding the script that a new process would import first."""
    main = sys.modules["__main__"]
    names = ("__file__", "__spec__")
    with _hiding:  # a second thread would find them hidden, and leave them so
        hidden = {name: getattr(main, name) for name in names if hasattr(main, name)}
        for name in hidden:
            setattr(main, name, None)
        try:
            yield
        finally:
            for name, value in hidden.items():
                setattr(main, name, value)


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Block SIGINT, which a process that is started inside inherits."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # The first process would start it otherwise, which unblocks the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def allow_ctrl_c() -> None:
    """Let Ctrl-C reach this process, started by `Context`; one that came before comes now."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Handle a Ctrl-C that comes inside only at the end."""
    in_main = threading.current_thread() is threading.main_thread()  # no other thread gets signals
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


# Of this process, where it is a worker: what does the tasks, and whether they are still wanted.
_worker: Callable | None = None
_stop: ctypes.c_bool | None = None


def _start(stop: ctypes.c_bool, make: Callable[..., Callable], arguments: tuple) -> None:
    global _worker, _stop  # noqa: PLW0603 (a worker process has no other place that outlives a task)
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    _worker = make(*arguments)


def _do(task: tuple) -> Any:
    return None if _stop.value else _worker(*task)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


PIXEL_BYTES = 15  # two pictures, a float32 vector, a mask
ALIGNMENT = 64


class Batch(NamedTuple):
    """N training samples of one size.

    Attributes
    ----------
    img1, img2 : np.ndarray
        (N, H, W, 3) uint8, RGB.
    flow : np.ndarray
        (N, H, W, 2) float32, px, (u, v).
    mask : np.ndarray
        (N, H, W, 1) uint8, 255 = the flow is valid.
    names : tuple of str
        Of the samples.
    """

    img1: np.ndarray
    img2: np.ndarray
    flow: np.ndarray
    mask: np.ndarray
    names: tuple


class Slots:
    """A few batches in memory that processes share.

    Parameters
    ----------
    count : int
        Number of batches.
    samples, height, width : int
        Of each batch.
    shared : bool
        False where there is only the calling process.

    Raises
    ------
    DataError
        The memory for them is not there.
    """

    def __init__(self, count: int, samples: int, height: int, width: int, shared: bool):
        self.shape = (samples, height, width)
        pixels = samples * height * width
        self.stride = -(-pixels * PIXEL_BYTES // ALIGNMENT) * ALIGNMENT
        size = count * self.stride
        try:
            # Anonymous or already unlinked, so that nothing remains of a process that is killed.
            self.memory = Context().RawArray(ctypes.c_uint8, size) if shared else np.empty(size, np.uint8)
        except (OSError, MemoryError) as error:
            raise DataError(
                f"{size / 2**20:.0f} MiB of shared memory for {count} batches cannot be had "
                f"({error}): load fewer batches ahead"
            ) from error

    def arrays(self, slot: int) -> tuple[np.ndarray, ...]:
        """Return img1, img2, flow and mask of one batch as writable views of the memory."""
        return _views(self.memory, slot * self.stride, self.shape)

    def put(self, slot: int, row: int, sample: Sample) -> None:
        """Write a sample of the slots' size into row ``row`` of a batch; a mask of None is 255."""
        for array, values in zip(self.arrays(slot), sample[:4]):
            array[row] = 255 if values is None else values

    def take(self, slot: int, names: tuple[str, ...], place: np.ndarray | None = None) -> Batch:
        """Return a copy of a batch, in memory of its own or at `place`, (`stride`,) uint8."""
        if place is None:
            return Batch(*(array.copy() for array in self.arrays(slot)), names)
        copies = _views(place, 0, self.shape)
        for copy, array in zip(copies, self.arrays(slot)):
            copy[...] = array
        return Batch(*copies, names)


class Ring:
    """A few places for batches in memory of the caller, taken in turn.

    Parameters
    ----------
    count : int
        Number of places.
    slots : Slots
        Of which copies are kept.
    allocate : callable
        Gives an (n,) uint8 array for a number n of bytes.
    """

    def __init__(self, count: int, slots: Slots, allocate: Callable[[int], np.ndarray]):
        self._places = [allocate(slots.stride) for _ in range(count)]
        self._slots = slots

    def take(self, number: int, slot: int, names: tuple[str, ...]) -> Batch:
        """Return a copy of a batch, for as long as the place of its number is not taken again."""
        return self._slots.take(slot, names, self._places[number % len(self._places)])


def _views(memory, start: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """img1, img2, flow and mask of (samples, height, width), `start` bytes into some memory."""
    pixels = shape[0] * shape[1] * shape[2]
    # The vectors come first, as float32 must begin at a multiple of four bytes.
    flow = np.frombuffer(memory, np.float32, 2 * pixels, start)
    rest = np.frombuffer(memory, np.uint8, 7 * pixels, start + 8 * pixels)
    img1, img2, mask = rest[: 3 * pixels], rest[3 * pixels : 6 * pixels], rest[6 * pixels :]
    parts = ((img1, 3), (img2, 3), (flow, 2), (mask, 1))
    return tuple(array.reshape(*shape, channels) for array, channels in parts)
