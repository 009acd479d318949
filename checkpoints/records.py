"""The record of a checkpoint: a YAML file beside it that says what it is and where it is from."""

import hashlib
import os
from dataclasses import asdict
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

    Raises
    ------
    UserError
        The record is malformed, or (with `verify`) its sha256 is not that of the checkpoint.
    """
    path = record_path(checkpoint)
    if not path.exists():
        return None
    record = parse(Record, read_yaml(path), path)
    if verify and record.sha256 and record.sha256 != sha256(Path(checkpoint).read_bytes()):
        raise UserError(f"{checkpoint} is damaged or not the file that {path.name} describes: their sha256 sums differ")
    return record


def write_record(checkpoint, record: Record) -> None:
    content = asdict(record)
    del content["found"]
    write_bytes(Path(checkpoint).with_suffix(".yaml"), yaml_text(content).encode(), durable=True)
