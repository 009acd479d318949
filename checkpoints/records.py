"""The record of a checkpoint: a YAML file beside it that says what it is and where it is from."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml
from maskflownet.errors import UserError
from maskflownet.network.architecture import NETWORKS, PYRAMIDS
from maskflownet.reader.files import atomic_path
from maskflownet.settings.schema import one_of, option, optional, parse, positive, read_yaml

COLOURS = ("RGB", "BGR")


def _text(value) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {value!r}")
    return value


def _count(value) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"must be a whole number, not {value!r}")
    return value


def _mapping(value) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"must hold keys and values, not {value!r}")
    return value


@dataclass(frozen=True)
class Record:
    """What a checkpoint needs to be used, and what its readers want to know.

    A file without a record is taken for one of the authors': that is `Record.of_authors`.
    """

    network: str = option(one_of(*NETWORKS))
    pyramid: str = option(one_of(*PYRAMIDS), default="paper")
    colour: str = option(one_of(*COLOURS), default="RGB")
    flow_multiplier: float = option(positive, default=1.0)
    run: str = option(optional(_text), default=None)
    step: int = option(optional(_count), default=None)
    parent: str = option(optional(_text), default=None)
    seed: int = option(optional(_count), default=None)
    engine: str = option(optional(_text), default=None)
    precision: str = option(optional(_text), default=None)
    time: str = option(optional(_text), default=None)
    config: dict = option(_mapping, default_factory=dict)
    data: dict = option(_mapping, default_factory=dict)
    metrics: dict = option(_mapping, default_factory=dict)
    sha256: str = option(optional(_text), default=None)
    found: bool = field(default=True)  # False where the file has no record; no key

    @classmethod
    def of_authors(cls, network: str) -> Record:
        return cls(network=network, pyramid="released", colour="RGB", found=False)


def record_path(checkpoint) -> Path:
    return Path(checkpoint).with_suffix(".yaml")


def sha256(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_record(checkpoint, verify: bool = True) -> Record | None:
    """The record beside a checkpoint, None where there is none.

    Parameters
    ----------
    checkpoint : str or Path
    verify : bool
        Whether to compare the file's sha256 with the record's.

    Raises
    ------
    UserError
        The record is malformed, or its sha256 is not that of the checkpoint.
    """
    path = record_path(checkpoint)
    if not path.exists():
        return None
    record = parse(Record, read_yaml(path), path)
    if verify and record.sha256 and record.sha256 != sha256(checkpoint):
        raise UserError(f"{checkpoint} is damaged or not the file that {path.name} describes: their sha256 sums differ")
    return record


def write_record(checkpoint, record: Record) -> None:
    """Write the record of `checkpoint`; `record.sha256` is the sum of the file's content."""
    content = asdict(record)
    del content["found"]
    with atomic_path(record_path(checkpoint)) as temporary:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        Path(temporary).write_text(text, encoding="utf-8")
