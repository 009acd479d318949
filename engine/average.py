"""The mean of several checkpoints of a network, often better than the last of them.

python -m engine.average -c CHECKPOINT -c CHECKPOINT [-c CHECKPOINT ...] [--folder DIR]

Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (UAI 2018). The
networks have no batch statistics that would have to be measured anew for the mean.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Iterable

import numpy as np

from engine.checkpoint import Checkpoint, find_checkpoint
from engine.cli import Parser, add_folder, run
from engine.derived import save_derived
from engine.errors import UserError
from engine.loading import read_checkpoint
from engine.records import Record

SETTINGS = ("network", "pyramid", "colour", "flow_multiplier")  # what the parameters mean


def average(checkpoints: Iterable[Checkpoint]) -> tuple[dict[str, np.ndarray], Record]:
    """The mean of checkpoints of one network, summed in float64; one of them is held at a time.

    Returns
    -------
    (dict of str to float32 array, Record)
        The parameters, and the record of the checkpoint with the most steps, whose `parent` names
        all of them.

    Raises
    ------
    UserError
        There are fewer than two, or one does not fit the first, which names the file and how.
    """
    sums: dict[str, np.ndarray] = {}
    records: list[Record] = []
    names: list[str] = []
    first = None
    for checkpoint in checkpoints:
        if first is None:
            first = checkpoint.path
            sums = {k: v.astype(np.float64) for k, v in checkpoint.parameters.items()}
        else:
            _check(checkpoint, first, records[0], sums)
            for key, array in checkpoint.parameters.items():
                sums[key] += array
        records.append(checkpoint.record)
        names.append(checkpoint.path.stem)
    if len(records) < 2:
        raise UserError("a mean needs at least two checkpoints: give -c several times")
    record = replace(
        max(records, key=lambda record: record.step or 0), parent=f"mean of {', '.join(names)}"
    )
    return {k: (v / len(records)).astype(np.float32) for k, v in sums.items()}, record


def _check(checkpoint: Checkpoint, first: Path, record: Record, arrays: dict) -> None:
    """Refuse a checkpoint that does not fit the first one."""
    path, found = checkpoint.path, checkpoint.parameters
    for key in SETTINGS:
        its, wanted = getattr(checkpoint.record, key), getattr(record, key)
        if its != wanted:
            raise UserError(
                f"{path} cannot be averaged with {first}: its {key} is {its}, not {wanted}"
            )
    missing, foreign = sorted(set(arrays) - set(found)), sorted(set(found) - set(arrays))
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"alone has {foreign[0]}"
        raise UserError(f"{path} cannot be averaged with {first}: it {what}")
    for name, array in arrays.items():
        if found[name].shape != array.shape:
            raise UserError(
                f"{path} cannot be averaged with {first}: its {name} has shape "
                f"{found[name].shape}, not {array.shape}"
            )


def main(arguments: list[str]) -> None:
    parser = Parser(
        prog="python -m engine.average",
        description="Write the mean of several checkpoints of a network under a new run id.",
    )
    add = parser.add_argument
    add(
        "-c",
        "--checkpoint",
        action="append",
        required=True,
        help="run id, unique prefix, prefix:steps or path of a .params; give it several times",
    )
    add_folder(parser)
    args = parser.parse_args(arguments)
    paths = [find_checkpoint(name) for name in args.checkpoint]
    resolved = [path.resolve() for path in paths]
    for path in paths:
        if resolved.count(path.resolve()) > 1:
            raise UserError(f"{path} is given twice: each checkpoint counts once")
    parameters, record = average(map(read_checkpoint, paths))
    save_derived(args.folder, parameters, record, record.parent)


if __name__ == "__main__":
    sys.exit(run(main))
