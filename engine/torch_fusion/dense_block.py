"""Finding the densely connected blocks of a decoder in a graph.

A block concatenates its parts, and then each convolution's result in front of what it took:

    x = concat(parts);  x = concat(leaky(conv_i(x)), x) for each i;  heads take the whole x

A convolution of a concatenation is a sum of convolutions of what was concatenated. So an executor
that knows the block needs no concatenation, and can compute what all convolutions take from one
part when that part is ready.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.torch_fusion.rewriting import (
    Activated,
    Fusion,
    Uses,
    dilation_of,
    doubling_deconvolution,
    same_convolution,
)
from engine.torch_graph.symbol import Graph, Node, Output


@dataclass(frozen=True)
class DenseBlock:
    """A dense block with everything that reads its result.

    Attributes
    ----------
    name : str
        Of the node of its first convolution.
    parts : tuple of Output
        What the first concatenation joins, in its order; one, if it starts without.
    convolutions : tuple of Activated
        3x3 convolutions of stride and dilation 1 with their activations. Number i takes the results
        of number i - 1, ..., 0 and then the parts, so its weight has its input channels in this
        order.
    heads : tuple of Activated
        All that takes the whole concatenation, new first and the parts last: such convolutions and
        4x4 transposed convolutions of stride 2 and padding 1 (`node.op` is "Deconvolution").
    concatenations : tuple of str
        Names of the nodes that a fused block does without.
    """

    name: str
    parts: tuple[Output, ...]
    convolutions: tuple[Activated, ...]
    heads: tuple[Activated, ...]
    concatenations: tuple[str, ...]

    @property
    def layers(self) -> tuple[Activated, ...]:
        return self.convolutions + self.heads

    def fusion(self, op: str) -> Fusion:
        """One node of kind `op` for the whole block.

        Its attribute "block" is this object; its inputs are the parts and then weight and bias of
        the convolutions and heads in turn; its outputs are the results of the heads.
        """
        parameters = [ref for layer in self.layers for ref in layer.parameters]
        return Fusion(
            Node(f"{self.name}_block", op, {"block": self}, (*self.parts, *parameters)),
            frozenset(self.concatenations).union(*(layer.names for layer in self.layers)),
            tuple(head.output for head in self.heads),
        )


def find_dense_blocks(graph: Graph) -> list[DenseBlock]:
    """The dense blocks of a graph, in its order.

    A block of which the graph returns an intermediate result, whose convolutions are of another
    kind, or whose result is taken by anything but convolutions, is none.
    """
    uses = Uses(graph)
    steps = {}  # what a convolution takes -> (the convolution, the concatenation after it)
    for node in graph.nodes:
        step = _step(uses, node)
        if step is not None:
            steps[node.inputs[1]] = step
    continued = {(concat.name, 0) for _, concat in steps.values()}
    blocks = (_block(uses, steps, start) for start in steps if start not in continued)
    return [block for block in blocks if block is not None]


def _step(uses: Uses, concat: Node) -> tuple[Activated, Node] | None:
    """The convolution of x whose result a node concatenates in front of x, and that node."""
    if not _joins_channels(concat) or len(concat.inputs) != 2:
        return None
    new, x = concat.inputs
    taken = uses.consumers(x)
    convolution = next((node for node in taken if node is not concat), None)
    if len(taken) != 2 or convolution is None or not _plain(convolution) or uses.is_result(x):
        return None
    layer = uses.with_activation(convolution)
    if convolution.inputs[0] != x or layer.output != new:
        return None
    return (layer, concat) if uses.only_consumer(new, "Concat") is concat else None


def _block(uses: Uses, steps, start: Output) -> DenseBlock | None:
    convolutions, concatenations, whole = [], [], start
    while whole in steps:
        layer, concat = steps[whole]
        convolutions.append(layer)
        concatenations.append(concat)
        whole = (concat.name, 0)
    readers = uses.consumers(whole)
    if uses.is_result(whole) or not all(_plain(n) or doubling_deconvolution(n) for n in readers):
        return None
    layers = [*convolutions, *map(uses.with_activation, readers)]
    # A weight that is computed from other nodes could depend on the block itself.
    if not all(ref[0] in uses.graph.parameters for x in layers for ref in x.parameters):
        return None
    joined = uses.producer(start, "Concat")
    if joined is not None and _joins_channels(joined):
        concatenations.insert(0, joined)
    return DenseBlock(
        convolutions[0].node.name,
        joined.inputs if joined in concatenations else (start,),
        tuple(convolutions),
        tuple(layers[len(convolutions) :]),
        tuple(node.name for node in concatenations),
    )


def _joins_channels(node: Node) -> bool:
    return node.op == "Concat" and node.attrs.get("dim", 1) == 1


def _plain(node: Node) -> bool:
    return same_convolution(node) and dilation_of(node) == 1
