"""YAML in which no key stands twice: PyYAML would take the last value and say nothing.

YAML files read into dataclasses: an unknown key or a wrong type is an error that names it.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import yaml
from maskflownet.errors import UserError, nearest


class RepeatedKey(yaml.constructor.ConstructorError):
    """A key stands twice in one mapping; ``problem`` and ``problem_mark`` say which and where."""


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            # Merged mappings (<<) may repeat what they are merged into, as YAML means it.
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key {key.value} stands twice"
                    raise RepeatedKey(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_yaml(text: str):
    """Return what a YAML text holds.

    Raises
    ------
    yaml.YAMLError
        It is not valid, or a key stands twice (`RepeatedKey`).
    ValueError, RecursionError
        What PyYAML raises for dates that do not exist and for texts nested too deeply.
    """
    return yaml.load(text, _UniqueKeys)  # noqa: S506 - it is a SafeLoader


def option(check, **kwargs):
    """A dataclass field whose YAML value passes through `check`, which raises ValueError."""
    return dataclasses.field(metadata={"check": check}, **kwargs)


def read_yaml(path) -> dict:
    """The mapping in a YAML file; anything else is a UserError that names the file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise UserError(f"cannot read {path}: {reason}") from error
    try:
        content = load_yaml(text)
    except RepeatedKey as error:
        line = error.problem_mark.line + 1
        raise UserError(f"{path}: {error.problem}, for the second time at line {line}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no such day
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UserError(f"{path} is not valid YAML{where}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold keys and values")
    return content


def parse(cls, content, source, where: str = ""):
    """Make the dataclass `cls` out of a mapping.

    Parameters
    ----------
    cls : type
        Dataclass whose fields were made by `option`; field names are the keys, and a name that
        ends in an underscore stands for a Python keyword (``class_`` is the key ``class``).
    content : mapping
    source : str or Path
        File that errors name.
    where : str
        Dotted path of the mapping inside the file.

    Raises
    ------
    UserError
        Unknown or missing key, or a value of the wrong type.
    """
    if not isinstance(content, dict):
        raise UserError(f"{source}: {where or 'the file'} must hold keys and values")
    fields = {f.name.rstrip("_"): f for f in dataclasses.fields(cls) if "check" in f.metadata}
    prefix = f"{where}." if where else ""
    for key in content:
        if key not in fields:
            raise UserError(f"{source}: unknown key {prefix}{key}{nearest(key, fields)}")
    values = {}
    for key, field in fields.items():
        if key in content:
            check = field.metadata["check"]
            try:
                if dataclasses.is_dataclass(check):
                    values[field.name] = parse(check, content[key], source, prefix + key)
                else:
                    values[field.name] = check(content[key])
            except (ValueError, TypeError) as error:
                raise UserError(f"{source}: {prefix}{key} {error}") from error
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{source}: the key {prefix}{key} is missing")
    return cls(**values)


def number(value, low=None, above=None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"must be a number, not {value!r}{_exponent_hint(value)}")
    if not abs(value) <= sys.float_info.max:  # NaN, infinity, an integer beyond every float
        shown = value if isinstance(value, float) else "one of that many digits"
        raise ValueError(f"must be a finite number, not {shown}")
    if (low is not None and value < low) or (above is not None and value <= above):
        bound = f"at least {low}" if low is not None else f"above {above}"
        raise ValueError(f"must be {bound}, not {value}")
    return float(value)


def _exponent_hint(value) -> str:
    # YAML 1.1 reads 1e-4 as a string; only 1.0e-4 is a number.
    try:
        float(value)
    except (ValueError, TypeError):
        return ""
    return " (YAML wants a dot in it, as in 1.0e-4)" if isinstance(value, str) else ""


def whole(value, low: int = 1) -> int:
    if number(value, low=low) % 1:  # which of infinity is not a number, and true
        raise ValueError(f"must be a whole number, not {value!r}")
    return int(value)


def positive(value) -> float:
    return number(value, above=0)


def one_of(*names):
    def check(value):
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}, not {value!r}")
        return value

    return check


def optional(check):
    return lambda value: None if value is None else check(value)
