"""A network's graph in its large pieces, which are known by the names of its layers (`network.maskflownet`).

    dense block  x = concat(parts); x = concat(leaky(conv(x)), x) five times; heads take the whole x
    chain        convolutions of which each but the last serves only the next; the parts of its input are one batch
    correlation  with its LeakyReLU
    deformable   leaky(deformable(x, tile(offset)) * mask + residual), of which the ends may be missing

A convolution of a concatenation is a sum of convolutions of what was concatenated. So an executor that knows the
block needs no concatenation, and can compute what all convolutions take from one part when that part is ready.
"""

import re
from dataclasses import dataclass

from maskflownet.engine.symbol import Fusion, Graph, Node, Output, Uses, fuse
from maskflownet.network.architecture import CONTEXT_CHANNELS, DENSE_CHANNELS, HEAD, LEVELS, PYRAMID_CHANNELS, SLOPE

# What the executors of a network's convolutions rely on; `stride` and `dilate` are theirs to know.
CONVOLUTION = {"kernel": (3, 3), "num_group": 1, "no_bias": False}
DOUBLING = {"kernel": (4, 4), "stride": (2, 2), "pad": (1, 1), "adj": (0, 0), "num_group": 1, "no_bias": False}
DEFORMABLE = {
    "kernel": (3, 3),
    "pad": (1, 1),
    "stride": (1, 1),
    "dilate": (1, 1),
    "num_group": 1,
    "num_deformable_group": 1,
    "no_bias": False,
}
CORRELATION = {"kernel_size": 1, "stride1": 1, "stride2": 1}
TAPS = 9  # of a 3x3 kernel: offsets of all of them, tiled from one, are one offset


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution padded by its dilation, or a 4x4 transposed one that doubles the size, with its LeakyReLU."""

    channels: int  # of the output
    slope: float | None  # None for no LeakyReLU
    stride: int
    dilation: int
    doubles: bool


@dataclass(frozen=True)
class Piece:
    """What a node of kind "dense_block" or "chain" computes, as its attribute `piece`.

    Inputs of the node: the parts, then weight and bias of each layer and head. Outputs: those of the heads, or of the
    last layer. Convolution i of a block takes the results of number i - 1, ..., 0 and then the parts, so its
    weight has its input channels in this order; so has a head's.
    """

    parts: int
    layers: tuple[Layer, ...]
    heads: tuple[Layer, ...] = ()


def fused_graph(graph: Graph) -> Graph:
    """The graph with nodes of the kinds above; ValueError if it is not wired as the names of its layers say."""
    return fuse(graph, _Plan(graph).fusions())


class _Plan:
    def __init__(self, graph: Graph):
        self.graph, self.uses = graph, Uses(graph)
        self.layers: dict[str, Node] = {}  # by the layer's name, "MaskFlownet_S.conv6_0"
        for node in graph.nodes:
            if node.inputs and node.inputs[-1][0] in graph.parameters:
                self.layers[re.sub(r"(\.0)?\.(bias|weight)$", "", node.inputs[-1][0])] = node

    def fusions(self) -> list[Fusion]:
        fusions = []
        for stage in (HEAD, ""):
            if f"{stage}pred_flow6" in self.layers:
                fusions += [self._block(stage, level) for level in LEVELS]
                fusions += [self._chain([stage + name for name in names]) for names in self._chains(stage)]
        fusions += [self._correlation(node) for node in self.graph.nodes if node.op == "Correlation"]
        deformables = (node for node in self.graph.nodes if node.op == "_contrib_DeformableConvolution")
        return fusions + [self._deformable(node) for node in deformables]

    def _chains(self, stage: str) -> list[list[str]]:
        letters = "abc" if f"{stage}conv1a" in self.layers else "xyz"
        pyramid = [[f"conv{level}{letter}" for letter in letters] for level in PYRAMID_CHANNELS]
        context = [f"dc_conv{i}" for i in range(2, len(CONTEXT_CHANNELS) + 2)]  # dc_conv1 is a head of the block
        residuals = [[f"conv{level}f"] for level in LEVELS if f"{stage}conv{level}f" in self.layers]
        return [pyramid[0] + pyramid[1], *pyramid[2:], context, *residuals]  # level 1 serves level 2 only

    def _block(self, stage: str, level: int) -> Fusion:
        start = whole = self._node(f"{stage}conv{level}_0").inputs[0]
        layers, refs, replaced = [], [], set()
        for i in range(len(DENSE_CHANNELS)):
            new = self._layer(f"{stage}conv{level}_{i}", whole, layers, refs, replaced)
            concat = self.uses.only_consumer(new, "Concat")
            if concat is None or concat.inputs != (new, whole):
                raise ValueError(f"the result of {stage}conv{level}_{i} is not joined as in a dense block")
            replaced.add(concat.name)
            whole = (concat.name, 0)
        heads, outputs = [], []
        for name in (f"pred_flow{level}", f"pred_mask{level}", f"upfeat{level - 1}", "dc_conv1"):
            if stage + name in self.layers and self.layers[stage + name].inputs[0] == whole:
                outputs.append(self._layer(stage + name, whole, heads, refs, replaced))
        kinds = {(x.slope, x.stride, x.dilation) for x in layers}
        kinds |= {(SLOPE, x.stride - x.doubles, x.dilation) for x in heads}
        if kinds != {(SLOPE, 1, 1)}:
            raise ValueError(f"the layers of {stage}conv{level}_0 to {stage}conv{level}_4 are no dense block's")
        joined = self.uses.producer(start, "Concat")
        if joined is not None:
            replaced.add(joined.name)
        parts = (start,) if joined is None else joined.inputs
        attrs = {"piece": Piece(len(parts), tuple(layers), tuple(heads))}
        return self._fusion("dense_block", f"{stage}block{level}", attrs, (*parts, *refs), replaced, outputs)

    def _chain(self, names: list[str]) -> Fusion:
        x = output = self._node(names[0]).inputs[0]
        layers, refs, replaced, parts = [], [], set(), (x,)
        joined = self.uses.producer(x, "Concat")
        if joined is not None and joined.attrs.get("dim") == 0 and self.uses.only_consumer(x, "Convolution"):
            parts = joined.inputs
            replaced.add(joined.name)
        for name in names:
            output = self._layer(name, output, layers, refs, replaced)
        attrs = {"piece": Piece(len(parts), tuple(layers))}
        return self._fusion("chain", names[0], attrs, (*parts, *refs), replaced, [output])

    def _correlation(self, node: Node) -> Fusion:
        radius = node.attrs["max_displacement"]
        self._check(node, {**CORRELATION, "pad_size": radius})
        slope, output, replaced = self._activation(node)
        attrs = {"radius": radius, "slope": slope}
        return self._fusion("correlation", node.name, attrs, node.inputs, replaced, [output])

    def _deformable(self, node: Node) -> Fusion:
        """Inputs of the new node: x, offset, weight, bias, then mask and residual where the attributes say so."""
        self._check(node, DEFORMABLE)
        x, offsets, *parameters = node.inputs
        tiled = self.uses.producer(offsets, "tile")
        if tiled is None or tuple(tiled.attrs["reps"]) != (1, TAPS, 1, 1):
            raise ValueError(f"the taps of {node.name} have offsets of their own")
        inputs, replaced, end, attrs = [x, tiled.inputs[0], *parameters], {tiled.name, node.name}, node, {}
        for key, op in (("masked", "broadcast_mul"), ("residual", "elemwise_add")):
            user = self.uses.only_consumer((end.name, 0), op)
            attrs[key] = user is not None and user.inputs[0] == (end.name, 0)
            if attrs[key]:
                inputs.append(user.inputs[1])
                replaced.add(user.name)
                end = user
        attrs["slope"], output, more = self._activation(end)
        return self._fusion("deformable", node.name, attrs, inputs, replaced | more, [output])

    def _node(self, name: str) -> Node:
        if name not in self.layers:
            raise ValueError(f"there is no layer {name}")
        return self.layers[name]

    def _layer(self, name: str, x: Output, layers: list, refs: list, replaced: set) -> Output:
        """Append a layer that takes `x`, and what it consists of; its output."""
        node = self._node(name)
        attrs, doubles = node.attrs, node.op == "Deconvolution"
        stride, dilation = (attrs.get(key, (1, 1)) for key in ("stride", "dilate"))
        self._check(node, DOUBLING if doubles else {**CONVOLUTION, "pad": dilation})
        if len(node.inputs) != 3 or node.inputs[0] != x or len({*stride}) > 1 or len({*dilation}) > 1:
            raise ValueError(f"the layer {name} is not where or what it was in the network")
        slope, output, names = self._activation(node)
        layers.append(Layer(attrs["num_filter"], slope, stride[0], dilation[0], doubles))
        refs += node.inputs[1:]
        replaced |= names
        return output

    def _activation(self, node: Node) -> tuple[float | None, Output, set[str]]:
        """Slope and output of the LeakyReLU that alone takes the node's output, and both names."""
        leaky = self.uses.only_consumer((node.name, 0), "LeakyReLU")
        if leaky is None:
            return None, (node.name, 0), {node.name}
        return leaky.attrs["slope"], (leaky.name, 0), {node.name, leaky.name}

    @staticmethod
    def _check(node: Node, wanted: dict) -> None:
        for key, value in wanted.items():
            if node.attrs.get(key, value) != value:
                raise ValueError(f"{node.name} has {key} = {node.attrs[key]!r}, not {value!r}")

    @staticmethod
    def _fusion(op: str, name: str, attrs: dict, inputs, replaced, outputs) -> Fusion:
        node = Node(f"{name} {op}", op, {**attrs, "name": name}, tuple(inputs))
        return Fusion(node, frozenset(replaced), tuple(outputs))
