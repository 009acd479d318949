"""The next batch, made ready while the caller is busy with this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Iterator

import numpy as np

from reader.loader import TrainLoader
from reader.loader_slots import Batch


class BatchesAhead:
    """Batches as `TrainLoader.batches` yields them, one of them fetched ahead in a thread.

    Fetching copies tens of megabytes, in which Python's lock is free for the caller.

    Parameters
    ----------
    loader : TrainLoader
        Closed with this.
    start_step : int
    allocate : callable, optional
        See `TrainLoader.batches`. A batch and the one before it stay as they are until the next one
        is asked for, although that one has been fetched.
    """

    def __init__(
        self,
        loader: TrainLoader,
        start_step: int = 0,
        allocate: Callable[[int], np.ndarray] | None = None,
    ):
        self._loader = loader
        self._batches: Iterator[Batch] = loader.batches(start_step, allocate)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: Future = self._thread.submit(next, self._batches)

    def __iter__(self) -> BatchesAhead:
        return self

    def __next__(self) -> Batch:
        batch = self._next.result()
        self._next = self._thread.submit(next, self._batches)
        return batch

    def close(self) -> None:
        """End the thread and the loader's workers."""
        self._loader.close()  # from outside, as the generator may be running
        self._thread.shutdown(wait=True)
        self._batches.close()
