"""Memory for batches that workers fill in place, as pipes are too slow for pictures."""

from __future__ import annotations

import ctypes
from typing import Callable, NamedTuple

import numpy as np

from reader.errors import DataError
from reader.loader_pool import Context
from reader.sample import Sample

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
            self.memory = (
                Context().RawArray(ctypes.c_uint8, size) if shared else np.empty(size, np.uint8)
            )
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
