"""Maps with zeros around them, as convolutions of CPUs read them: (N, rows, columns, channels)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from maskflownet.engine.torch.kernels.threads import Scratch, Threads
from torch import Tensor

LARGE = 1 << 18  # elements of a map that several threads copy


class Frame(NamedTuple):
    """Where a map (N, C, H, W) lies in memory (N, rows, columns, C).

    Attributes
    ----------
    height, width : int
        Of the map.
    before : int
        Rows above and columns to the left of it.
    rows, columns : int
        Of the memory.
    """

    height: int
    width: int
    before: int
    rows: int
    columns: int

    def holding(self, rows: int, columns: int) -> Frame:
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
        bounds = [i * self.height // pieces for i in range(pieces + 1)]
        rows = [slice(*pair) for pair in zip(bounds, bounds[1:])]
        threads.run([partial(_join, parts, inside, some) for some in rows])
        return memory


def _join(parts: Sequence[Tensor], whole: Tensor, rows: slice, _: Scratch) -> None:
    """Some rows of maps (N, c, H, W), one behind the other along the channels."""
    first = 0
    for part in parts:
        whole[:, first : first + part.shape[1], rows].copy_(part[:, :, rows])
        first += part.shape[1]
