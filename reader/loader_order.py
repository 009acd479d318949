"""Which sample comes when: a pure function of the seed and the position, without state to save."""

from __future__ import annotations

import numpy as np

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
