"""Views on data sets: joined, thinned or shortened, without touching their split.

A data set is anything with ``len``, ``dataset[i] -> Sample``, ``occlusion(i)`` and ``noc(i)``.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from reader.errors import DataError
from reader.sample import Sample


class View:
    """The samples of a data set at the given indices.

    Parameters
    ----------
    dataset : data set
        What is looked at; it stays as it is.
    indices : sequence of int
        Which samples, in which order.
    """

    def __init__(self, dataset, indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    def occlusion(self, index: int) -> np.ndarray | None:
        """Return the sample's occlusion, (H, W, 1) uint8, 255 = occluded, or ``None``."""
        return self.dataset.occlusion(self.indices[index])

    def noc(self, index: int) -> np.ndarray | None:
        """Return the sample's non-occluded label mask, (H, W, 1) uint8, or ``None``."""
        return self.dataset.noc(self.indices[index])


class Thin(View):
    """Every N-th sample of a data set, beginning with its first (``--shard``).

    Raises
    ------
    DataError
        ``every`` is below 1.
    """

    def __init__(self, dataset, every: int):
        if every < 1:
            raise DataError(f"a shard of every {every}-th sample is not possible: it starts at 1")
        super().__init__(dataset, range(0, len(dataset), every))


def first(dataset, count: int) -> View:
    """Return the first samples of a data set, all where it has fewer (``--debug``).

    Raises
    ------
    DataError
        ``count`` is below 1.
    """
    if count < 1:
        raise DataError(f"a data set cannot be shortened to {count} samples: 1 is the least")
    return View(dataset, range(min(count, len(dataset))))


class Concat:
    """Several data sets one after the other.

    Raises
    ------
    DataError
        There is no data set, or one of them is empty.
    """

    def __init__(self, datasets: Sequence):
        self.datasets = list(datasets)
        self.ends = np.cumsum([len(dataset) for dataset in self.datasets], dtype=np.int64)
        if not self.datasets or not all(len(dataset) for dataset in self.datasets):
            raise DataError("data sets can be joined only where each has at least one sample")

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Sample:
        dataset, index = self._locate(index)
        return dataset[index]

    def occlusion(self, index: int) -> np.ndarray | None:
        """Return the sample's occlusion, (H, W, 1) uint8, 255 = occluded, or ``None``."""
        dataset, index = self._locate(index)
        return dataset.occlusion(index)

    def noc(self, index: int) -> np.ndarray | None:
        """Return the sample's non-occluded label mask, (H, W, 1) uint8, or ``None``."""
        dataset, index = self._locate(index)
        return dataset.noc(index)

    def _locate(self, index: int):
        index = range(len(self))[index]
        which = int(np.searchsorted(self.ends, index, side="right"))
        return self.datasets[which], index - (int(self.ends[which - 1]) if which else 0)
