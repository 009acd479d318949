"""A run's file by what a user calls it: a path, the run's id, or a unique beginning of one.

Checkpoints: found by run id, read with their record, written so that no half one is ever seen.

A checkpoint is `weights/RUN_STEPS.params` (MXNet's NDArray dictionary, float32 or float16) and a
record, the YAML file of the same name. `RUN` is three hex digits and the date: `8caNov12-1532`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from maskflownet.checkpoints.params import OtherLayout, read_params, write_params
from maskflownet.checkpoints.records import Record, read_record, sha256, write_record
from maskflownet.errors import UserError
from maskflownet.network import import_mxnet
from maskflownet.network.architecture import HEAD
from maskflownet.reader.files import atomic_path
from maskflownet.settings.configs import NetworkConfig
from maskflownet.settings.folders import WEIGHTS


def as_path(name, suffix: str, what: str) -> Path | None:
    """The path that a name is, None where it is none but a run's id.

    Parameters
    ----------
    name : str or Path
    suffix : str
        Of such files; a name with it, or with a slash, is a path.
    what : str
        Of which kind the file is, for the message: "checkpoint".

    Raises
    ------
    UserError
        There is no such file.
    """
    text = str(name)
    if not text.endswith(suffix) and "/" not in text:
        return None
    if not Path(name).is_file():
        raise UserError(f"no {what} {name}: there is no such file")
    return Path(name)


def find_run(prefix: str, runs: Collection[str], not_unique: str, missing: str) -> str:
    """The run whose id is `prefix`, or the only one that begins so.

    Raises
    ------
    UserError
        `not_unique` or `missing`, with the runs that there are.
    """
    fitting = [prefix] if prefix in runs else [run for run in runs if run.startswith(prefix)]
    if len(fitting) > 1:
        raise UserError(f"{not_unique} is ambiguous: it fits {', '.join(sorted(fitting))}")
    if not fitting:
        there = f"it holds {', '.join(sorted(runs))}" if runs else "it holds none"
        raise UserError(f"{missing}: {there}")
    return fitting[0]


SUFFIX = ".params"
_MARKS = {  # parameters that only one of the two networks has
    "MaskFlownet": "conv6x.0.weight",
    "MaskFlownet_S": "conv6a.0.weight",
}


@dataclass(frozen=True)
class Checkpoint:
    """Parameters (float32, by structural name) with the record that says how to use them."""

    path: Path
    parameters: dict[str, np.ndarray]
    record: Record

    def head(self) -> Checkpoint:
        """The MaskFlownet_S checkpoint inside a MaskFlownet checkpoint."""
        parameters = {name[len(HEAD) :]: array for name, array in self.parameters.items() if name.startswith(HEAD)}
        return replace(self, parameters=parameters, record=replace(self.record, network="MaskFlownet_S"))

    def with_head(self, head: Checkpoint) -> Checkpoint:
        """This MaskFlownet checkpoint with the first stage of another checkpoint.

        Raises
        ------
        UserError
            This one is of MaskFlownet_S, or the two disagree about colours or the unit of flow.
        """
        if self.record.network != "MaskFlownet":
            raise UserError(f"{self.path} is a checkpoint of MaskFlownet_S: it has no second stage")
        for key in ("colour", "flow_multiplier"):
            ours, its = getattr(self.record, key), getattr(head.record, key)
            if ours != its:
                raise UserError(f"{self.path} and {head.path} do not fit: {key} is {ours} and {its}")
        if head.record.network == "MaskFlownet":
            head = head.head()
        first = {HEAD + name: array for name, array in head.parameters.items()}
        return replace(self, parameters={**self.parameters, **first})


def find_checkpoint(name, folder: Path = WEIGHTS) -> Path:
    """Path of a checkpoint given as path, run id, unique prefix of one, or `prefix:steps`.

    Without steps, the checkpoint with the most steps of the run.

    Raises
    ------
    UserError
        There is none, or the prefix fits several runs; the message lists what there is.
    """
    path = as_path(name, SUFFIX, "checkpoint")
    if path is not None:
        return path
    prefix, _, steps = str(name).partition(":")
    if not prefix:
        raise UserError("the checkpoint's name is empty: give a path or a run id")
    if steps and not steps.isdecimal():
        raise UserError(f"checkpoint {name}: what follows the colon must be a number of steps")
    runs = _runs(folder)
    run = find_run(prefix, runs, f"checkpoint {name}", f"no checkpoint {name} in {folder}")
    files = runs[run]
    if not steps:
        return files[max(files)]
    if int(steps) not in files:
        there = ", ".join(str(step) for step in sorted(files))
        raise UserError(f"run {run} has no checkpoint at step {steps}: it has {there}")
    return files[int(steps)]


def _runs(folder) -> dict[str, dict[int, Path]]:
    """Checkpoints of a folder by run and step; a name without steps counts as step 0."""
    runs: dict[str, dict[int, Path]] = {}
    for path in sorted(Path(folder).glob(f"[!.]*{SUFFIX}")):
        match = re.fullmatch(r"(.+)_(\d+)", path.stem)
        run, step = (match.group(1), int(match.group(2))) if match else (path.stem, 0)
        runs.setdefault(run, {})[step] = path
    return runs


def load_checkpoint(path, read_other_layout: Callable | None = None) -> Checkpoint:
    """Read a checkpoint and find out which network it is of.

    Parameters
    ----------
    path : str or Path
    read_other_layout : callable(path) -> dict, optional
        Reads files in MXNet's older layouts, where MXNet is at hand.

    Raises
    ------
    UserError
        The file is missing, damaged, foreign, or disagrees with its record.
    """
    path = Path(path)
    try:
        arrays = read_params(path)
    except OtherLayout:
        if read_other_layout is None:
            raise
        arrays = read_other_layout(path)
    record = read_record(path)
    # Files that were exported with a symbol carry these marks before the names.
    arrays = {re.sub(r"^(arg|aux):", "", name): array for name, array in arrays.items()}
    network = next((net for net, mark in _MARKS.items() if mark in arrays), None)
    if network is None:
        raise UserError(
            f"{path} is no checkpoint of MaskFlownet_S or MaskFlownet: "
            f"none of its {len(arrays)} arrays has a name that they know"
        )
    if record is None:
        record = Record.of_authors(network)
    elif record.network != network:
        raise UserError(f"{path} is a {network} checkpoint, but its record says {record.network}")
    parameters = {}
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise UserError(f"{path} is no checkpoint: {name} holds {array.dtype}, not floats")
        parameters[name] = array.astype(np.float32)
    return Checkpoint(path, parameters, record)


def match_network(checkpoint: Checkpoint, network: str, shapes: dict[str, tuple]) -> Checkpoint:
    """The checkpoint for a network, all of it or its head.

    Parameters
    ----------
    checkpoint : Checkpoint
    network : str
        Class of the network that is to be loaded.
    shapes : dict of str to tuple
        Its parameters.

    Raises
    ------
    UserError
        The checkpoint is of the other network, or its arrays are not the network's.
    """
    path, found = checkpoint.path, checkpoint.record.network
    if found == "MaskFlownet" and network == "MaskFlownet_S":
        checkpoint = checkpoint.head()
    elif found != network:
        raise UserError(f"{path} is a {found} checkpoint, not one of {network}: use it with {found}.yaml")
    missing = sorted(set(shapes) - set(checkpoint.parameters))
    foreign = sorted(set(checkpoint.parameters) - set(shapes))
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"has the unknown array {foreign[0]}"
        others = len(missing) + len(foreign) - 1
        more = f" and {others} more differ" if others else ""
        raise UserError(f"{path} does not fit {network}: it {what}{more}")
    for name, shape in shapes.items():
        if checkpoint.parameters[name].shape != tuple(shape):
            raise UserError(
                f"{path} does not fit {network}: {name} has shape "
                f"{checkpoint.parameters[name].shape}, the network's has {tuple(shape)}"
            )
    return checkpoint


def check_multiplier(checkpoint: Checkpoint, config: NetworkConfig) -> None:
    """Refuse a checkpoint whose record has another flow_multiplier than the config."""
    trained, wanted = checkpoint.record.flow_multiplier, config.network.flow_multiplier
    if checkpoint.record.found and trained != wanted:
        raise UserError(
            f"{checkpoint.path} was trained with flow_multiplier {trained}, but {config.path} says {wanted}"
        )


def save_checkpoint(path, parameters: dict, record: Record, dtype="float32") -> None:
    """Write parameters and their record; the record first, so that none is ever missed."""
    arrays = {name: np.asarray(array).astype(dtype) for name, array in parameters.items()}
    with atomic_path(path) as temporary:
        write_params(temporary, arrays)
        # An older file of this name would for a moment lie beside the new record.
        if Path(path).exists():
            Path(path).unlink()
        write_record(path, replace(record, sha256=sha256(temporary)))


def read_any_params(path) -> dict[str, np.ndarray]:
    """Read a `.params` file in whatever layout MXNet itself knows."""
    mx = import_mxnet(f"save {path} in the layout of MXNet 1.x, which needs no MXNet to be read")
    try:
        arrays = mx.nd.load(str(path))
    except (mx.MXNetError, ValueError) as error:
        raise UserError(f"{path} is no checkpoint that MXNet can read") from error
    if not isinstance(arrays, dict):
        raise UserError(f"{path} is no checkpoint: its arrays have no names")
    return {name: array.asnumpy() for name, array in arrays.items()}


def read_checkpoint(name, folder: Path = WEIGHTS) -> Checkpoint:
    """Find and read a checkpoint; one without a record gets run and step from its name.

    MXNet is needed for files in a layout other than that of MXNet 1.x only.
    """
    path = find_checkpoint(name, folder)
    checkpoint = load_checkpoint(path, read_any_params)
    record = checkpoint.record
    match = re.fullmatch(r"(.+)_(\d+)", path.stem)
    run, step = (match.group(1), int(match.group(2))) if match else (path.stem, 0)
    record = replace(record, run=record.run or run, step=step if record.step is None else record.step)
    return replace(checkpoint, record=record)


def new_run_id(taken: Callable[[str], bool], now: float | None = None) -> str:
    """Three hex digits, month, day and time: `8caNov12-1532`; not one that is taken."""
    stamp = time.strftime("%b%d-%H%M", time.localtime(now))
    digits = np.random.default_rng().permutation(16**3)  # of the operating system's entropy
    for number in digits:
        run = f"{number:03x}{stamp}"
        if not taken(run):
            return run
    raise UserError(f"all 4096 run ids of {stamp} are taken")
