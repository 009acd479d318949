"""Operators of the ONNX export, run by onnxruntime: against PyTorch, and by hand."""

import numpy as np
import pytest

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from maskflownet.engine.symbol import Graph, Node  # noqa: E402
from maskflownet.errors import UserError  # noqa: E402
from maskflownet.tools.onnx_graph.builder import OPSET, Builder  # noqa: E402
from maskflownet.tools.onnx_graph.model import add_graph  # noqa: E402
from maskflownet.tools.onnx_graph.operators import OPERATORS  # noqa: E402

DEFORMABLE = {"kernel": (3, 3), "num_filter": 4, "pad": (1, 1)}


def one_node(op, attrs, inputs, outputs=1) -> Graph:
    """A graph of one operator; an offset goes through the `tile` that the networks have."""
    names = [f"x{i}" for i in range(len(inputs))]
    nodes, taken = [], [(name, 0) for name in names]
    if op == "_contrib_DeformableConvolution":
        nodes.append(Node("tiled", "tile", {"reps": (1, 9, 1, 1)}, (taken[1],)))
        taken[1] = ("tiled", 0)
    nodes.append(Node("node", op, attrs, tuple(taken)))
    return Graph(tuple(nodes), tuple(names), {}, tuple(("node", i) for i in range(outputs)))


def run_onnx(graph, *inputs, weights=0):
    """The outputs of a graph as a model with a free batch and its last inputs as constants."""
    build, feeds = Builder(), {}
    values = []
    for i, (name, x) in enumerate(zip(graph.inputs, inputs)):
        if i < len(inputs) - weights:
            feeds[name] = x
            values.append(build.input(name, ("N", *x.shape[1:]), ""))
        else:
            values.append(build.constant(x, name))
    for i, value in enumerate(add_graph(build, graph, values)):
        build.output(f"y{i}", value, [None] * len(value.shape), "")
    model = build.model("test", "").SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def run_torch(graph, *inputs):
    torch = pytest.importorskip("torch")
    from maskflownet.engine.torch.module import GraphModule  # noqa: PLC0415

    with torch.no_grad():
        return [y.numpy() for y in GraphModule(graph)(*map(torch.from_numpy, inputs))]


def agree(graph, *inputs, weights=0, bound=1e-5):
    results = run_onnx(graph, *inputs, weights=weights), run_torch(graph, *inputs)
    for exported, expected in zip(*results):
        assert exported.shape == expected.shape
        np.testing.assert_allclose(exported, expected, rtol=0, atol=bound)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("op", "attrs", "shapes", "outputs"),
    [
        ("Convolution", {"kernel": (3, 3), "num_filter": 5, "stride": (2, 2), "pad": (2, 2),
                         "dilate": (2, 2)}, [(2, 4, 9, 8), (5, 4, 3, 3), (5,)], 1),
        ("Deconvolution", {"kernel": (4, 4), "num_filter": 6, "stride": (2, 2), "pad": (1, 1),
                           "no_bias": False}, [(2, 4, 5, 3), (4, 6, 4, 4), (6,)], 1),
        ("Deconvolution", {"kernel": (4, 4), "num_filter": 2, "stride": (2, 2), "pad": (2, 2),
                           "num_group": 2}, [(2, 2, 5, 3), (2, 1, 4, 4)], 1),
        ("LeakyReLU", {"act_type": "leaky", "slope": 0.1}, [(2, 3, 4, 5)], 1),
        ("Pad", {"mode": "edge", "pad_width": (0, 0, 0, 0, 1, 2, 3, 0)}, [(2, 3, 4, 5)], 1),
        ("Concat", {"dim": 1, "num_args": 2}, [(2, 3, 4, 5), (2, 1, 4, 5)], 1),
        ("SliceChannel", {"axis": 0, "num_outputs": 2}, [(4, 3, 2, 2)], 2),
        ("slice_axis", {"axis": 1, "begin": 1, "end": None}, [(2, 4, 3, 3)], 1),
        ("Reshape", {"shape": (0, -1, 1, 6)}, [(2, 3, 4, 6)], 1),
        ("reverse", {"axis": 1}, [(2, 3, 4, 5)], 1),
        ("tile", {"reps": (1, 9, 1, 1)}, [(2, 2, 4, 5)], 1),
        ("zeros_like", {}, [(2, 3, 4, 5)], 1),
        ("sigmoid", {}, [(2, 3, 4, 5)], 1),
        ("broadcast_mul", {}, [(2, 3, 4, 5), (2, 1, 4, 5)], 1),
        ("_rminus_scalar", {"scalar": 1}, [(2, 3)], 1),
        ("_div_scalar", {"scalar": 3.0}, [(2, 3)], 1),
        ("Correlation", {"max_displacement": 4, "pad_size": 4}, [(2, 3, 3, 40)] * 2, 1),
        ("Correlation", {"max_displacement": 2, "pad_size": 2}, [(2, 5, 7, 37)] * 2, 1),
        ("Correlation", {"max_displacement": 2, "pad_size": 2}, [(1, 5, 1, 2)] * 2, 1),
    ],
)  # fmt: skip
def test_an_operator_is_that_of_the_torch_engine(op, attrs, shapes, outputs):
    inputs = [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    weights = len(inputs) - 1 if op.endswith("onvolution") else 0
    agree(one_node(op, attrs, inputs, outputs), *inputs, weights=weights)


@pytest.mark.parametrize("size", [(1, 2), (2, 4), (3, 5), (9, 12)])
@pytest.mark.parametrize("reach", [1, 4, 50])
def test_a_deformable_convolution_keeps_the_border_rule(size, reach):
    """Offsets in and out of the picture, a quarter of them whole pixels, where the rule jumps."""
    x, weight, bias = random(3, 5, *size), random(4, 5, 3, 3, seed=1), random(4, seed=2)
    offset = random(3, 2, *size, seed=3) * reach
    whole = random(3, 1, *size, seed=4) > 0.7
    offset = np.where(whole, np.rint(offset), offset)
    inputs = x, offset, weight, bias
    graph = one_node("_contrib_DeformableConvolution", DEFORMABLE, inputs)
    agree(graph, *inputs, weights=2, bound=1e-4)


def test_the_border_rule_by_hand():
    """One tap on a row of the pixels 1, 2, 4: nothing before 0, between pixels their mixture."""
    x = np.array([1, 2, 4], np.float32).reshape(1, 1, 1, 3)
    weight = np.zeros((1, 1, 3, 3), np.float32)
    weight[0, 0, 1, 1] = 1
    graph = one_node("_contrib_DeformableConvolution", DEFORMABLE, [x, None, weight])
    shifts = [-0.25, 0, 0.5, 1.75, 2, 2.5, 2.96875, 3, 1e9, np.inf, -np.inf, np.nan]
    wanted = [0, 1, 1.5, 3.5, 4, 4, 4, 0, 0, 0, 0, 0]
    for shift, value in zip(shifts, wanted):
        offset = np.zeros((1, 2, 1, 3), np.float32)
        offset[0, 1] = shift
        (result,) = run_onnx(graph, x, offset, weight, weights=1)
        assert result[0, 0, 0, 0] == pytest.approx(value, abs=1e-5), shift


def test_the_warp_fades_over_the_border():
    x, flow = random(2, 3, 6, 8), random(2, 2, 6, 8, seed=1) * 5
    nodes = (
        Node("grid", "GridGenerator", {"transform_type": "warp"}, (("flow", 0),)),
        Node("warp", "BilinearSampler", {}, (("x", 0), ("grid", 0))),
    )
    agree(Graph(nodes, ("x", "flow"), {}, (("warp", 0),)), x, flow, bound=2e-5)


def test_constants_are_computed_when_the_model_is_made():
    nodes = (
        Node("numbers", "_arange", {"start": 4}, ()),
        Node("less", "_minus_scalar", {"scalar": 2}, (("numbers", 0),)),
        Node("size", "abs", {}, (("less", 0),)),
        Node("row", "Reshape", {"shape": (1, 4)}, (("size", 0),)),
        Node("product", "broadcast_mul", {}, (("x", 0), ("row", 0))),
    )
    graph, x = Graph(nodes, ("x",), {}, (("product", 0),)), random(2, 4)
    np.testing.assert_array_equal(run_onnx(graph, x)[0], x * [2, 1, 0, 1])
    build = Builder()
    (y,) = add_graph(build, graph, [build.input("x", (2, 4), "")])
    build.output("y", y, (2, 4), "")
    model = build.model("test", "")
    assert [node.op_type for node in model.graph.node] == ["Mul", "Identity"]
    assert [tuple(tensor.dims) for tensor in model.graph.initializer] == [(1, 4)]
    assert model.opset_import[0].version == OPSET


@pytest.mark.parametrize(
    ("op", "attrs", "message"),
    [
        ("Softmax", {}, "lacks the operator Softmax of the node node"),
        ("LeakyReLU", {"act_type": "leaky", "colour": 1}, "does not know the attribute colour"),
        ("LeakyReLU", {"act_type": "elu"}, "LeakyReLU cannot have act_type = 'elu', only 'leaky'"),
    ],
)
def test_what_is_not_exported_is_refused(op, attrs, message):
    with pytest.raises(UserError, match=message):
        run_onnx(one_node(op, attrs, [0]), random(1, 2))


def test_offsets_that_differ_between_taps_are_refused():
    build = Builder()
    values = [build.input("x", (1, 4, 3, 3), ""), build.input("offset", (1, 18, 3, 3), "")]
    weight = build.constant(random(4, 4, 3, 3), "weight")
    with pytest.raises(UserError, match="offset_of_each_tap"):
        OPERATORS["_contrib_DeformableConvolution"]([build, *values, weight], DEFORMABLE)
