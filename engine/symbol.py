"""MXNet's symbol graphs (JSON) as plain data: nodes by name, in an order that can be executed."""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from maskflownet.errors import UserError, shown

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


def parse_graph(text: str | bytes, source: str = "the symbol graph") -> Graph:
    """Read the JSON of ``Symbol.tojson()``; variables with a shape are the parameters.

    Raises UserError, which names the `source`, if the text is no symbol graph or two nodes have one name.
    """
    try:
        return _parse(json.loads(text))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UserError(f"{source} is no graph of an MXNet symbol: {shown(error)}") from error
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
            # What is named __so__ is a hint for MXNet's executor or optimiser.
            values = {key: _value(attr) for key, attr in attrs.items() if not re.fullmatch("__.*__", key)}
            nodes.append(Node(name, entry["op"], values, outputs(entry["inputs"])))
        elif SHAPE in attrs:
            parameters[name] = tuple(int(size) for size in _value(attrs[SHAPE]))
        else:
            inputs.append(name)
    return Graph(tuple(nodes), tuple(inputs), parameters, outputs(content["heads"]))


def _value(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # MemoryError: it nests too deeply
        return text


class Uses:
    """The nodes of a graph by name, and who takes each output."""

    def __init__(self, graph: Graph):
        self.nodes = {node.name: node for node in graph.nodes}
        self._consumers: dict[Output, list[Node]] = {}
        for node in graph.nodes:
            for ref in dict.fromkeys(node.inputs):
                self._consumers.setdefault(ref, []).append(node)
        self._results = set(graph.outputs)

    def only_consumer(self, ref: Output, op: str) -> Node | None:
        """The one consumer of an output, if it is of this kind and the graph does not return the output."""
        consumers = self._consumers.get(ref, [])
        return consumers[0] if len(consumers) == 1 and consumers[0].op == op and ref not in self._results else None

    def producer(self, ref: Output, op: str) -> Node | None:
        """The node whose first output this is, if it is of this kind."""
        node = self.nodes.get(ref[0])
        return node if node is not None and node.op == op and ref[1] == 0 else None


@dataclass(frozen=True)
class Fusion:
    """One node in the place of several."""

    node: Node
    replaced: frozenset[str]  # names of the nodes that go
    outputs: tuple[Output, ...]  # of these, in the order of the new node's outputs


def fuse(graph: Graph, fusions: Iterable[Fusion]) -> Graph:
    """The graph with each fusion's node in the place of those that it replaces.

    Raises ValueError if something of a replaced node is still needed, or a new node depends on its own result.
    """
    fusions = list(fusions)
    replaced = {name for fusion in fusions for name in fusion.replaced}
    renamed = {old: (fusion.node.name, i) for fusion in fusions for i, old in enumerate(fusion.outputs)}
    waiting = [node for node in graph.nodes if node.name not in replaced] + [fusion.node for fusion in fusions]
    waiting = [replace(node, inputs=tuple(renamed.get(ref, ref) for ref in node.inputs)) for node in waiting]
    outputs = tuple(renamed.get(ref, ref) for ref in graph.outputs)
    known, nodes = {*graph.inputs, *graph.parameters}, []
    while waiting:
        left = []
        for node in waiting:
            if all(name in known for name, _ in node.inputs):
                known.add(node.name)
                nodes.append(node)
            else:
                left.append(node)
        if len(left) == len(waiting):
            raise ValueError(f"the node {left[0].name} needs what fused nodes do not give")
        waiting = left
    if not all(name in known for name, _ in outputs):
        raise ValueError("an output of the graph is inside a fused node")
    return replace(graph, nodes=tuple(nodes), outputs=outputs)
