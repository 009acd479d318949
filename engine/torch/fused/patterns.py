"""What passes over a graph share: who consumes an output, and putting one node for several.

Finding what single kernels compute: convolutions, correlations, warps, upsampling.

Pure data: each function gives fusions whose nodes have the attributes named in its docstring.

Finding convolutions that follow one another in a graph.

Finding the densely connected blocks of a decoder in a graph.

A block concatenates its parts, and then each convolution's result in front of what it took:

    x = concat(parts);  x = concat(leaky(conv_i(x)), x) for each i;  heads take the whole x

A convolution of a concatenation is a sum of convolutions of what was concatenated. So an executor
that knows the block needs no concatenation, and can compute what all convolutions take from one
part when that part is ready.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from maskflownet.engine.symbol import Graph, Node, Output


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
    renamed = {old: (fusion.node.name, i) for fusion in fusions for i, old in enumerate(fusion.outputs)}
    nodes = [node for node in graph.nodes if node.name not in replaced]
    nodes += [fusion.node for fusion in fusions]
    nodes = [
        Node(node.name, node.op, node.attrs, tuple(renamed.get(ref, ref) for ref in node.inputs)) for node in nodes
    ]
    return Graph(
        _ordered(nodes, graph), graph.inputs, graph.parameters, tuple(renamed.get(ref, ref) for ref in graph.outputs)
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


TAPS = 9  # of a 3x3 kernel: offsets of all of them, tiled from one, are one offset


def find_convolutions(graph: Graph) -> list[Fusion]:
    """3x3 convolutions padded by their dilation, with bias, and their LeakyReLU.

    Kind "convolution": x, weight, bias; stride, dilation, slope (None for none).
    """
    uses, fusions = Uses(graph), []
    for node in graph.nodes:
        found = _square_convolution(node)
        if found is None:
            continue
        stride, dilation = found
        layer = uses.with_activation(node)
        attrs = {"stride": stride, "dilation": dilation, "slope": layer.slope}
        fusions.append(_fusion("convolution", node, attrs, node.inputs, layer))
    return fusions


def _square_convolution(node: Node) -> tuple[int, int] | None:
    """Stride and dilation of a Convolution that the kernels can compute."""
    if node.op != "Convolution" or node.attrs.get("no_bias"):
        return None
    attrs = node.attrs
    stride, dilation = (tuple(attrs.get(name, (1, 1))) for name in ("stride", "dilate"))
    kernel, pad = tuple(attrs["kernel"]), tuple(attrs.get("pad", (0, 0)))
    square = stride[0] == stride[1] and dilation[0] == dilation[1]
    if not square or kernel != (3, 3) or pad != dilation or attrs.get("num_group", 1) != 1:
        return None
    return stride[0], dilation[0]


def find_correlations(graph: Graph) -> list[Fusion]:
    """Correlations and their LeakyReLU. Kind "correlation": a, b; radius, slope."""
    uses, fusions = Uses(graph), []
    for node in graph.nodes:
        if node.op == "Correlation":
            radius = node.attrs["max_displacement"]
            plain = {"kernel_size": 1, "stride1": 1, "stride2": 1, "pad_size": radius}
            if all(node.attrs.get(name, 1) == value for name, value in plain.items()):
                layer = uses.with_activation(node)
                attrs = {"radius": radius, "slope": layer.slope}
                fusions.append(_fusion("correlation", node, attrs, node.inputs, layer))
    return fusions


def find_deformables(graph: Graph) -> list[Fusion]:
    """``leaky(deformable(x, tile(offset)) * mask + residual)``, of which the ends may be missing.

    Kind "deformable": x, offset, weight, bias, then mask and residual; masked, residual (whether
    these are there), slope.
    """
    uses, fusions = Uses(graph), []
    for node in graph.nodes:
        if node.op != "_contrib_DeformableConvolution" or len(node.inputs) != 4:
            continue
        x, offsets, *parameters = node.inputs
        tiled = uses.producer(offsets, "tile")
        if tiled is None or tuple(tiled.attrs["reps"]) != (1, TAPS, 1, 1):
            continue
        if uses.only_consumer(offsets, node.op) is None or not _plain_deformable(node):
            continue
        inputs, replaced, end = [x, tiled.inputs[0], *parameters], {tiled.name, node.name}, node
        attrs = {}
        for key, op in (("masked", "broadcast_mul"), ("residual", "elemwise_add")):
            user = uses.only_consumer((end.name, 0), op)
            attrs[key] = user is not None and user.inputs[0] == (end.name, 0)
            if attrs[key]:
                inputs.append(user.inputs[1])
                replaced.add(user.name)
                end = user
        layer = uses.with_activation(end)
        attrs["slope"] = layer.slope
        fusion = _fusion("deformable", node, attrs, inputs, layer)
        fusions.append(Fusion(fusion.node, fusion.replaced | replaced, fusion.outputs))
    return fusions


def _plain_deformable(node: Node) -> bool:
    wanted = {
        "kernel": (3, 3), "pad": (1, 1), "stride": (1, 1), "dilate": (1, 1),
        "num_group": 1, "num_deformable_group": 1, "no_bias": False,
    }  # fmt: skip
    return all(node.attrs.get(name, value) == value for name, value in wanted.items())


def find_upsamplings(graph: Graph, triangular: Callable[[Output, int], bool]) -> list[Fusion]:
    """Linear upsampling by a factor. Kind "upsampling": x; factor.

    Parameters
    ----------
    triangular : callable
        Whether an output is the constant kernel of linear upsampling by a factor.
    """
    uses, fusions = Uses(graph), []
    for node in graph.nodes:
        if node.op != "Deconvolution" or len(node.inputs) != 2:
            continue
        attrs = node.attrs
        factor = attrs["stride"][0]
        shape = (attrs["kernel"], attrs["stride"], attrs.get("pad"), attrs.get("num_group"))
        wanted = ((2 * factor,) * 2, (factor,) * 2, (factor,) * 2, attrs["num_filter"])
        padded = uses.producer(node.inputs[0], "Pad")
        if shape != wanted or padded is None or not triangular(node.inputs[1], factor):
            continue
        edge = padded.attrs["mode"] == "edge"
        if edge and tuple(padded.attrs["pad_width"]) == (0, 0, 0, 0, 0, 1, 0, 1):
            replaced = {node.name}
            if uses.only_consumer((padded.name, 0), "Deconvolution") is node:
                replaced.add(padded.name)
            new = Node(node.name, "upsampling", {"factor": factor}, padded.inputs)
            fusions.append(Fusion(new, frozenset(replaced), ((node.name, 0),)))
    return fusions


def _fusion(op: str, node: Node, attrs, inputs, layer: Activated) -> Fusion:
    new = Node(node.name, op, attrs, tuple(inputs))
    return Fusion(new, frozenset({node.name, *layer.names}), (layer.output,))


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
            Node(f"{self.name}_chain", op, {"chain": self}, (self.layers[0].node.inputs[0], *parameters)),
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
