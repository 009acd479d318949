"""What passes over a graph share: who consumes an output, and putting one node for several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable

from engine.torch_graph.symbol import Graph, Node, Output


class Uses:
    """The nodes of a graph by name, and the consumers of each output."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.nodes = {node.name: node for node in graph.nodes}
        self._consumers: dict[Output, list[Node]] = {}
        for node in graph.nodes:
            for ref in dict.fromkeys(node.inputs):
                self._consumers.setdefault(ref, []).append(node)
        self._results = set(graph.outputs)

    def consumers(self, ref: Output) -> list[Node]:
        return self._consumers.get(ref, [])

    def is_result(self, ref: Output) -> bool:
        """Whether the graph returns it, so that it must be computed as it is."""
        return ref in self._results

    def only_consumer(self, ref: Output, op: str) -> Node | None:
        """The one consumer of an output, where it is of this kind and the graph does not return it.

        Such an output need not exist once its consumer is fused with what makes it.
        """
        consumers = self.consumers(ref)
        if len(consumers) == 1 and consumers[0].op == op and not self.is_result(ref):
            return consumers[0]
        return None

    def producer(self, ref: Output, op: str) -> Node | None:
        """The node whose first output this is, where it is of this kind."""
        node = self.nodes.get(ref[0])
        return node if node is not None and node.op == op and ref[1] == 0 else None

    def with_activation(self, node: Node) -> Activated:
        """A node with the LeakyReLU that is the only one to take its output."""
        activation = self.only_consumer((node.name, 0), "LeakyReLU")
        if activation is None or activation.attrs.get("act_type", "leaky") != "leaky":
            return Activated(node, None, (node.name, 0))
        return Activated(node, activation.attrs.get("slope", 0.25), (activation.name, 0))


@dataclass(frozen=True)
class Activated:
    """A node and the activation after it.

    Attributes
    ----------
    node : Node
    slope : float or None
        Of the LeakyReLU; None for none.
    output : Output
        The result in the original graph.
    """

    node: Node
    slope: float | None
    output: Output

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes that this stands for."""
        return tuple(dict.fromkeys((self.node.name, self.output[0])))

    @property
    def channels(self) -> int:
        """Output channels of a convolution."""
        return self.node.attrs["num_filter"]

    @property
    def parameters(self) -> tuple[Output, ...]:
        """Weight and, if there is one, bias of a convolution."""
        return self.node.inputs[-1:] if self.node.attrs.get("no_bias") else self.node.inputs[-2:]


@dataclass(frozen=True)
class Fusion:
    """One node in the place of several.

    Attributes
    ----------
    node : Node
    replaced : frozenset of str
        Names of the nodes that it stands for.
    outputs : tuple of Output
        What becomes output 0, 1, ... of the new node; nothing else of those nodes may be needed.
    """

    node: Node
    replaced: frozenset[str]
    outputs: tuple[Output, ...]


def same_convolution(node: Node, kernel: int = 3) -> bool:
    """Whether a Convolution keeps the size: square kernel, stride 1, padding = dilation x (k // 2).

    One group; any dilation that is the same along both axes.
    """
    if node.op != "Convolution":
        return False
    dilation = _pair(node, "dilate", 1)
    return (
        dilation[0] == dilation[1]
        and _pair(node, "kernel", None) == (kernel, kernel)
        and _pair(node, "stride", 1) == (1, 1)
        and _pair(node, "pad", 0) == (dilation[0] * (kernel // 2),) * 2
        and node.attrs.get("num_group", 1) == 1
    )


def dilation_of(node: Node) -> int:
    return _pair(node, "dilate", 1)[0]


def doubling_deconvolution(node: Node) -> bool:
    """Whether a node is a 4x4 transposed convolution of stride 2 and padding 1, in one group."""
    return (
        node.op == "Deconvolution"
        and _pair(node, "kernel", None) == (4, 4)
        and _pair(node, "stride", 1) == (2, 2)
        and _pair(node, "pad", 0) == (1, 1)
        and _pair(node, "adj", 0) == (0, 0)
        and _pair(node, "dilate", 1) == (1, 1)
        and node.attrs.get("num_group", 1) == 1
    )


def _pair(node: Node, name: str, default: Any) -> tuple:
    return tuple(node.attrs.get(name, (default, default)))


def fuse(graph: Graph, fusions: Iterable[Fusion]) -> Graph:
    """The graph with each fusion's node in the place of those that it replaces.

    Raises
    ------
    ValueError
        The new nodes and those that remain cannot be put in an order: a fusion takes something
        that depends on its own result, or something of a replaced node is still needed.
    """
    fusions = list(fusions)
    replaced = {name for fusion in fusions for name in fusion.replaced}
    renamed = {
        old: (fusion.node.name, i) for fusion in fusions for i, old in enumerate(fusion.outputs)
    }
    nodes = [node for node in graph.nodes if node.name not in replaced]
    nodes += [fusion.node for fusion in fusions]
    nodes = [
        Node(node.name, node.op, node.attrs, tuple(renamed.get(ref, ref) for ref in node.inputs))
        for node in nodes
    ]
    return Graph(
        _ordered(nodes, graph),
        graph.inputs,
        graph.parameters,
        tuple(renamed.get(ref, ref) for ref in graph.outputs),
    )


def _ordered(nodes: list[Node], graph: Graph) -> tuple[Node, ...]:
    """Nodes after what they need, otherwise as early as they were."""
    # A fused node goes where the last of its inputs allows.
    known, ordered, waiting = {*graph.inputs, *graph.parameters}, [], nodes
    while waiting:
        left = []
        for node in waiting:
            if all(name in known for name, _ in node.inputs):
                known.add(node.name)
                ordered.append(node)
            else:
                left.append(node)
        if len(left) == len(waiting):
            raise ValueError(f"the node {left[0].name} cannot be placed in the fused graph")
        waiting = left
    return tuple(ordered)
