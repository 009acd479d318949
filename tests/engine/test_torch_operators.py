"""Every operator of the torch engine against MXNet, values and gradients, on random shapes."""

import json

import numpy as np
import pytest
import torch
from maskflownet.engine.graphs import GRAPHS
from maskflownet.engine.symbol import Graph, Node, parse_graph
from maskflownet.engine.torch.module import GraphModule
from maskflownet.engine.torch.operators import OPERATORS
from maskflownet.errors import UserError
from maskflownet.network.compat import mx

from tests.golden_values import relative_error

VALUES, GRADIENTS = 1e-5, 1e-4  # bounds, relative to the largest value
CONVOLUTION = {"kernel": (3, 3), "num_filter": 4}
# operator -> cases of attributes and shapes of the inputs
CASES = {
    "Convolution": [
        ({**CONVOLUTION, "pad": (1, 1), "stride": (2, 2)}, [(2, 3, 7, 6), (4, 3, 3, 3), (4,)]),
        ({**CONVOLUTION, "pad": (4, 4), "dilate": (4, 4)}, [(1, 5, 9, 5), (4, 5, 3, 3), (4,)]),
        ({**CONVOLUTION, "no_bias": True, "num_group": 2}, [(1, 4, 5, 4), (4, 2, 3, 3)]),
    ],
    "Deconvolution": [
        (
            {"kernel": (4, 4), "num_filter": 3, "stride": (2, 2), "pad": (1, 1), "no_bias": False},
            [(2, 5, 3, 4), (5, 3, 4, 4), (3,)],
        ),
        (
            {"kernel": (8, 8), "num_filter": 2, "stride": (4, 4), "pad": (4, 4), "num_group": 2},
            [(2, 2, 4, 3), (2, 1, 8, 8)],
        ),
    ],
    "_contrib_DeformableConvolution": [
        ({**CONVOLUTION, "pad": (1, 1)}, [(2, 3, 6, 7), (2, 18, 6, 7), (4, 3, 3, 3), (4,)]),
        (CONVOLUTION, [(1, 5, 6, 3), (1, 18, 4, 1), (4, 5, 3, 3), (4,)]),
    ],
    "Correlation": [
        ({"max_displacement": md, "pad_size": md, "is_multiply": True}, [shape] * 2)
        for md, shape in ((4, (2, 5, 7, 12)), (2, (1, 3, 5, 4)), (4, (2, 6, 2, 3)))
    ],
    "BilinearSampler": [({}, [(2, 3, 5, 7), (2, 2, 4, 6)])],
    "GridGenerator": [
        ({"transform_type": "warp"}, [(2, 2, 5, 7)]),
        ({"transform_type": "affine", "target_shape": (5, 8)}, [(3, 6)]),
    ],
    "LeakyReLU": [({"act_type": "leaky", "slope": 0.1}, [(2, 3, 4)])],
    "Pad": [
        ({"mode": "edge", "pad_width": (0, 0, 0, 0, 0, 1, 0, 1)}, [(2, 3, 4, 5)]),
        ({"mode": "edge", "pad_width": (0, 0, 0, 0, 3, 0, 1, 2)}, [(2, 1, 1, 3)]),
    ],
    "Concat": [({"dim": 1}, [(2, 3, 4), (2, 1, 4), (2, 2, 4)]), ({"dim": 0}, [(2, 3), (4, 3)])],
    "SliceChannel": [({"num_outputs": 2, "axis": 0}, [(4, 3)]), ({"num_outputs": 3}, [(2, 6)])],
    "slice_axis": [({"axis": 1, "begin": 2, "end": 4}, [(2, 5, 3)]), ({"axis": 0, "begin": 1, "end": None}, [(3, 2)])],
    "Reshape": [({"shape": (0, -1, 1, 1)}, [(3, 4)]), ({"shape": (4, 1)}, [(2, 2)])],
    "reverse": [({"axis": 1}, [(2, 3, 4)])],
    "tile": [({"reps": (1, 9, 1, 1)}, [(2, 2, 3, 3)]), ({"reps": (2, 3)}, [(2, 2)])],
    "zeros_like": [({}, [(2, 3)])],
    "_arange": [({"start": 8}, []), ({"start": 1, "stop": 4, "step": 0.5}, [])],
    "dot": [({}, [(3, 4), (4, 2)])],
    "sum": [({"axis": 1, "keepdims": True}, [(2, 3, 4)]), ({"axis": 0, "exclude": True}, [(2, 3, 4)]), ({}, [(2, 3)])],
    "mean": [({"axis": (2, 3), "keepdims": True}, [(2, 3, 4, 5)])],
    "clip": [({"a_min": -1, "a_max": 1}, [(5, 6)])],
    **{name: [({}, [(3, 4)])] for name in ("abs", "sigmoid", "sqrt", "square")},
    **{f"elemwise_{name}": [({}, [(3, 4)] * 2)] for name in ("add", "sub", "mul", "div")},
    **{
        f"broadcast_{name}": [({}, [(2, 3, 4, 5), (2, 1, 4, 5)]), ({}, [(2, 3, 4), (2, 3, 1)])]
        for name in ("add", "mul", "div", "power")
    },
    **{
        f"_{name}_scalar": [({"scalar": scalar}, [(4, 5)])]
        for name, scalar in {
            "plus": 1e-8,
            "minus": 0.5,
            "rminus": 1,
            "mul": 0.3125,
            "div": 3,
            "power": 0.4,
            "maximum": 0.25,
            "equal": 0,
            "greater": 1e-3,
        }.items()
    },
}
SHARED = {**CONVOLUTION, "pad": (1, 1)}  # attributes of the deformable layers
REPLACED = {**OPERATORS, "_contrib_DeformableConvolution": None}  # as for ONNX; its attributes are the same
STEPS = {"_equal_scalar", "_greater_scalar", "zeros_like"}  # without gradient
POSITIVE = {"sqrt", "_power_scalar", "broadcast_power", "broadcast_div", "elemwise_div"}


def symbol(name, attrs, count):
    make = getattr(mx.sym.contrib, name[9:]) if name.startswith("_contrib_") else None
    make = make or getattr(mx.sym, name, None) or getattr(mx.sym._internal, name)
    return make(*(mx.sym.var(f"input{i}") for i in range(count)), **attrs)


def compare(sym, arrays, gradients=True):
    """Assert that MXNet and the torch engine agree on the outputs and on all inputs' gradients."""
    names = [f"input{i}" for i in range(len(arrays))]
    bound = sym.bind(
        mx.cpu(),
        {name: mx.nd.array(a) for name, a in zip(names, arrays)},
        {name: mx.nd.zeros(a.shape) for name, a in zip(names, arrays)},
    )
    expected = [out.asnumpy() for out in bound.forward(is_train=True)]
    graph = parse_graph(sym.tojson())
    tensors = {name: torch.tensor(a, requires_grad=True) for name, a in zip(names, arrays)}
    outputs = GraphModule(graph)(*(tensors[name] for name in graph.inputs))
    assert len(outputs) == len(expected)
    for got, want in zip(outputs, expected):
        assert difference(got.detach(), want) < VALUES
    if not arrays or not gradients:
        return
    rng = np.random.default_rng(1)
    factors = [rng.standard_normal(out.shape).astype("f4") for out in expected]
    bound.backward([mx.nd.array(factor) for factor in factors])
    sum((out * torch.tensor(f)).sum() for out, f in zip(outputs, factors)).backward()
    for name in names:
        assert difference(tensors[name].grad, bound.grad_dict[name].asnumpy()) < GRADIENTS, name


def difference(got, want) -> float:
    """Relative to the largest value, or absolute where all values must be zero."""
    return relative_error(got, want) if np.abs(want).max() else float(got.abs().max())


@pytest.mark.parametrize(
    ("name", "attrs", "shapes"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_operator(name, attrs, shapes, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(0, 1.5, shape).astype("f4") for shape in shapes]
    if name in POSITIVE:
        arrays = [np.abs(array) + np.float32(0.1) for array in arrays]
    if name == "_equal_scalar":
        arrays[0][::2] = 0
    compare(symbol(name, attrs, len(arrays)), arrays, name not in STEPS)


def test_every_operator_is_tested_and_used():
    used = {node["op"] for path in GRAPHS.glob("*.json") for node in json.loads(path.read_text())["nodes"]}
    assert set(CASES) == set(OPERATORS) == used - {"null"}


@pytest.mark.parametrize("step", [0, 1, 0.5])
def test_deformable_convolution_on_the_border(step):
    """Taps exactly on the first and last row, one pixel beyond them and far outside."""
    rng = np.random.default_rng(2)
    offsets = np.float32(step) * rng.integers(-7, 8, (3, 2, 5, 6)).astype("f4")
    arrays = [rng.standard_normal(shape).astype("f4") for shape in ((3, 4, 5, 6), (4, 4, 3, 3), (4,))]
    inputs = [arrays[0], np.tile(offsets, (1, 9, 1, 1)), *arrays[1:]]
    compare(symbol("_contrib_DeformableConvolution", SHARED, 4), inputs)


@pytest.mark.parametrize("amount", [0.0, 0.5, 3.0, 40.0])
def test_warp_on_the_border(amount):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 3, 5, 6)).astype("f4")
    flow = np.float32(amount) * rng.choice([-1, -0.3, 0.7, 1], (2, 2, 5, 6)).astype("f4")
    grid = mx.sym.GridGenerator(mx.sym.var("input1"), transform_type="warp")
    # The rounding of the positions decides which of two gradients a whole pixel has.
    compare(mx.sym.BilinearSampler(mx.sym.var("input0"), grid), [x, flow], gradients=amount == 3)


@pytest.mark.parametrize(
    ("op", "attrs", "message"),
    [
        ("Frobnicate", {}, "lacks the operator Frobnicate of the node here$"),
        ("LeakyReLU", {"tilt": 3}, "LeakyReLU does not know the attribute tilt of the node "),
        ("LeakyReLU", {"act_type": "elu"}, "LeakyReLU cannot have act_type = 'elu', only 'leaky'"),
        ("Pad", {"mode": "reflect", "pad_width": (0,) * 8}, "Pad cannot have mode = 'reflect'"),
        ("_contrib_DeformableConvolution", {**SHARED, "dilate": (2, 2)}, "not know the attribute dilate of the node "),
        ("Reshape", {"shape": (-2,)}, "Reshape"),
        ("slice_axis", {"axis": 0, "begin": -1, "end": None}, "slice_axis"),
    ],
)
def test_what_the_table_does_not_have_is_refused(op, attrs, message):
    graph = Graph((Node("here", op, attrs, (("x", 0),)),), ("x",), {}, (("here", 0),))
    with pytest.raises(UserError, match=message):
        GraphModule(graph, REPLACED)(torch.ones(1, 1, 2, 2))
