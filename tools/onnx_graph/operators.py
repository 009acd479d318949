"""MXNet's operators by their names, each as nodes of ONNX.

An operator is a function of the `Builder`, its inputs by position and its attributes by keyword.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from maskflownet.engine.torch.operators import Table
from maskflownet.tools.onnx_graph import sampling
from maskflownet.tools.onnx_graph.builder import only

OPERATORS = Table(sampling.OPERATORS)
operator = OPERATORS.operator

LAST = np.iinfo(np.int64).max  # "to the end" of a slice


@operator("Convolution")
def convolution(  # noqa: PLR0917
    build,
    x,
    weight,
    *bias,
    kernel,
    num_filter,
    stride=(1, 1),
    pad=(0, 0),
    dilate=(1, 1),
    num_group=1,
    no_bias=False,
    layout="NCHW",
):
    only("Convolution", layout=(layout, "NCHW", None))
    settings = {"strides": stride, "dilations": dilate, "group": num_group}
    return build("Conv", x, weight, *bias, kernel_shape=kernel, pads=[*pad, *pad], **settings)


@operator("Deconvolution")
def deconvolution(
    build,
    x,
    weight,
    *bias,
    kernel,
    num_filter,
    stride=(1, 1),
    pad=(0, 0),
    adj=(0, 0),
    dilate=(1, 1),
    num_group=1,
    no_bias=True,
    layout="NCHW",
):
    only("Deconvolution", layout=(layout, "NCHW", None))
    settings = {"strides": stride, "dilations": dilate, "group": num_group, "output_padding": adj}
    return build("ConvTranspose", x, weight, *bias, kernel_shape=kernel, pads=[*pad, *pad], **settings)


@operator("LeakyReLU")
def leaky_relu(build, x, *, act_type="leaky", slope=0.25):
    only("LeakyReLU", act_type=(act_type, "leaky"))
    return build("LeakyRelu", x, alpha=slope)


@operator("Pad")
def pad(build, x, *, mode, pad_width):
    """`pad_width` is (before, after) by axis; ONNX wants all befores first."""
    only("Pad", mode=(mode, "edge"))
    return build("Pad", x, [*pad_width[::2], *pad_width[1::2]], mode="edge")


@operator("Concat")
def concat(build, *inputs, num_args, dim=1):
    return build("Concat", *inputs, axis=dim)


@operator("SliceChannel")
def slice_channel(build, x, *, num_outputs, axis=1, squeeze_axis=False):
    only("SliceChannel", squeeze_axis=(squeeze_axis, False))
    return build("Split", x, outputs=num_outputs, axis=axis)


@operator("slice_axis")
def slice_axis(build, x, *, axis, begin, end):
    return build("Slice", x, [begin], [LAST if end is None else end], [axis])


@operator("Reshape")
def reshape(build, x, *, shape, reverse=False):
    """0 in the shape keeps an axis, -1 is inferred, in both."""
    only("Reshape", reverse=(reverse, False), codes=(min(shape, default=0) >= -1, True))
    return build("Reshape", x, shape)


@operator("reverse")
def reverse(build, x, *, axis):
    (axis,) = axis if isinstance(axis, tuple) else (axis,)
    return build("Gather", x, range(x.shape[axis] - 1, -1, -1), axis=axis)


@operator("tile")
def tile(build, x, *, reps):
    only("tile", axes=(len(x.shape), len(reps)))
    tiled = build("Tile", x, reps)
    return replace(tiled, repeated=x) if reps[:1] + reps[2:] == (1,) * (len(reps) - 1) else tiled


@operator("zeros_like")
def zeros_like(build, x):
    return build("ConstantOfShape", build("Shape", x))


@operator("_arange")
def arange(build, *, start, stop=None, step=1.0, repeat=1, infer_range=False, dtype="float32", ctx=None):
    only("_arange", repeat=(repeat, 1), infer_range=(infer_range, False), dtype=(dtype, "float32"))
    start, stop = (0, start) if stop is None else (start, stop)
    return build.constant(np.arange(start, stop, step, dtype=np.float32))


def _same(op: str):
    return lambda build, *inputs: build(op, *inputs)


def _with_scalar(op: str):
    return lambda build, x, scalar: build(op, x, float(scalar))


for name, op in {"abs": "Abs", "sigmoid": "Sigmoid", "elemwise_add": "Add", "broadcast_mul": "Mul"}.items():
    OPERATORS.add(name, _same(op), attributes=())

for name, op in {"_minus_scalar": "Sub", "_mul_scalar": "Mul", "_div_scalar": "Div"}.items():
    OPERATORS.add(name, _with_scalar(op), attributes=("scalar", "is_int"))


@operator("_rminus_scalar")
def rminus_scalar(build, x, *, scalar, is_int=None):
    return build("Sub", float(scalar), x)


@operator("dot")
def dot(build, a, b, *, transpose_a=False, transpose_b=False):
    only("dot", axes=((len(a.shape), len(b.shape)), (2, 2)))
    only("dot", transposed=(transpose_a or transpose_b, False))
    return build("MatMul", a, b)
