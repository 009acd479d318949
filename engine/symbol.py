"""MXNet's symbol graphs (JSON) as plain data: nodes by name, in an order that can be executed."""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maskflownet.errors import UserError

Output = tuple[str, int]  # name of a node, input or parameter; which of its outputs
SHAPE = "__shape__"  # the attribute that tells a parameter from an input


@dataclass(frozen=True)
class Node:
    """One application of an operator."""

    name: str  # unique in the graph
    op: str  # MXNet's name of the operator, or that of a fused one
    attrs: Mapping[str, Any]  # numbers, tuples, booleans, None, else text
    inputs: tuple[Output, ...]


@dataclass(frozen=True)
class Graph:
    """A computation from inputs and parameters to outputs."""

    nodes: tuple[Node, ...]  # each after the nodes that it takes its inputs from
    inputs: tuple[str, ...]
    parameters: dict[str, tuple[int, ...]]  # shapes, by the names in a `.params` file
    outputs: tuple[Output, ...]


def parse_graph(text: str, source: str = "the symbol graph") -> Graph:
    """Read the JSON of ``Symbol.tojson()``; variables with a shape are the parameters.

    Raises UserError, which names the `source`, if the text is no symbol graph or two nodes have one name.
    """
    try:
        return _parse(json.loads(text))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f"{source} is no graph of an MXNet symbol: {error!r}") from error
    except UserError as error:
        raise UserError(f"{source} cannot be used: {error}") from error


def _parse(content) -> Graph:
    entries = content["nodes"]

    def outputs(references) -> tuple[Output, ...]:
        return tuple((entries[index]["name"], output) for index, output, *_ in references)

    nodes, inputs, parameters, names = [], [], {}, set()
    for entry in entries:
        name, attrs = entry["name"], entry.get("attrs", {})
        if name in names:
            raise UserError(f"two of its nodes are named {name}")
        names.add(name)
        if entry["op"] != "null":
            values = {key: _value(attr) for key, attr in attrs.items() if not _is_hint(key)}
            nodes.append(Node(name, entry["op"], values, outputs(entry["inputs"])))
        elif SHAPE in attrs:
            parameters[name] = tuple(int(size) for size in _value(attrs[SHAPE]))
        else:
            inputs.append(name)
    return Graph(tuple(nodes), tuple(inputs), parameters, outputs(content["heads"]))


def _is_hint(key: str) -> bool:
    return key.startswith("__") and key.endswith("__")  # of MXNet's executor or optimiser


def _value(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
