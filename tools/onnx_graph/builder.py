"""An ONNX graph in the making: nodes whose shapes are known, constants that are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from maskflownet.errors import UserError
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_node_outputs

# Old enough for every runtime of the last years, new enough for GridSample.
OPSET, IR_VERSION = 17, 8
OPSETS = [helper.make_opsetid("", OPSET)]
BATCH = "N"


@dataclass(frozen=True, eq=False)
class Value:
    """What a node gives or takes.

    Attributes
    ----------
    array : np.ndarray, optional
        Its content, where that depends on no input of the model.
    repeated : Value, optional
        What it repeats along the channels, where it does no more than that.
    """

    name: str
    type: onnx.TypeProto
    array: np.ndarray | None = None
    repeated: Value | None = None

    @property
    def shape(self) -> tuple:
        """Sizes of the axes, None where they depend on the batch."""
        sizes = self.type.tensor_type.shape.dim
        return tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)


class Builder:
    """Collects nodes; called as ``build("Conv", x, weight, strides=(2, 2))`` it adds one.

    Inputs of a node are values, or arrays, floats (float32) and sequences of ints (int64), which
    become constants. A node whose inputs are all constant is computed at once and not added.

    Attributes
    ----------
    scope : str
        What the names of new nodes begin with.
    """

    def __init__(self):
        self.scope = ""
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple, Value] = {}
        self._names: dict[str, int] = {}

    def input(self, name: str, shape: Sequence, doc: str) -> Value:
        """Declare a float32 input of the model; text in the shape names a size that is free."""
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape, doc_string=doc)
        self._inputs.append(info)
        return Value(name, info.type)

    def output(self, name: str, value: Value, shape: Sequence, doc: str) -> None:
        """Make a value an output of the model."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name], name=name))
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape, doc_string=doc)
        self._outputs.append(info)

    def constant(self, content, name: str | None = None) -> Value:
        """A constant, the same one for equal contents; the model holds those that nodes take."""
        if isinstance(content, float):
            content = np.float32(content)
        elif not isinstance(content, np.ndarray):
            content = np.array(content, np.int64)
        array = np.asarray(content)
        key = (array.dtype, array.shape, array.tobytes()) if name is None else (name,)
        if key not in self._constants:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor_type = helper.make_tensor_type_proto(kind, array.shape)
            self._constants[key] = Value(name or self._unique("constant"), tensor_type, array)
        return self._constants[key]

    def __call__(self, op: str, *inputs, outputs: int = 1, **attributes):
        """Add a node of ONNX's operator `op`: its Value, or a tuple of them for several outputs."""
        values = [x if isinstance(x, Value) else self.constant(x) for x in inputs]
        name = self._unique(f"{self.scope}/{op}".strip("/"))
        names = [name] if outputs == 1 else [f"{name}:{i}" for i in range(outputs)]
        node = helper.make_node(op, [value.name for value in values], names, name, **attributes)
        if all(value.array is not None for value in values):
            results = tuple(self.constant(array) for array in _evaluate(node, values))
        else:
            self._nodes.append(node)
            types = _infer(node, values)
            results = tuple(Value(name, types[name]) for name in names)
        return results[0] if outputs == 1 else results

    def model(self, name: str, doc: str, **properties) -> onnx.ModelProto:
        """The finished model, as onnx.checker accepts it; `properties` become its metadata."""
        nodes, used = [], {output.name for output in self._outputs}
        for node in reversed(self._nodes):
            if used.intersection(node.output):
                nodes.append(node)
                used.update(node.input)
        stored = [
            numpy_helper.from_array(np.ascontiguousarray(value.array), value.name)
            for value in self._constants.values()
            if value.name in used
        ]
        graph = helper.make_graph(nodes[::-1], name, self._inputs, self._outputs, stored, doc)
        return helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION, **properties)

    def _unique(self, name: str) -> str:
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}.{count}"


def _evaluate(node: onnx.NodeProto, values: list[Value]) -> list[np.ndarray]:
    inputs = [helper.make_value_info(value.name, value.type) for value in values]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)
    results = ReferenceEvaluator(model).run(None, {value.name: value.array for value in values})
    return [np.asarray(result) for result in results]


def _infer(node: onnx.NodeProto, values: list[Value]) -> dict[str, onnx.TypeProto]:
    """The types of a node's outputs."""
    small = (v for v in values if v.array is not None and v.array.dtype == np.int64)
    data = {value.name: numpy_helper.from_array(value.array, value.name) for value in small}
    return infer_node_outputs(
        onnx.defs.get_schema(node.op_type, OPSET),
        node,
        {value.name: value.type for value in values},
        data,
        opset_imports=OPSETS,
        ir_version=IR_VERSION,
    )


def only(operator: str, **values) -> None:
    """Refuse what is not exported: each keyword is (value, *the supported ones)."""
    for name, (value, *supported) in values.items():
        if value not in supported:
            raise UserError(
                f"the ONNX export's operator {operator} cannot have {name} = {value!r}, "
                f"only {' or '.join(map(repr, supported))}"
            )
