"""A graph as a torch.nn.Module whose parameters have the names of the `.params` file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from maskflownet.engine.symbol import Fusion, Graph, Node, Output, Uses, fuse
from maskflownet.engine.torch.kernels.layout import triton_runs
from maskflownet.engine.torch.operators import OPERATORS, Operator
from maskflownet.errors import UserError
from maskflownet.network.architecture import initial_deviation


class _Step(NamedTuple):
    function: Operator
    attrs: Mapping[str, Any]
    inputs: tuple[Output, ...]
    name: str
    finished: tuple[Output, ...]  # what no later step needs


class GraphModule(torch.nn.Module):
    """Executes a graph node by node, for any batch and image size.

    Nodes that depend on neither an input nor a parameter are computed once, at construction; their
    values move with the module but are no part of its state. With `owner` it computes with the parameters of that
    module. Raises UserError if the graph has an operator, or an attribute of one, that the table lacks.
    """

    def __init__(self, graph: Graph, operators: Mapping[str, Operator] = OPERATORS, owner: "GraphModule | None" = None):
        super().__init__()
        self.graph = graph
        for node in graph.nodes:
            _check(node, operators)
        shapes = graph.parameters.items()
        self._leaves = owner._leaves if owner else {name: self._add(name, shape) for name, shape in shapes}
        computed, constants = _fold(graph, operators)
        self._steps = _plan(graph, computed, operators)
        used = {ref for step in self._steps for ref in step.inputs} | set(graph.outputs)
        self._constants = {}  # output of a node -> name of its buffer
        for ref in (ref for ref in constants if ref in used):
            self._constants[ref] = f"constant{len(self._constants)}"
            self.register_buffer(self._constants[ref], constants[ref], persistent=False)

    def _add(self, name: str, shape) -> tuple[torch.nn.Module, str]:
        """Create a parameter and the modules that its dotted name goes through."""
        owner = self
        *path, leaf = name.split(".")
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, torch.nn.Module())
            owner = owner._modules[part]
        owner.register_parameter(leaf, torch.nn.Parameter(torch.zeros(shape)))
        return owner, leaf

    @torch.no_grad()
    def initialise(self, seed: int, initial: str = "fan_avg") -> None:
        """Draw new parameters, see `network.architecture.initial_deviation`; the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            deviation = initial_deviation(name, parameter.shape, initial)
            values = torch.randn(parameter.shape, generator=generator) if deviation else torch.zeros(parameter.shape)
            parameter.copy_(values * deviation)

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """The outputs of the graph; `inputs` in the order of ``graph.inputs``."""
        names = self.graph.inputs
        if len(inputs) != len(names):
            raise TypeError(f"{len(names)} inputs are needed, {', '.join(names)}, not {len(inputs)}")
        values = {(name, 0): value for name, value in zip(names, inputs)}
        for name, (owner, leaf) in self._leaves.items():
            values[name, 0] = getattr(owner, leaf)
        for ref, name in self._constants.items():
            values[ref] = getattr(self, name)
        for step in self._steps:
            result = step.function([values[ref] for ref in step.inputs], step.attrs)
            values.update(_outputs(step.name, result))
            for ref in step.finished:
                values.pop(ref, None)
        return [values[ref] for ref in self.graph.outputs]


@torch.no_grad()
def _fold(graph: Graph, operators) -> tuple[list[Node], dict[Output, torch.Tensor]]:
    """The nodes that remain to be computed at each call, and the values of the others."""
    computed, constants = [], {}
    for node in graph.nodes:
        if all(ref in constants for ref in node.inputs):
            inputs = [constants[ref] for ref in node.inputs]
            constants.update(_outputs(node.name, operators[node.op](inputs, node.attrs)))
        else:
            computed.append(node)
    return computed, constants


def _check(node: Node, operators: Mapping[str, Operator]) -> None:
    if node.op not in operators:
        raise UserError(f"the torch engine lacks the operator {node.op} of the node {node.name}")
    unknown = sorted(set(node.attrs) - getattr(OPERATORS.get(node.op), "attributes", set(node.attrs)))
    if unknown:
        raise UserError(
            f"the torch engine's operator {node.op} does not know the attribute {unknown[0]} of the node {node.name}"
        )


def _outputs(name: str, result) -> dict[Output, torch.Tensor]:
    results = (result,) if isinstance(result, torch.Tensor) else result
    return {(name, i): value for i, value in enumerate(results)}


def _plan(graph: Graph, nodes: list[Node], operators) -> list[_Step]:
    """The nodes as steps, each with what can be forgotten after it, to keep the memory small."""
    seen, steps = set(graph.outputs), []
    for node in reversed(nodes):
        finished = tuple(set(node.inputs) - seen)
        seen.update(finished)
        steps.append(_Step(operators[node.op], node.attrs, node.inputs, node.name, finished))
    return steps[::-1]


def module_of(graph: Graph, device: torch.device) -> GraphModule:
    """A graph without parameters, such as a loss, as a float32 module on a device."""
    if triton_runs(device):
        return GraphModule(*with_fast_upsampling(graph)).to(device)
    return GraphModule(graph).to(device)


def with_fast_upsampling(graph: Graph) -> tuple[Graph, Mapping[str, Operator]]:
    """The graph with Triton's kernel for each `network.layers.Upsample`, and the table of its operators."""
    from maskflownet.engine.torch.kernels.upsampling import upsample  # noqa: PLC0415 - needs Triton

    uses, fusions = Uses(graph), []
    _, constants = _fold(graph, OPERATORS)
    for node in graph.nodes:
        if node.op != "Deconvolution" or node.inputs[1] not in constants:
            continue
        padded = uses.producer(node.inputs[0], "Pad")
        kernel, factor = constants[node.inputs[1]], node.attrs["stride"][0]
        ramp = 1 - (torch.arange(2 * factor) - factor).abs() / factor
        linear = kernel.shape[1:] == (1, 2 * factor, 2 * factor) and torch.allclose(kernel, torch.outer(ramp, ramp))
        edge = padded is not None and tuple(padded.attrs["pad_width"]) == (0, 0, 0, 0, 0, 1, 0, 1)
        if linear and edge and tuple(node.attrs["pad"]) == (factor, factor):
            replaced = {node.name}
            if uses.only_consumer((padded.name, 0), "Deconvolution") is node:
                replaced.add(padded.name)
            fused = Node(node.name, "upsampling", {"factor": factor}, padded.inputs)
            fusions.append(Fusion(fused, frozenset(replaced), ((node.name, 0),)))
    operators = {**OPERATORS, "upsampling": lambda inputs, attrs: upsample(inputs[0], attrs["factor"])}
    return fuse(graph, fusions), operators


@contextmanager
def computing(precision: str, search: bool = False) -> Iterator[None]:
    """Let matrix products be computed at "float32", "tf32" or "bf16"; everything outside stays float32.

    With `search`, cuDNN may time its algorithms for sizes that it meets for the first time.
    """
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, precision != "float32"
    try:
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=search, allow_tf32=precision != "float32"),
            torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"),
        ):
            yield
    finally:
        products.allow_tf32 = before


def to_float(image: torch.Tensor) -> torch.Tensor:
    """(N, H, W, C) uint8 -> (N, C, H, W) float32 in [0, 1]."""
    return image.permute(0, 3, 1, 2).contiguous() / 255


def centred(images: list[torch.Tensor], colour: str) -> list[torch.Tensor]:
    """RGB images (N, 3, H, W) in the network's channel order, minus the mean of both."""
    if colour == "BGR":
        images = [image.flip(1) for image in images]
    # Axis after axis: onnxruntime's sum of a whole picture is inexact.
    mean = sum(image.mean(3, keepdim=True).mean(2, keepdim=True) for image in images) / 2
    return [image - mean for image in images]
