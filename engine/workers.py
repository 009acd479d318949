"""The processes that train together, as each of them sees the others."""

from __future__ import annotations

import os
from dataclasses import dataclass

from engine.errors import UserError

# Of what `torchrun` sets, the names that say where a process stands.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def under_torchrun() -> bool:
    """Whether `torchrun` started this process."""
    return all(name in os.environ for name in TORCHRUN)


def refuse_torchrun(what: str) -> None:
    """Raise a UserError if `torchrun` started what a single process does."""
    if under_torchrun():
        raise UserError(f"{what} is not for torchrun, which is for training with main.py")


@dataclass(frozen=True)
class Workers:
    """This process among those that train together; by itself it is the only one.

    Attributes
    ----------
    rank, world : int
        Number of this worker and of all; each has a batch of its own.
    share : (int, int)
        (i, n): of its worker's batch this process takes the i-th of n equal slices.
    """

    rank: int = 0
    world: int = 1
    share: tuple[int, int] = (0, 1)

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, logs and saves."""
        return self.rank == 0 and self.share[0] == 0

    def agree(self, stop: bool) -> bool:
        """Whether one of the processes wants to stop; all must ask, and get the same answer.

        Raises
        ------
        PeerLost
            Another process has ended.
        """
        return stop

    def gather(self, names: list[str]) -> list[str]:
        """The names that all processes give, in their order; all must ask."""
        return names

    def copy_first(self, tensor) -> None:
        """Overwrite a tensor of the engine with that of the first process; all must ask."""

    def sum(self, tensor) -> None:
        """Overwrite a tensor of the engine with its sum over all processes; all must ask."""

    def lost(self) -> bool:
        """Whether it is known that another process has ended."""
        return False

    def close(self) -> None:
        """Part from the others."""
