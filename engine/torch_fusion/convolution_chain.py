"""Finding convolutions that follow one another in a graph."""

from __future__ import annotations

from dataclasses import dataclass

from engine.torch_fusion.rewriting import Activated, Fusion, Uses
from engine.torch_graph.symbol import Graph, Node


@dataclass(frozen=True)
class ConvolutionChain:
    """Convolutions with their activations, of which each but the last serves only the next.

    Attributes
    ----------
    name : str
        Of the first convolution's node.
    layers : tuple of Activated
        Of one group, with one padding and any kernel, stride and dilation; weights and biases are
        parameters.
    """

    name: str
    layers: tuple[Activated, ...]

    def fusion(self, op: str) -> Fusion:
        """One node of kind `op`: attribute "chain"; inputs x, then weight and bias by layer."""
        parameters = [ref for layer in self.layers for ref in layer.parameters]
        return Fusion(
            Node(
                f"{self.name}_chain",
                op,
                {"chain": self},
                (self.layers[0].node.inputs[0], *parameters),
            ),
            frozenset(name for layer in self.layers for name in layer.names),
            (self.layers[-1].output,),
        )


def find_convolution_chains(graph: Graph) -> list[ConvolutionChain]:
    """All convolutions of one group, as chains of greatest length."""
    uses = Uses(graph)
    layers = {node.name: uses.with_activation(node) for node in graph.nodes if _usable(graph, node)}
    following = {}
    for name, layer in layers.items():
        after = uses.only_consumer(layer.output, "Convolution")
        if after is not None and after.name in layers and after.inputs[0] == layer.output:
            following[name] = after.name
    chains = []
    for name in layers:
        if name in following.values():
            continue
        names = [name]
        while names[-1] in following:
            names.append(following[names[-1]])
        chains.append(ConvolutionChain(name, tuple(layers[each] for each in names)))
    return chains


def _usable(graph: Graph, node: Node) -> bool:
    return (
        node.op == "Convolution"
        and node.attrs.get("num_group", 1) == 1
        and len(set(node.attrs.get("pad", (0,)))) == 1  # the same above and to the left
        and all(name in graph.parameters for name, _ in node.inputs[1:])
    )
