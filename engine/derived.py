"""Checkpoints that a tool makes out of others: under a run id of their own, which say from what."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Mapping

import numpy as np

from engine.checkpoint import save_checkpoint
from engine.folders import LOGS, WEIGHTS
from engine.records import Record
from engine.run_log import new_run_id


def is_taken(run: str, folder: Path) -> bool:
    """Whether a run of this id has a checkpoint in `folder` or `weights/`, or a log."""
    folders = (folder, WEIGHTS)
    return any(any(f.glob(f"{run}_*")) for f in folders) or (LOGS / f"{run}.log").exists()


def save_derived(
    folder: Path, parameters: Mapping[str, np.ndarray], record: Record, parent: str
) -> Path:
    """Write parameters to `folder` with the record of what they were made from, and print where.

    `parent` says out of what; there are no metrics, as nobody has measured the result.
    """
    run = new_run_id(lambda run: is_taken(run, folder))
    path = folder / f"{run}_{record.step or 0}.params"  # none: a file without a record
    folder.mkdir(parents=True, exist_ok=True)
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    record = replace(record, run=run, parent=parent, time=now, metrics={}, sha256=None)
    save_checkpoint(path, parameters, record)
    print(f"{path}: {parent}")
    return path
