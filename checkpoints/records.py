"""The record of a checkpoint: a YAML file beside it that says what it is and where it is from."""

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

from maskflownet.errors import UserError
from maskflownet.network.architecture import NETWORKS, PYRAMIDS
from maskflownet.reader.files import write_bytes
from maskflownet.settings.schema import INTERNAL, Positive, Seed, WholeOrZero, checked, parse, read_yaml, yaml_text
from pydantic import Field

RUN = "[A-Za-z0-9_-]{1,100}"  # the name of a run, which becomes part of the names of files
RunName = Annotated[str, Field(pattern=f"^{RUN}$")]


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


def released_record(checkpoint, network: str) -> Record | None:
    """What is known of a released file without record, by its name or by that which a symbolic link points to."""
    stems = {Path(checkpoint).stem, Path(os.path.realpath(checkpoint)).stem}
    for names, (trained_on, colour, errors) in RELEASED.items():
        if stems & set(names):
            run, _, step = names[0].rpartition("_")
            data = {"trained on": trained_on, "published": errors}
            known = {"run": run, "step": int(step)} if step.isdigit() else {"run": names[0]}
            return Record(network, "released", colour, data=data, found=False, **known)
    return None


def beside(path, suffix: str) -> Path:
    """The file of another suffix beside a file, or else beside the one that a symbolic link points to."""
    here, there = (Path(file).with_suffix(suffix) for file in (path, os.path.realpath(path)))
    return there if there.exists() and not here.exists() else here


def record_path(checkpoint) -> Path:
    return beside(checkpoint, ".yaml")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_record(checkpoint, verify: bool = True) -> Record | None:
    """The record beside a checkpoint, None if there is none.

    UserError: The record is malformed, or (with `verify`) its sha256 is not that of the checkpoint.
    """
    path = record_path(checkpoint)
    if not path.exists():
        return None
    record = parse(Record, read_yaml(path), path)
    if verify and record.sha256 and record.sha256 != sha256(Path(checkpoint).read_bytes()):
        raise UserError(f"{checkpoint} is damaged or not the file that {path.name} describes: their sha256 sums differ")
    return record


def write_record(checkpoint, record: Record) -> None:
    write_bytes(Path(checkpoint).with_suffix(".yaml"), yaml_text(_content(record)).encode(), durable=True)


def record_text(record: Record) -> str:
    """A record as a line, to be stored in the file that it describes, whose sum it cannot hold."""
    return json.dumps(_content(replace(record, sha256=None, state_sha256=None)))


def parse_record(text: str, checkpoint) -> Record:
    """The inverse of `record_text`; a UserError that names the file where it is none."""
    try:
        return parse(Record, json.loads(text), checkpoint)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the record in {checkpoint} is damaged") from error


def _content(record: Record) -> dict:
    return {key: value for key, value in asdict(record).items() if key != "found"}
