"""The checkpoints of a run: complete ones only, the newest three and the best."""

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
from maskflownet.checkpoints.checkpoint import save_checkpoint
from maskflownet.checkpoints.params import read_params, write_params
from maskflownet.checkpoints.records import Record, read_record, record_path
from maskflownet.errors import UserError

NEWEST_KEPT = 3
MEAN_EPE = "mean_epe"  # in a record's metrics: over the validation sets, at that step


def state_path(checkpoint) -> Path:
    """The optimiser's state beside a checkpoint: arrays `mean.NAME` and `var.NAME`."""
    return Path(checkpoint).with_suffix(".states")


def read_state(checkpoint) -> dict[str, np.ndarray]:
    """The optimiser's state of a checkpoint; a UserError if there is none or it is damaged."""
    path = state_path(checkpoint)
    if not path.exists():
        raise UserError(
            f"{checkpoint} cannot be resumed: the optimiser's state {path.name} is not beside it "
            "(--clear_steps starts a new run from its parameters)"
        )
    return read_params(path)


class Snapshots:
    """Saves and prunes the checkpoints `folder/RUN_STEPS.params` of one run, and the `pictures` drawn at them."""

    def __init__(self, folder, run: str, pictures: Path | None = None):
        self.folder, self.run, self.pictures = Path(folder), run, pictures

    def path(self, step: int) -> Path:
        return self.folder / f"{self.run}_{step}.params"

    def save(self, step: int, parameters: dict, state: dict, record: Record) -> Path:
        """Write a checkpoint and prune the others.

        The parameters get their name last: where they are, everything else is, too.
        """
        path = self.path(step)
        write_params(state_path(path), state)
        save_checkpoint(path, parameters, record)
        self.prune()
        return path

    def sweep(self) -> None:
        """Remove what a killed process of this run left half-written."""
        _remove(*self.folder.glob(f".{self.run}_*.tmp.*"))

    def steps(self) -> list[int]:
        stems = (path.stem[len(self.run) + 1 :] for path in self.folder.glob(f"{self.run}_*.params"))
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def best(self) -> tuple[int, float] | None:
        """Step and mean EPE of the best checkpoint that was validated, None without any.

        An EPE that is not finite, as of a set without one valid pixel, is none.
        """
        scores = []
        for step in self.steps():
            record = self._record(step)
            score = record.metrics.get(MEAN_EPE, math.nan) if record else math.nan
            if math.isfinite(score):
                scores.append((score, step))
        return min(scores)[::-1] if scores else None

    def _record(self, step: int) -> Record | None:
        try:
            return read_record(self.path(step), verify=False)
        except UserError:  # someone wrote into it; that shall not end a run
            return None

    def prune(self) -> None:
        """Remove all but the newest three and the best, and older pictures; what cannot be removed or read stays."""
        steps, best = self.steps(), self.best()
        kept = {*steps[-NEWEST_KEPT:], *(best or ())[:1]}
        for step in set(steps) - kept:
            if self._record(step) is not None:
                path = self.path(step)
                # The parameters first: without them the rest is no checkpoint.
                _remove(path, record_path(path), state_path(path))
        for picture in self.pictures.glob("*.jpg") if self.pictures else ():
            step = picture.stem.rsplit("_", 1)[-1]
            if step.isdecimal() and int(step) < steps[-1] and int(step) not in kept:
                _remove(picture)


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()
