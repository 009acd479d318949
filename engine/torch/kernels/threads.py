"""Pieces of an operation in threads that each use one thread of PyTorch, and framed maps in memory: for CPUs.

PyTorch itself divides each of its operations among its threads, which wait for one another after each.
Where an operation takes less than a millisecond, that waiting costs a quarter of the time on an idle
machine, and most of it on a busy one. Here a thread goes through all operations of a piece on its own,
in memory that stays in the cache of its core.
"""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

MOST = 4  # threads that take pieces; with more cores, each computes with several of PyTorch's
LARGE = 1 << 18  # elements of a map that several threads copy


class Scratch:
    """Named pieces of memory that are used again, since new memory costs more than its use."""

    def __init__(self):
        self._pieces: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Uninitialised float32 memory; what was taken under this name before is lost."""
        size = math.prod(shape)
        piece = self._pieces.get(name)
        if piece is None or piece.numel() < size:
            # An inference tensor could not be written in a later call without inference mode.
            with torch.inference_mode(False):
                piece = self._pieces[name] = torch.empty(size)
        return piece[:size].view(shape)


Task = Callable[[Scratch], None]


class Threads:
    """The calling thread and its helpers.

    Within a ``with`` statement the calling thread has as many of PyTorch's threads as each helper;
    `run` works only there. It is for one thread at a time, without gradients.
    """

    def __init__(self):
        self.count = 1  # threads that take pieces
        self.scratch = Scratch()  # of the calling thread between calls of `run`; pieces have other memory
        self._memories = [Scratch()]
        self._total = self._before = 0
        self._helpers: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Threads":
        self._before = torch.get_num_threads()
        # What PyTorch is told here is also the default of threads that begin meanwhile: only the
        # main thread's number is what the user wants.
        known = self._total and threading.current_thread() is not threading.main_thread()
        if not known and self._before != self._total:
            self._hire(self._before)
        torch.set_num_threads(max(1, self._total // self.count))
        return self

    def __exit__(self, *_) -> None:
        torch.set_num_threads(self._before)

    def release(self) -> None:
        """Give the memory back."""
        self.scratch = Scratch()
        self._memories = [Scratch() for _ in self._memories]

    def _hire(self, total: int) -> None:
        if self._helpers is not None:
            self._helpers.shutdown()
        # Only with OpenMP does a thread's number of threads concern no other thread.
        openmp = "backend: OpenMP" in torch.__config__.parallel_info()
        self.count = min(total, MOST) if openmp else 1
        self._total, self._helpers = total, None
        self._memories = [Scratch() for _ in range(self.count)]
        if self.count > 1:
            self._helpers = ThreadPoolExecutor(self.count - 1, "maskflownet pieces")

    def run(self, tasks: Sequence[Task], needs: Sequence[Sequence[int]] | None = None) -> None:
        """Do all tasks, started in their order, each with the memory of its thread.

        `needs` names, by task, the earlier tasks that must be finished before it starts.
        """
        if self.count == 1 or len(tasks) == 1:
            for task in tasks:
                task(self._memories[0])
            return
        work = _Round(tasks, needs)
        inference = torch.is_inference_mode_enabled()
        each = torch.get_num_threads()

        def help_with(memory):
            torch.set_num_threads(each)
            with torch.inference_mode(inference), torch.no_grad():
                work.take_part(memory)

        helpers = min(self.count, len(tasks)) - 1
        others = [self._helpers.submit(help_with, self._memories[i + 1]) for i in range(helpers)]
        try:
            work.take_part(self._memories[0])
        finally:
            for other in others:
                other.result()


class _Round:
    """Tasks that several threads take one after another."""

    def __init__(self, tasks, needs):
        self._tasks, self._needs = tasks, needs
        self._next, self._finished = 0, [False] * len(tasks)
        self._failed = False
        self._change = threading.Condition()

    def take_part(self, memory: Scratch) -> None:
        try:
            while True:
                with self._change:
                    number = self._next
                    self._next += 1
                    if number >= len(self._tasks):
                        return
                    self._change.wait_for(partial(self._ready, number))
                    if self._failed:
                        return
                self._tasks[number](memory)
                with self._change:
                    self._finished[number] = True
                    self._change.notify_all()
        except BaseException:  # also an interrupt, after which no thread must wait for this one
            with self._change:
                self._failed = True
                self._change.notify_all()
            raise

    def _ready(self, number: int) -> bool:
        if self._failed or self._needs is None:
            return True
        return all(self._finished[other] for other in self._needs[number])


def split(length: int, count: int) -> list[slice]:
    """A range in `count` pieces of nearly equal length."""
    bounds = [i * length // count for i in range(count + 1)]
    return [slice(*pair) for pair in zip(bounds, bounds[1:])]


class Frame(NamedTuple):
    """Where a map (N, C, H, W) lies in memory (N, rows, columns, C), with zeros around it."""

    height: int  # of the map
    width: int
    before: int  # rows above and columns to the left of the map
    rows: int  # of the memory
    columns: int

    def holding(self, rows: int, columns: int) -> "Frame":
        """A frame in which so many rows and columns can be written from the map's first pixel."""
        rows, columns = max(self.rows, self.before + rows), max(self.columns, self.before + columns)
        return self._replace(rows=rows, columns=columns)

    def memory(self, batch: int, channels: int, scratch: Scratch | None, name: str = "") -> Tensor:
        """Uninitialised memory, new without `scratch`; with the zeros of the frame."""
        shape = (batch, self.rows, self.columns, channels)
        memory = torch.empty(shape) if scratch is None else scratch.take(name, *shape)
        self.clear(memory)
        return memory

    def clear(self, memory: Tensor) -> None:
        """Write the zeros around the map (..., rows, columns, C)."""
        top, bottom = self.before, self.before + self.height
        left, right = self.before, self.before + self.width
        memory[..., :top, :, :].zero_()
        memory[..., bottom:, :, :].zero_()
        memory[..., :left, :].zero_()
        memory[..., right:, :].zero_()

    def inside(self, memory: Tensor) -> Tensor:
        """The map in its memory, as (N, C, H, W)."""
        rows = slice(self.before, self.before + self.height)
        return memory[:, rows, self.before : self.before + self.width].permute(0, 3, 1, 2)

    def framed(self, parts: Sequence[Tensor], threads: Threads, name: str) -> Tensor:
        """Maps (N, c, H, W) of any memory layout, joined along the channels, in such memory."""
        batch, channels = parts[0].shape[0], sum(part.shape[1] for part in parts)
        memory = self.memory(batch, channels, threads.scratch, name)
        inside = self.inside(memory)
        pieces = threads.count if inside[0].numel() > LARGE else 1
        threads.run([partial(_join, parts, inside, rows) for rows in split(self.height, pieces)])
        return memory


def _join(parts: Sequence[Tensor], whole: Tensor, rows: slice, _: Scratch) -> None:
    """Some rows of maps (N, c, H, W), one behind the other along the channels."""
    first = 0
    for part in parts:
        whole[:, first : first + part.shape[1], rows].copy_(part[:, :, rows])
        first += part.shape[1]
