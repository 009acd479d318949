"""One table: the name of an MXNet operator -> the same function of PyTorch tensors.

Only what the graphs of `network/` use; anything else is an error that names it. Each function takes
tensors by position and MXNet's attributes by keyword, with MXNet's defaults. The operators that
sample or match features are in `engine.torch_graph.sampling`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from engine.torch_graph import sampling
from engine.torch_graph.table import Table, only

OPERATORS = Table(sampling.OPERATORS)
operator = OPERATORS.operator


@operator("Convolution")
def convolution(  # noqa: PLR0917
    x,
    weight,
    bias=None,
    *,
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
    return F.conv2d(x, weight, bias, stride, pad, dilate, num_group)


@operator("Deconvolution")
def deconvolution(
    x,
    weight,
    bias=None,
    *,
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
    return F.conv_transpose2d(x, weight, bias, stride, pad, adj, num_group, dilate)


@operator("LeakyReLU")
def leaky_relu(x, *, act_type="leaky", slope=0.25):
    only("LeakyReLU", act_type=(act_type, "leaky"))
    return F.leaky_relu(x, slope)


@operator("Pad")
def pad(x, *, mode, pad_width):
    """Edge values repeated: pad_width (0, 0, 0, 0, top, bottom, left, right)."""
    only("Pad", mode=(mode, "edge"), axes=(tuple(pad_width[:4]), (0, 0, 0, 0)))
    # Concatenated, because the gradient of PyTorch's own padding differs from run to run on GPUs.
    for axis, before, after in ((2, *pad_width[4:6]), (3, *pad_width[6:8])):
        sizes = [[-1] * 4 for _ in range(2)]
        sizes[0][axis], sizes[1][axis] = before, after
        first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        parts = [(first.expand(sizes[0]), before), (x, 1), (last.expand(sizes[1]), after)]
        x = torch.cat([part for part, size in parts if size], axis)
    return x


@operator("Concat")
def concat(*inputs, num_args, dim=1):
    return torch.cat(inputs, dim)


@operator("SliceChannel")
def slice_channel(x, *, num_outputs, axis=1, squeeze_axis=False):
    only("SliceChannel", squeeze_axis=(squeeze_axis, False))
    return torch.split(x, x.shape[axis] // num_outputs, axis)


@operator("slice_axis")
def slice_axis(x, *, axis, begin, end):
    end = x.shape[axis] if end is None else end
    only("slice_axis", order=(0 <= begin < end <= x.shape[axis], True))
    return x.narrow(axis, begin, end - begin)


@operator("Reshape")
def reshape(x, *, shape, reverse=False):
    """0 in the shape keeps an axis, -1 is inferred."""
    only("Reshape", reverse=(reverse, False), codes=(min(shape, default=0) >= -1, True))
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape)])


@operator("reverse")
def reverse(x, *, axis):
    return x.flip(axis)


@operator("tile")
def tile(x, *, reps):
    return torch.tile(x, reps)


@operator("zeros_like")
def zeros_like(x):
    return torch.zeros_like(x)


@operator("_arange")
def arange(*, start, stop=None, step=1.0, repeat=1, infer_range=False, dtype="float32", ctx=None):
    only("_arange", repeat=(repeat, 1), infer_range=(infer_range, False), dtype=(dtype, "float32"))
    start, stop = (0, start) if stop is None else (start, stop)
    return torch.arange(start, stop, step, dtype=torch.float32)


@operator("dot")
def dot(a, b, *, transpose_a=False, transpose_b=False):
    only("dot", axes=((a.dim(), b.dim()), (2, 2)), transposed=(transpose_a or transpose_b, False))
    return a @ b


def _reduce(function, x, axis, keepdims: bool, exclude: bool):
    axes = [axis] if isinstance(axis, int) else range(x.dim()) if axis is None else axis
    axes = {a % x.dim() for a in axes}
    out = function(x, sorted(set(range(x.dim())) - axes if exclude else axes), keepdim=keepdims)
    return out if out.dim() else out.reshape(1)  # MXNet's arrays have at least one axis


@operator("sum")
def sum_(x, *, axis=None, keepdims=False, exclude=False):
    return _reduce(torch.sum, x, axis, keepdims, exclude)


@operator("mean")
def mean(x, *, axis=None, keepdims=False, exclude=False):
    return _reduce(torch.mean, x, axis, keepdims, exclude)


@operator("clip")
def clip(x, *, a_min, a_max):
    return x.clamp(a_min, a_max)


for name, function in {
    "abs": torch.abs,
    "sigmoid": torch.sigmoid,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "elemwise_add": torch.add,
    "elemwise_sub": torch.sub,
    "elemwise_mul": torch.mul,
    "elemwise_div": torch.div,
    "broadcast_add": torch.add,
    "broadcast_mul": torch.mul,
    "broadcast_div": torch.div,
    "broadcast_power": torch.pow,
}.items():
    OPERATORS.add(name, function, attributes=())

for name, function in {
    "_plus_scalar": lambda x, scalar: x + scalar,
    "_minus_scalar": lambda x, scalar: x - scalar,
    "_rminus_scalar": lambda x, scalar: scalar - x,
    "_mul_scalar": lambda x, scalar: x * scalar,
    "_div_scalar": lambda x, scalar: x / scalar,
    "_power_scalar": lambda x, scalar: x**scalar,
    "_maximum_scalar": lambda x, scalar: x.clamp(min=scalar),
    "_equal_scalar": lambda x, scalar: (x == scalar).to(x.dtype),
    "_greater_scalar": lambda x, scalar: (x > scalar).to(x.dtype),
}.items():
    OPERATORS.add(name, function, attributes=("scalar", "is_int"))
