"""Checkpoints: found by name, read with their record, written so that no half one is ever seen.

A checkpoint is `weights/RUN_STEPS.params` (MXNet's NDArray dictionary, float32 or float16) and a
record, the YAML file of the same name. `RUN` is three hex digits and the date: `8caNov12-1532`.
Files of other programs are read, too (`params.read_parameters`).
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from maskflownet.checkpoints.params import SUFFIXES, Parameters, check_finite, file_bytes, read_parameters
from maskflownet.errors import UserError
from maskflownet.network.architecture import HEAD, NETWORKS, PYRAMIDS
from maskflownet.reader.files import atomic_path, write_bytes
from maskflownet.settings.configs import NetworkConfig
from maskflownet.settings.folders import SHIPPED, WEIGHTS
from maskflownet.settings.schema import INTERNAL, Positive, Seed, WholeOrZero, checked, parse, read_yaml, yaml_text
from pydantic import Field, TypeAdapter

RUN = "[A-Za-z0-9_-]{1,100}"  # the name of a run, which becomes part of the names of files
RunName = Annotated[str, Field(pattern=f"^{RUN}$")]
MARKS = {"MaskFlownet": "conv6x.0.weight", "MaskFlownet_S": "conv6a.0.weight"}  # which only that network has


@checked
class Record:
    """What a checkpoint needs to be used, and what its readers want to know."""

    network: Literal[NETWORKS]
    pyramid: Literal[PYRAMIDS] = "paper"
    colour: Literal["RGB", "BGR"] = "RGB"
    flow_multiplier: Positive = 1.0
    run: RunName | None = None
    step: WholeOrZero | None = None
    parent: str | None = None  # name of the checkpoint that the run began from
    seed: Seed | None = None
    engine: str | None = None
    precision: str | None = None
    time: str | None = None
    config: dict = Field(default_factory=dict)  # the resolved configs and the options of the run
    data: dict = Field(default_factory=dict)
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=True)]] = Field(default_factory=dict)
    sha256: str | None = None  # of the parameters' file
    state_sha256: str | None = None  # of the optimiser's state
    found: Annotated[bool, INTERNAL] = True  # False for a file without a record, taken for one of the authors'


_content = TypeAdapter(Record).dump_python  # without what is INTERNAL


CHAIRS_THINGS, MIX = "FlyingChairs, FlyingThings3D", "Sintel, KITTI 2015, HD1K"
RELEASED = {  # names: the authors' and ptlflow's, or mmflow's -> trained on, colours, published end-point errors in px
    ("771Sep25-0735_500000", "maskflownet_s-things-a8a8ed9e"): (
        CHAIRS_THINGS, "BGR", "Sintel 2.535 / 3.884, KITTI 2012 4.383, KITTI 2015 10.773 (Fl 32.8 %)",
    ),
    ("abbSep15-1037_500000",): (CHAIRS_THINGS, "BGR", "Sintel 2.33 / 3.72"),
    ("dbbSep30-1206_1000000", "maskflownet_s-sintel-79196ff3"): (
        MIX, "RGB", "Sintel 1.502 / 2.002, KITTI 2012 1.708, KITTI 2015 2.445 (Fl 9.4 %)",
    ),
    ("5adNov03-0005_1000000", "maskflownet-sintel-c52423aa"): (
        MIX, "RGB", "Sintel 1.443 / 1.922, KITTI 2012 1.462, KITTI 2015 1.846 (Fl 6.3 %)",
    ),
    ("8caNov12-1532_300000", "maskflownet-kitti-d2ccb09b"): (
        "KITTI", "BGR", "Sintel 3.576 / 4.810, KITTI 2012 0.965, KITTI 2015 1.626 (Fl 6.1 %)",
    ),
    ("maskflownets_8x1_slong_flyingchairs_384x448",): ("FlyingChairs", "BGR", "FlyingChairs 1.54"),
    ("maskflownets_8x1_sfine_flyingthings3d_subset_384x768",): (CHAIRS_THINGS, "BGR", "Sintel 2.30 / 3.73"),
}  # fmt: skip


def beside(path, suffix: str) -> Path:
    """The file of another suffix beside a file, or else beside the one that a symbolic link points to."""
    here, there = (Path(file).with_suffix(suffix) for file in (path, os.path.realpath(path)))
    return there if there.exists() and not here.exists() else here


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_record(checkpoint, verify: bool = True) -> Record | None:
    """The record beside a checkpoint, None if there is none.

    UserError: The record is malformed, or (with `verify`) its sha256 is not that of the checkpoint.
    """
    path = beside(checkpoint, ".yaml")
    if not path.exists():
        return None
    record = parse(Record, read_yaml(path), path)
    if verify and record.sha256 and record.sha256 != sha256(Path(checkpoint).read_bytes()):
        raise UserError(f"{checkpoint} is damaged or not the file that {path.name} describes: their sha256 sums differ")
    return record


def parse_record(text: str, checkpoint) -> Record:
    """The record in a safetensors file, JSON; a UserError that names the file where it is none."""
    try:
        return parse(Record, json.loads(text), checkpoint)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the record in {checkpoint} is damaged") from error


@dataclass(frozen=True)
class Checkpoint:
    """Parameters (float32, by structural name) with the record that says how to use them."""

    path: Path
    parameters: dict[str, np.ndarray]
    record: Record
    note: str = ""  # what the user should know of a file without record

    def head(self) -> "Checkpoint":
        """The MaskFlownet_S checkpoint inside a MaskFlownet checkpoint."""
        parameters = {name[len(HEAD) :]: array for name, array in self.parameters.items() if name.startswith(HEAD)}
        return replace(self, parameters=parameters, record=replace(self.record, network="MaskFlownet_S"))


def as_path(name, what: str) -> Path | None:
    """Path of a file, or None if the name is a run id, which has neither a dot nor a slash.

    UserError: The name is empty, or a path of which there is no file.
    """
    if not str(name):
        raise UserError(f"the {what}'s name is empty: give a path or a run id")
    if not {".", "/"} & set(str(name)):
        return None
    if not Path(name).is_file():
        raise UserError(f"no {what} {name}: there is no such file")
    return Path(name)


def find_run(prefix: str, runs: Collection[str], what: str, folder: Path) -> str:
    """The run whose id is `prefix`, or the only one that begins so; else a UserError that lists the runs."""
    fitting = [prefix] if prefix in runs else [run for run in runs if run.startswith(prefix)]
    if len(fitting) > 1:
        raise UserError(f"{what} {prefix} is ambiguous: it fits {', '.join(sorted(fitting))}")
    if not fitting:
        raise UserError(f"no {what} {prefix} in {folder}: there are {', '.join(sorted(runs)) or 'none'}")
    return fitting[0]


def split_name(path: Path) -> tuple[str, int]:
    """Run and step of a file RUN_STEPS; a name without steps counts as step 0."""
    match = re.fullmatch(r"(.+)_([0-9]{1,9})", path.stem)
    return (match.group(1), int(match.group(2))) if match else (path.stem, 0)


def find_checkpoint(name, folder: Path = WEIGHTS) -> Path:
    """Path of a checkpoint given as path, run id, unique prefix of one, or `prefix:steps`; None = the shipped one.

    Without steps, the checkpoint with the most steps of the run. The shipped weights are a run of every folder.

    UserError: There is none, or the prefix fits several runs; the message lists what there is.
    """
    if name is None:
        return SHIPPED
    path = as_path(name, "checkpoint")
    if path is not None:
        return path
    prefix, _, steps = str(name).partition(":")
    if steps and not re.fullmatch("[0-9]{1,15}", steps):
        raise UserError(f"checkpoint {name}: what follows the colon must be a number of steps")
    runs: dict[str, dict[int, Path]] = {}
    for path in sorted(path for suffix in SUFFIXES for path in Path(folder).glob(f"[!.]*{suffix}")):
        run, step = split_name(path)
        runs.setdefault(run, {}).setdefault(step, path)
    if not any(run.startswith(prefix) for run in runs):
        run, step = split_name(SHIPPED)
        runs[run] = {step: SHIPPED}
    run = find_run(prefix, runs, "checkpoint", folder)
    files = runs[run]
    if steps and int(steps) not in files:
        there = ", ".join(str(step) for step in sorted(files))
        raise UserError(f"run {run} has no checkpoint at step {steps}: it has {there}")
    return files[int(steps) if steps else max(files)]


def read_checkpoint(name=None, folder: Path = WEIGHTS, colour: str | None = None) -> Checkpoint:
    """Find (`find_checkpoint`) and read (`load_checkpoint`) a checkpoint; stderr gets its note."""
    checkpoint = load_checkpoint(find_checkpoint(name, folder), colour)
    if checkpoint.note:
        print(f"note: {checkpoint.note}", file=sys.stderr)
    return checkpoint


def load_checkpoint(path, colour: str | None = None) -> Checkpoint:
    """Read a checkpoint of any program that `read_parameters` knows, and find out which network it is of.

    `colour`, "RGB" or "BGR", stands above what its record or the released files' table says. A record that does not say
    run and step gets them from the file's name.

    UserError: The file is missing, damaged, foreign, or disagrees with its record.
    """
    if colour not in {None, "RGB", "BGR"}:
        raise UserError(f"the order of the colours is RGB or BGR, not {colour}")
    path = Path(path)
    found, note = read_parameters(path), ""
    arrays = found.arrays
    network = next((network for network, mark in MARKS.items() if mark in arrays), None)
    if network is None:
        raise UserError(
            f"{path} is no checkpoint of MaskFlownet_S or MaskFlownet: "
            f"none of its {len(arrays)} arrays has a name that they know"
        )
    record = read_record(path) if found.record is None else parse_record(found.record, path)
    if record is None:
        record, note = _without_record(path, network, found, colour)
    elif record.network != network:
        raise UserError(f"{path} is a {network} checkpoint, but its record says {record.network}")
    run, step = split_name(path)
    run = re.sub("[^A-Za-z0-9_-]", "-", run)[:100]  # a stranger's file may have any name
    step = step if record.step is None else record.step
    record = replace(record, run=record.run or run, step=step, colour=colour or record.colour)
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise UserError(f"{path} is no checkpoint: {name} holds {array.dtype}, not floats")
    with np.errstate(over="ignore"):  # of float64
        parameters = {name: array.astype(np.float32) for name, array in arrays.items()}
    check_finite(parameters, f"{path} is no checkpoint")
    return Checkpoint(path, parameters, record, note)


def _without_record(path: Path, network: str, found: Parameters, colour: str | None) -> tuple[Record, str]:
    """What a file without record is taken for, and what the user should know of that.

    A released file is known by its name, or by that which a symbolic link points to.
    """
    record, facts = Record(network, "released", found.colour, found=False), [found.note] if found.note else []
    stems = {path.stem, Path(os.path.realpath(path)).stem}
    for (name, *others), (trained_on, order, errors) in RELEASED.items():
        if stems & {name, *others}:
            run, step = split_name(Path(name))
            data = {"trained on": trained_on, "published": errors}
            record = replace(record, colour=order, run=run, step=step or None, data=data)
            facts.append(f"by its name trained on {trained_on}, published end-point error {errors}")
            break
    if network == "MaskFlownet" and record.run is None:
        facts.append("it is taken for one of the authors' (pyramid: released)")
    facts.append(f"its colours are {colour or record.colour} (--rgb or --bgr says otherwise)")
    return record, f"there is no record beside {path}; {'; '.join(facts)}" if len(facts) > 1 else ""


def match_network(checkpoint: Checkpoint, network: str, shapes: dict[str, tuple]) -> Checkpoint:
    """The checkpoint for a network (class `network`, parameters of `shapes`): all of it, or its head.

    UserError: The checkpoint is of the other network, or its arrays are not the network's.
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
        raise UserError(f"{checkpoint.path} was trained with flow_multiplier {trained}, {config.path} says {wanted}")


def save_checkpoint(path, parameters: dict, record: Record, dtype="float32") -> None:
    """Write parameters, in the format of the path's suffix (`SUFFIXES`), and their record.

    The record comes first, so that none is ever missed.
    """
    with np.errstate(over="ignore"):  # what is too large for float16 is not written
        arrays = {name: np.asarray(array).astype(dtype) for name, array in parameters.items()}
    # Inside of a safetensors file, whose sum it cannot hold.
    text = json.dumps(_content(replace(record, sha256=None, state_sha256=None)))
    data = file_bytes(path, arrays, text)
    with atomic_path(path, durable=True) as temporary:
        temporary.write_bytes(data)
        # An older file of this name would for a moment lie beside the new record.
        if Path(path).exists():
            Path(path).unlink()
        if Path(path).suffix != ".safetensors":  # which holds its record
            content = yaml_text(_content(replace(record, sha256=sha256(data))))
            write_bytes(Path(path).with_suffix(".yaml"), content.encode(), durable=True)
