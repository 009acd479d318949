"""The checkpoints of a run: complete ones only, the newest three and the best, written by one process at a time."""

import itertools
import math
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from maskflownet.checkpoints.checkpoint import Record, beside, read_record, save_checkpoint, sha256
from maskflownet.checkpoints.params import params_bytes, read_params
from maskflownet.errors import UserError
from maskflownet.reader.files import read_bytes, sweep, write_bytes

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None

NEWEST_KEPT = 3
MEAN_EPE = "mean_epe"  # in a record's metrics: over the validation sets, at that step


def read_state(checkpoint) -> dict[str, np.ndarray]:
    """The optimiser's state beside a checkpoint; a UserError if there is none or it is damaged."""
    path, record = beside(checkpoint, ".states"), read_record(checkpoint, verify=False)
    new_run = "(--clear_steps starts a new run from its parameters)"
    if not path.exists():
        raise UserError(f"{checkpoint} cannot be resumed: the optimiser's state {path.name} is not beside it {new_run}")
    data = read_bytes(path)
    if record and record.state_sha256 and record.state_sha256 != sha256(data):
        raise UserError(f"{checkpoint} cannot be resumed: {path.name} is damaged, its sha256 sum is another {new_run}")
    return read_params(path, data)


class Lock:
    """A file that one process holds, until `close` or its end, however it ends.

    UserError: Another process holds it, which is named, or the file cannot be written.
    """

    def __init__(self, path: Path, what: str):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held until `close`
                self._take(what)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(self._file.fileno()), path.stat()):
                        break
                self._file.close()  # its holder removed it meanwhile
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%b %d %H:%M')}")
            self._file.flush()
        except OSError as error:
            raise UserError(f"cannot write into {path.parent}: {error.strerror}") from error

    def _take(self, what: str) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read() or "another process"
            raise UserError(f"{what} is in the hands of {holder}: wait for its end, or end it") from None
        except OSError:  # of a file system without locks
            pass

    def close(self) -> None:
        with suppress(OSError):
            self.path.unlink()
        self._file.close()


def _lock_path(weights: Path, run: str) -> Path:
    return weights / f".{run}.lock"


def reserve_run(weights: Path, logs: Path) -> str:
    """Name of a new run that no other process gets: three hex digits, more where those are taken, and the date."""
    stamp = time.strftime("%b%d-%H%M")
    try:
        weights.mkdir(parents=True, exist_ok=True)
        for attempt in itertools.count():
            digits = 3 + attempt // 4
            run = f"{secrets.randbelow(16**digits):0{digits}x}{stamp}"
            if not any(weights.glob(f"{run}_*")) and not (logs / f"{run}.log").exists():
                with suppress(FileExistsError):
                    _lock_path(weights, run).touch(exist_ok=False)
                    return run
    except OSError as error:
        raise UserError(f"cannot write into {weights}: {error.strerror}") from error


class Snapshots:
    """Saves and prunes the checkpoints `folder/RUN_STEPS.params` of one run, and the `pictures` drawn at them."""

    def __init__(self, folder, run: str, pictures: Path | None = None):
        self.folder, self.run, self.pictures = Path(folder), run, pictures

    def lock(self) -> Lock:
        """Keep other processes from the run, and remove what killed ones left half-written."""
        lock = Lock(_lock_path(self.folder, self.run), f"the run {self.run}")
        sweep(self.folder, f"{self.run}_")
        if self.pictures:
            sweep(self.pictures, "")
        for path in self.folder.glob(f"{self.run}_*.states"):
            if not path.with_suffix(".params").exists():
                _remove(path, path.with_suffix(".yaml"))
        return lock

    def path(self, step: int) -> Path:
        return self.folder / f"{self.run}_{step}.params"

    def save(self, step: int, parameters: dict, state: dict, record: Record) -> Path:
        """Write a checkpoint and prune the others.

        The parameters get their name last: where they are, everything else is, too.
        """
        path = self.path(step)
        states = path.with_suffix(".states")
        data = params_bytes(state, states)
        write_bytes(states, data, durable=True)
        save_checkpoint(path, parameters, replace(record, state_sha256=sha256(data)))
        self.prune()
        return path

    def steps(self) -> list[int]:
        stems = (path.stem[len(self.run) + 1 :] for path in self.folder.glob(f"{self.run}_*.params"))
        return sorted(int(stem) for stem in stems if stem.isdecimal() and len(stem) <= 15)

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
                _remove(path, beside(path, ".yaml"), beside(path, ".states"))
        for picture in self.pictures.glob("*.jpg") if self.pictures else ():
            step = picture.stem.rsplit("_", 1)[-1]
            if step.isdecimal() and int(step) < steps[-1] and int(step) not in kept:
                _remove(picture)


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()
