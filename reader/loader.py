"""Which sample comes when: a pure function of the seed and the position, without state to save.

Batches for training out of several data sets, and samples in order for validation.

The next batch, made ready while the caller is busy with this one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import count, islice

import numpy as np
from maskflownet.errors import DataError, UserError
from maskflownet.reader.pool import Batch, Pool, Ring, Slots
from maskflownet.reader.sample import Sample, random_crop, random_flip, resize_sample

# What a generator is for; equal numbers would make a pass's order and a sample's crop related.
ORDER, SAMPLE = 0, 1


class Order:
    """The endless order of one data set's samples, pass after pass, each pass shuffled anew.

    Position p is in pass p // length, and every pass holds every sample once.

    Parameters
    ----------
    length : int
        Number of samples.
    seed : int
        At least 0.
    number : int
        Of the data set among those that are mixed.
    """

    def __init__(self, length: int, seed: int, number: int):
        self.length, self.seed, self.number = length, seed, number
        self._pass = None
        self._permutation = None

    def indices(self, position: int, count: int = 1) -> tuple[int, ...]:
        """Return the sample at a position and its substitutes, those that follow in its pass.

        Parameters
        ----------
        position : int
            At least 0.
        count : int
            How many, fewer where the data set is smaller; after the pass's end follows its start.
        """
        pass_number, place = divmod(position, self.length)
        if pass_number != self._pass:
            generator = np.random.default_rng([self.seed, self.number, ORDER, pass_number])
            self._permutation, self._pass = generator.permutation(self.length), pass_number
        places = range(place, place + min(count, self.length))
        return tuple(int(self._permutation[p % self.length]) for p in places)


def sample_generator(seed: int, number: int, position: int) -> np.random.Generator:
    """Return the generator of the crop and the flip at a position of data set ``number``."""
    return np.random.default_rng([seed, number, SAMPLE, position])


__all__ = ["Batch", "TrainLoader", "ordered"]

IN_USE = 2  # batches that the caller may still read when it asks for the next one
MOST_DAMAGED = 16  # samples one after the other, beyond which the folder is at fault, not a file


class TrainLoader:
    """Endless training batches, the same for the same seed whatever the number of workers.

    Every batch holds a fixed number of samples of each data set, in the order of ``parts``. Each
    data set is gone through in passes of its own; an incomplete last batch of a pass is filled from
    the next one. What a batch holds depends on the seed and the step alone: training resumes at
    step s by ``batches(s)``. A sample is read, resized where ``resize`` is given, cropped at random
    and flipped with probability 1/2. At most ``prefetch`` + ``echo`` batches are in memory
    besides those that the caller keeps.

    Parameters
    ----------
    parts : sequence of (data set, int)
        What is mixed, with its samples per batch.
    original : (int, int)
        (H, W) of the crop, px.
    resize : (int, int), optional
        (H, W) to which samples are resized before the crop.
    seed : int
        At least 0.
    workers : int
        Processes that load; 0 = the calling one does.
    prefetch : int
        Batches that are loaded ahead, at least 1.
    skip_damaged : bool
        Whether a sample that cannot be read is replaced with the next one of its pass instead of
        being an error; `skipped` tells which. After `MOST_DAMAGED` in a row it is an error.
    rank, world : int
        For ``world`` processes with a loader each: their batches of one step together are the batch
        that a single process with ``world`` times the samples of each part would get, and this
        process gets part number ``rank`` of every data set's share.
    echo : int
        Steps that each batch is given to, where reading is slower than training and the
        augmentation makes something new of it (Choi et al., "Faster Neural Network Training with
        Data Echoing", 2019). They are ``echo`` + 1 steps apart, with other batches between them;
        of the first ones some are given to fewer.
    share : (int, int)
        (i, n): of each batch described so far only the i-th of n equal slices is loaded, in the
        order of the batch, for several processes that split one batch.

    Attributes
    ----------
    skipped : list of str
        One sentence per damaged sample that was replaced, in the order of their first use.

    Raises
    ------
    DataError
        A data set is empty.
    ValueError
        A number is out of its range.
    """

    def __init__(
        self,
        parts: Sequence[tuple],
        original: tuple[int, int],
        resize: tuple[int, int] | None = None,
        seed: int = 0,
        workers: int = 0,
        prefetch: int = 3,
        skip_damaged: bool = False,
        rank: int = 0,
        world: int = 1,
        echo: int = 1,
        share: tuple[int, int] = (0, 1),
    ):
        self.datasets = [dataset for dataset, _ in parts]
        self.samples = [samples for _, samples in parts]
        for number, dataset in enumerate(self.datasets, start=1):
            if not len(dataset):
                where = getattr(dataset, "root", None) or f"number {number}"
                raise DataError(f"the training data set {where} has no samples")
        total = sum(self.samples)
        if not parts or min(self.samples) < 1:
            raise ValueError("a batch needs data sets and at least one sample of each")
        if seed < 0 or workers < 0 or prefetch < 1:
            raise ValueError(f"seed {seed}, workers {workers} or prefetch {prefetch} is too low")
        if echo < 1:
            raise ValueError(f"a batch is given to at least one step, not to {echo}")
        if not (0 <= rank < world and 0 <= share[0] < share[1]):
            raise ValueError(f"no such part of a batch: rank {rank} of {world}, share {share}")
        if total % share[1]:
            raise ValueError(f"a batch of {total} samples has no {share[1]} equal parts")
        self.original, self.resize, self.seed = original, resize, seed
        self.workers, self.prefetch = workers, prefetch
        self.attempts = MOST_DAMAGED if skip_damaged else 1
        self.rank, self.world, self.echo = rank, world, echo
        self.rows = range(total // share[1] * share[0], total // share[1] * (share[0] + 1))
        self.orders = [Order(len(dataset), seed, d) for d, dataset in enumerate(self.datasets)]
        self.skipped: list[str] = []
        self._pools: list[Pool] = []

    def __enter__(self) -> TrainLoader:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def batches(self, start_step: int = 0, allocate: Callable[[int], np.ndarray] | None = None) -> Iterator[Batch]:
        """Yield the batches of the steps ``start_step``, ``start_step`` + 1, ... without end.

        Closing the generator ends the workers.

        Parameters
        ----------
        start_step : int
        allocate : callable, optional
            Gives n bytes of memory as (n,) uint8, in which all batches then live. `IN_USE` batches
            stay as they are until the next one is there, which may overwrite older ones. Default:
            every batch has memory of its own and stays.

        Raises
        ------
        DataError
            A sample is damaged, has no label, or is smaller than the crop.
        WorkerError
            A worker process died.
        """
        period, phase = divmod(start_step, self.echo)
        with closing(self._loaded(period, allocate)) as loaded:
            recent = deque(islice(loaded, self.echo - 1), maxlen=self.echo)
            for batch in loaded:
                recent.append(batch)
                for age in range(phase, self.echo):
                    yield recent[-1 - age]
                phase = 0

    def _loaded(self, first: int, allocate) -> Iterator[Batch]:
        """Yield the batches number ``first``, ``first`` + 1, ..., each once."""
        size = len(self.rows)
        slots = Slots(self.prefetch + 1, size, *self.original, shared=self.workers > 0)
        arguments = (self.datasets, self.original, self.resize, self.seed, slots)
        pool = Pool(self.workers, _Loading, arguments)
        self._pools.append(pool)
        results = pool.results(self._tasks(first), size * self.prefetch)
        try:
            ring = Ring(self.echo + IN_USE, slots, allocate) if allocate else None
            for number in count(first):
                done = list(islice(results, size))
                if pool.closed:
                    return
                for name, errors in done:
                    self._note(errors, failed=name is None)
                # Copied before the next result is asked for, which reuses the slot.
                slot = number % (self.prefetch + 1)
                names = tuple(name for name, _ in done)
                yield ring.take(number, slot, names) if ring else slots.take(slot, names)
        finally:
            pool.close()
            self._pools.remove(pool)

    def close(self) -> None:
        """End the workers; generators of `batches` that are still in use end too."""
        for pool in list(self._pools):
            pool.close()

    def positions(self, number: int) -> list[tuple[int, int]]:
        """Return (number of the data set, position in it) of each sample of a batch."""
        whole = [
            (d, (number * self.world + self.rank) * samples + j)
            for d, samples in enumerate(self.samples)
            for j in range(samples)
        ]
        return [whole[row] for row in self.rows]

    def _tasks(self, first: int) -> Iterator[tuple]:
        for number in count(first):
            for row, (d, position) in enumerate(self.positions(number)):
                indices = self.orders[d].indices(position, self.attempts)
                yield number % (self.prefetch + 1), row, d, position, indices

    def _note(self, errors: list[str], failed: bool) -> None:
        if failed and self.attempts == 1:
            raise DataError(errors[-1])
        if failed:
            raise DataError(f"{errors[-1]}; it is one of {len(errors)} damaged samples in a row")
        self.skipped += [error for error in errors if error not in self.skipped]


class _Loading:
    """Loads single samples of training batches; lives in a worker."""

    def __init__(self, datasets, original, resize, seed: int, slots: Slots):
        self.datasets, self.original, self.resize = datasets, original, resize
        self.seed, self.slots = seed, slots

    def __call__(
        self, slot: int, row: int, number: int, position: int, indices: tuple[int, ...]
    ) -> tuple[str | None, list[str]]:
        """Load the first readable of some samples; return its name and what was wrong before."""
        errors: list[str] = []
        for index in indices:
            try:
                sample = self.datasets[number][index]
            except UserError as error:
                errors.append(str(error))
                continue
            self.slots.put(slot, row, self._prepare(sample, number, position))
            return sample.name, errors
        return None, errors

    def _prepare(self, sample: Sample, number: int, position: int) -> Sample:
        if sample.flow is None:
            raise DataError(f"{sample.name} has no label, so nothing can be learnt from it")
        if self.resize is not None:
            sample = resize_sample(sample, *self.resize)
        generator = sample_generator(self.seed, number, position)
        return random_flip(random_crop(sample, *self.original, generator), generator)


def ordered(dataset, workers: int = 0, prefetch: int = 4) -> Iterator[tuple[int, Sample]]:
    """Yield every sample of a data set once, in order.

    Parameters
    ----------
    dataset : data set
        Sizes may differ between its samples.
    workers : int
        Processes that load; 0 = the calling one does.
    prefetch : int
        Samples that are loaded ahead, at least 1.

    Yields
    ------
    index : int
    sample : Sample

    Raises
    ------
    DataError
        The data set is empty, or a sample is damaged.
    WorkerError
        A worker process died.
    """
    if not len(dataset):
        raise DataError(f"the data set {getattr(dataset, 'root', '')} has no samples")
    if prefetch < 1:
        raise ValueError(f"at least one sample must be loaded at a time, not {prefetch}")
    pool = Pool(workers, _Reading, (dataset,))
    results = pool.results(((index,) for index in range(len(dataset))), prefetch)
    try:
        yield from enumerate(results)
    finally:
        pool.close()


class _Reading:
    """Reads samples as they are; lives in a worker."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __call__(self, index: int) -> Sample:
        return self.dataset[index]


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

    def __init__(self, loader: TrainLoader, start_step: int = 0, allocate: Callable[[int], np.ndarray] | None = None):
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
