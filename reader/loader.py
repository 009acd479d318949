"""Batches for training out of several data sets, and samples in order for validation.

Google's `grain` needs Python 3.11 and six more packages, PyTorch's DataLoader needs PyTorch, which an MXNet
installation lacks: hence the processes of `maskflownet.processes`.
"""

import ctypes
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import chain, count, islice
from typing import NamedTuple

import numpy as np
from maskflownet.errors import UserError
from maskflownet.processes import Context, Pool
from maskflownet.reader.sample import Sample, random_crop, random_flip, resize_sample

AHEAD = 3  # batches that are loaded ahead
TASK = 4  # samples that a reader is told to read at a time, at most: each task costs this process 0.3 ms
MOST_DAMAGED = 16  # samples one after the other, beyond which the folder is at fault, not a file
# Third number of a generator's seed, so that an epoch's order and the crops are independent.
ORDER, SAMPLE = 0, 1


class Order(NamedTuple):
    """Which sample comes when: a function of the seed and the step, without state to save.

    A data set with k samples per batch: batch b of machine i of n holds its positions (b n + i) k to
    (b n + i) k + k - 1. So the machines' batches of a step are together one larger batch.
    """

    seed: int = 0
    echo: int = 1  # uses each batch N times, N + 1 steps apart (Choi et al., "Data Echoing", 2019)
    machine: tuple[int, int] = (0, 1)  # (i, n): the i-th of n machines, each with a batch of its own
    process: tuple[int, int] = (0, 1)  # (i, n): takes the i-th of n equal slices of its machine's batch

    def positions(self, number: int, samples: Sequence[int]) -> list[tuple[int, int]]:
        """(number of the data set, position in it) of what this process reads of a batch, so many `samples` of each."""
        machine, machines = self.machine
        whole = [(d, (number * machines + machine) * n + j) for d, n in enumerate(samples) for j in range(n)]
        i, parts = self.process
        size = len(whole) // parts
        return whole[i * size : (i + 1) * size]

    def indices(self, dataset: int, length: int, position: int, attempts: int = 1) -> tuple[int, ...]:
        """The sample at a position of a data set, and its substitutes: those that follow in the same epoch.

        Every epoch holds each of the `length` samples once, shuffled anew.
        """
        epoch, place = divmod(position, length)
        order = _shuffled(self.seed, dataset, epoch, length)
        return tuple(int(order[p % length]) for p in range(place, place + min(attempts, length)))


@lru_cache(maxsize=16)  # of each data set of a mix the epoch at hand
def _shuffled(seed: int, dataset: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, dataset, ORDER, epoch]).permutation(length)


class Batch(NamedTuple):
    """N training samples of one size."""

    img1: np.ndarray  # (N, H, W, 3) uint8, RGB
    img2: np.ndarray  # (N, H, W, 3) uint8, RGB
    flow: np.ndarray  # (N, H, W, 2) float32, px, (u, v)
    mask: np.ndarray  # (N, H, W, 1) uint8, 255 = the flow is valid
    names: tuple[str, ...]


class TrainLoader:
    """Endless training batches, the same for the same order whatever the number of readers.

    `parts` are the data sets that are mixed, each with its samples per batch. A sample is read by one of the `readers`,
    processes, or without any by the calling one. It is resized to `resize` if that is given, (H, W) px, cropped at
    random to `crop` and flipped with probability 1/2.

    With `skip_damaged` the next one of its epoch replaces a sample that cannot be read; after `MOST_DAMAGED` in a row
    it is an error. `skipped` has one sentence for each that was replaced, in the order of their first use.
    """

    def __init__(
        self,
        parts: Sequence[tuple],
        crop: tuple[int, int],
        resize: tuple[int, int] | None = None,
        order: Order | None = None,
        readers: int = 0,
        skip_damaged: bool = False,
    ):
        self.datasets = [dataset for dataset, _ in parts]
        self.samples = [samples for _, samples in parts]
        self.crop, self.resize, self.order, self.readers = crop, resize, order or Order(), readers
        self.attempts = MOST_DAMAGED if skip_damaged else 1
        self.skipped: list[str] = []

    def batches(self, step: int = 0) -> Iterator[Batch]:
        """Yield the batches of the steps that follow `step` steps; closing the generator ends the readers.

        A batch's arrays stay as they are until the next batch is asked for.

        UserError: A sample is damaged, has no label or is smaller than the crop, or a reader died.
        """
        echo = self.order.echo
        with closing(self._loaded(step // echo)) as loaded:
            recent: deque[Batch] = deque(islice(loaded, echo - 1), maxlen=echo)
            for number in count(step):
                if number % echo == 0 or len(recent) < echo:
                    recent.append(next(loaded))
                yield recent[-1 - number % echo]  # with an echo of 1 the one just loaded

    def _loaded(self, first: int) -> Iterator[Batch]:
        """Yield the batches number `first`, `first` + 1, ..., each once; `echo` of them stay valid at a time."""
        size = len(self.order.positions(first, self.samples))
        slots = Slots(AHEAD + self.order.echo, (size, *self.crop), shared=self.readers > 0)
        with closing(Pool(self.readers, _Reader(self.datasets, self.resize, self.order, slots))) as pool:
            share = min(TASK, -(-size // max(1, self.readers)))
            ahead = AHEAD * -(-size // share)
            results = chain.from_iterable(pool.results(self._tasks(first, slots.count, share), ahead))
            for number in count(first):
                names = []
                for name, errors in islice(results, size):
                    if name is None:
                        row = f"; it is one of {len(errors)} damaged samples in a row" if len(errors) > 1 else ""
                        raise UserError(errors[-1] + row)
                    self.skipped += [error for error in errors if error not in self.skipped]
                    names.append(name)
                yield Batch(*slots.arrays(number % slots.count), tuple(names))

    def _tasks(self, first: int, slots: int, share: int) -> Iterator[tuple]:
        for number in count(first):
            wanted = []
            for row, (d, position) in enumerate(self.order.positions(number, self.samples)):
                indices = self.order.indices(d, len(self.datasets[d]), position, self.attempts)
                wanted.append((number % slots, row, d, position, indices))
            for begin in range(0, len(wanted), share):
                yield (wanted[begin : begin + share],)


class _Reader:
    """Reads samples of a training batch into the slots, in any process."""

    def __init__(self, datasets: Sequence, resize: tuple[int, int] | None, order: Order, slots: "Slots"):
        self.datasets, self.resize, self.order, self.slots = datasets, resize, order, slots

    def __call__(self, wanted: list[tuple]) -> list[tuple[str | None, list[str]]]:
        return [self._read(*one) for one in wanted]

    def _read(
        self, slot: int, row: int, d: int, position: int, indices: tuple[int, ...]
    ) -> tuple[str | None, list[str]]:
        """Read the first readable of some samples; its name, None without any, and what was wrong before."""
        errors: list[str] = []
        for index in indices:
            try:
                sample = self.datasets[d][index]
            except UserError as error:
                errors.append(str(error))
                continue
            ready = self._prepare(sample, np.random.default_rng([self.order.seed, d, SAMPLE, position]))
            for array, values in zip(self.slots.arrays(slot), ready[:4]):
                array[row] = values
            return sample.name, errors
        return None, errors

    def _prepare(self, sample: Sample, generator: np.random.Generator) -> Sample:
        if sample.flow is None:
            raise UserError(f"{sample.name} has no label, so nothing can be learnt from it")
        if self.resize is not None:
            sample = resize_sample(sample, *self.resize)
        return random_flip(random_crop(sample, *self.slots.shape[1:], generator), generator)


class Slots:
    """Places for batches of one shape (N, H, W) in memory that processes share, as pipes are too slow for pictures.

    It is plain memory where nothing is shared.
    """

    def __init__(self, count: int, shape: tuple[int, int, int], shared: bool):
        self.count, self.shape = count, shape
        self.pixels = int(np.prod(shape))
        size = 15 * self.pixels * count  # two pictures, a float32 vector, a mask
        try:
            # Anonymous or already unlinked, so that nothing remains of a process that is killed.
            self.memory = Context().RawArray(ctypes.c_uint8, size) if shared else np.empty(size, np.uint8)
        except (OSError, MemoryError) as error:
            raise UserError(
                f"{size / 2**20:.0f} MiB of shared memory for {count} batches cannot be had ({error}): "
                "lower batch_size in the dataset config"
            ) from error

    def arrays(self, slot: int) -> tuple[np.ndarray, ...]:
        """img1, img2, flow and mask of one place, as `Batch` has them: views of the memory."""
        pixels = self.pixels
        # All flows come first, as float32 must begin at a multiple of four bytes.
        flow = np.frombuffer(self.memory, np.float32, 2 * pixels, 8 * pixels * slot)
        rest = np.frombuffer(self.memory, np.uint8, 7 * pixels, 8 * pixels * self.count + 7 * pixels * slot)
        parts = rest[: 3 * pixels], rest[3 * pixels : 6 * pixels], flow, rest[6 * pixels :]
        return tuple(array.reshape(*self.shape, channels) for array, channels in zip(parts, (3, 3, 2, 1)))


def ordered(dataset, readers: int = 0, ahead: int = 4, read: Callable | None = None) -> Iterator:
    """Yield every sample of a data set once, in order, or what `read` makes of its index; closing it ends the readers.

    So many processes as `readers` read up to `ahead` samples ahead; without any the calling one reads.

    UserError: A sample is damaged, or a reader died.
    """
    with closing(Pool(readers, read or dataset.__getitem__)) as pool:
        yield from pool.results(((index,) for index in range(len(dataset))), ahead)
