"""YAML files read into frozen dataclasses; every mistake is one sentence that names file and key.

A class that a file is read into is made by `checked`: its fields' types say what is allowed (pydantic, strict).
A field that is `INTERNAL` is no key of the file.
"""

import io
import json
import re
from functools import partial
from typing import Annotated

from maskflownet.errors import UserError, nearest, shown
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, WrapValidator
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

checked = partial(dataclass, frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
INTERNAL = Field(exclude=True)
LARGEST_TEXT, LARGEST_CONTENT = 10**6, 10**5  # characters, values: far more than a config or a record has

_whole = BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)
Whole = Annotated[int, _whole, Field(ge=1, le=10**9)]  # 1e5 is one, too
WholeOrZero = Annotated[int, _whole, Field(ge=0, le=10**9)]
Seed = Annotated[int, _whole, Field(ge=0, le=2**63 - 1)]
Side = Annotated[int, _whole, Field(ge=2, le=16384)]  # px, of a picture
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]


def described(what: str) -> WrapValidator:
    """Part of an annotation: for any mistake inside of a list, the sentence says what it must be."""

    def check(value, handler):
        try:
            return handler(_tuples(value))
        except ValidationError as error:
            raise ValueError(f"must be {what}, not {shown(value)}") from error

    return WrapValidator(check)


def _tuples(value):
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value


class _Constructor(SafeConstructor):
    def construct_document(self, node):
        if _count(node, {}) > LARGEST_CONTENT:
            raise UserError(f"more than {LARGEST_CONTENT} values, by aliases of aliases")
        return super().construct_document(node)


def _count(node, known: dict) -> float:
    """Number of values in a YAML node, those of an alias each time that it stands there."""
    if isinstance(node, ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")  # of a node that contains itself
        inner = (child for entry in node.value for child in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_count(child, known) for child in inner)
    return known[id(node)]


def read_yaml(path) -> dict:
    """The mapping in a YAML file, {} for an empty one; no key may stand twice, and nothing in it can run code.

    UserError: The file cannot be read, is no YAML, or holds no mapping.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LARGEST_TEXT + 1)
        if len(text) > LARGEST_TEXT:
            raise UserError(f"{path} is no config or record: it has more than {LARGEST_TEXT} characters")
        content = yaml.load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise UserError(f"cannot read {path}: {reason}") from error
    except DuplicateKeyError as error:
        key = re.search('"(.*?)"', error.problem, re.S).group(1)
        line = error.problem_mark.line + 1
        raise UserError(f"{path}: the key {key} stands twice, for the second time at line {line}") from error
    except UserError as error:
        raise UserError(f"{path} is not usable YAML: {error}") from error
    except Exception as error:  # the library has no one class for what a text such as `!!int ''` makes it throw
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not valid YAML{f' at line {mark.line + 1}' if mark else ''}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold keys and values")
    return content


class _Representer(SafeRepresenter):
    def represent_float(self, data):
        node = super().represent_float(data)
        if "." not in node.value:  # without a dot, PyYAML takes 1e-05 for a text
            node.value = node.value.replace("e", ".0e")
        return node


_Representer.add_representer(float, _Representer.represent_float)


def yaml_text(content: dict) -> str:
    """A mapping as YAML, keys in their order; `read_yaml` gives it back."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style, yaml.allow_unicode, yaml.width = False, True, 10000
    yaml.sort_base_mapping_type_on_output = False
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def parse(cls, content: dict, source):
    """Make an instance of a `checked` class from the content of the file `source`.

    UserError: A key is unknown or missing, or a value is wrong.
    """
    for key, field in cls.__pydantic_fields__.items():
        if field.exclude and key in content:
            raise UserError(f"{source}: unknown key {key}")
    adapter = TypeAdapter(cls)
    try:
        return adapter.validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise UserError(f"{source}: {_sentence(error, adapter)}") from error
    except (TypeError, ValueError, RecursionError) as error:  # keys that are lists, a list that contains itself
        raise UserError(f"{source} holds what no config has: {shown(str(error))}") from error


WORDS = {  # pydantic's and ours
    "String should match pattern '^[A-Za-z0-9_-]{1,100}$'": "may have 1 to 100 letters, digits, _ and - only",
    "Input should be": "must be",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a text",
    "a valid array": "a list",
    "be an object": "hold keys and values",
    "greater than or equal to": "at least",
    "greater than": "above",
    "less than or equal to": "at most",
}


def _sentence(error: ValidationError, adapter: TypeAdapter) -> str:
    """The first mistake of pydantic's list; an unknown key first, as it explains one that is missing."""
    first = min(error.errors(), key=lambda mistake: mistake["type"] != "unexpected_keyword_argument")
    kind, loc, given, context = first["type"], first["loc"], first["input"], first.get("ctx", {})
    loc = loc[:-2] if loc[-1:] == ("[key]",) else loc
    # Entries of a list are counted from 1, as people do.
    where = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    match kind:
        case "unexpected_keyword_argument":
            schema = adapter.json_schema()
            known = {key for part in (schema, *schema.get("$defs", {}).values()) for key in part.get("properties", {})}
            return f"unknown key {where}{nearest(loc[-1], known)}"
        case "missing":
            return f"the key {where} is missing"
        case "value_error":
            return f"{where} {context['error']}".lstrip()
        case "too_short" | "string_too_short":
            return f"{where} must not be empty"
        case "literal_error":
            names = re.findall("'(.*?)'", context["expected"])
            return f"{where} must be one of {', '.join(names)}, not {shown(given)}{nearest(given, names)}"
    text = first["msg"]
    for theirs, ours in WORDS.items():
        text = text.replace(theirs, ours)
    return f"{where} {text}, not {shown(given)}"
