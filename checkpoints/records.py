"""The record of a checkpoint: a YAML file beside it that says what it is and where it is from."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from maskflownet.errors import UserError
from maskflownet.network.architecture import NETWORKS, PYRAMIDS
from maskflownet.reader.files import atomic_path
from maskflownet.settings.schema import INTERNAL, Positive, WholeOrZero, checked, parse, read_yaml, yaml_text
from pydantic import Field


@checked
class Record:
    """What a checkpoint needs to be used, and what its readers want to know."""

    network: Literal[NETWORKS]
    pyramid: Literal[PYRAMIDS] = "paper"
    colour: Literal["RGB", "BGR"] = "RGB"
    flow_multiplier: Positive = 1.0
    run: str | None = None
    step: WholeOrZero | None = None
    parent: str | None = None  # name of the checkpoint that the run began from
    seed: WholeOrZero | None = None
    engine: str | None = None
    precision: str | None = None
    time: str | None = None
    config: dict = Field(default_factory=dict)  # the resolved configs and the options of the run
    data: dict = Field(default_factory=dict)
    metrics: dict = Field(default_factory=dict)
    sha256: str | None = None
    found: Annotated[bool, INTERNAL] = True  # False for a file without a record, taken for one of the authors'


def record_path(checkpoint) -> Path:
    return Path(checkpoint).with_suffix(".yaml")


def sha256(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


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
    if verify and record.sha256 and record.sha256 != sha256(checkpoint):
        raise UserError(f"{checkpoint} is damaged or not the file that {path.name} describes: their sha256 sums differ")
    return record


def write_record(checkpoint, record: Record) -> None:
    content = asdict(record)
    del content["found"]
    with atomic_path(record_path(checkpoint)) as temporary:
        Path(temporary).write_text(yaml_text(content), encoding="utf-8")
