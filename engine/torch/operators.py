"""One table: the name of an MXNet operator -> the same function of PyTorch tensors.

Only what the graphs of `network/` use; anything else is an error that names it. Each function takes
tensors by position and MXNet's attributes by keyword, with MXNet's defaults. Plain PyTorch in few operations, so that
compilers take it. Its memory grows by a few feature maps for each tap of a convolution.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from maskflownet.errors import UserError

TILE = 16  # pixels of a row that the cost volume matches in one matrix product, at least
Operator = Callable[[list, Mapping[str, Any]], Any]  # tensors, attributes -> tensor or tuple


# The functions have the attribute `attributes`, the names of those they know: a node with another cannot be executed.
OPERATORS: dict[str, Operator] = {}


def _enter(name: str, function: Callable, attributes) -> None:
    def call(inputs, attrs):
        return function(*inputs, **attrs)

    call.attributes = frozenset(attributes)
    OPERATORS[name] = call


def operator(name: str) -> Callable:
    """Decorator: enter a function with tensors by position and attributes by keyword only."""

    def enter(function):
        parameters = inspect.signature(function).parameters.values()
        _enter(name, function, [p.name for p in parameters if p.kind is p.KEYWORD_ONLY])
        return function

    return enter


def only(operator: str, **values) -> None:
    """Refuse what an operator cannot do here: each keyword is (value, *the supported ones)."""
    for name, (value, *supported) in values.items():
        if value not in supported:
            raise UserError(
                f"the torch engine's operator {operator} cannot have {name} = {value!r}, "
                f"only {' or '.join(map(repr, supported))}"
            )


def wide(x: torch.Tensor) -> torch.Tensor:
    """As float32, or float64 where it is that: positions in px are too large for 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@operator("Correlation")
def correlation(a, b, *, max_displacement, pad_size=0, kernel_size=1, stride1=1, stride2=1, is_multiply=True):
    """Cost volume, (N, C, H, W) twice -> (N, (2 md + 1)^2, H, W), zero outside `b`.

    ``out[(dy + md)(2 md + 1) + dx + md, y, x] = mean_c a[c, y, x] b[c, y + dy, x + dx]``.
    """
    only(
        "Correlation",
        kernel_size=(kernel_size, 1),
        stride1=(stride1, 1),
        stride2=(stride2, 1),
        is_multiply=(is_multiply, True),
        pad_size=(pad_size, max_displacement),
    )
    channels, height, width = map(int, a.shape[1:])
    md, side = max_displacement, 2 * max_displacement + 1
    tile = max(TILE, 2 * md)
    more = -width % tile
    tiles, reach = (width + more) // tile, tile + 2 * md
    a, b = (x / math.sqrt(channels) for x in (a, b))  # both, as 16 bits hold neither large sums nor small quotients
    own = F.pad(a, [0, more]).reshape(-1, channels, height, tiles, tile)
    own = own.permute(2, 0, 3, 4, 1).reshape(-1, tile, channels)  # (H N tiles, tile, C)
    others = F.pad(b, [md, more + tile - md, md, md]).reshape(-1, channels, height + 2 * md, tiles + 1, tile)
    others = torch.cat([others[:, :, :, :-1], others[:, :, :, 1:, : 2 * md]], 4)
    others = others.permute(2, 0, 3, 1, 4).reshape(height + 2 * md, -1, channels, reach)  # (H + 2 md, N tiles, C, ...)
    products = torch.cat([own @ others[y : y + height].reshape(-1, channels, reach) for y in range(side)], 2)
    # Pixel i needs the products i to i + 2 md of each row: one number more for each pixel moves those of pixel i by i.
    products = F.pad(products.flatten(1), [0, tile]).reshape(-1, tile, side * reach + 1)[:, :, :-1]
    matches = products.reshape(height, -1, tiles, tile, side, reach)[..., :side]
    matches = matches.permute(1, 4, 5, 0, 2, 3)
    return matches.reshape(-1, side**2, height, width + more)[..., :width]


@operator("_contrib_DeformableConvolution")
def deformable_convolution(x, offset, weight, bias, *, kernel, num_filter, pad=(0, 0)):
    """Convolution: tap k samples `x` (N, C, H, W) at its place + offset[:, 2k : 2k + 2], (y, x).

    A sample with a coordinate < 0 or >= size is 0; inside bilinear, the last row and column held.
    """
    offset = wide(offset).unflatten(1, (*kernel, 2))  # (N, i, j, 2, rows, columns)

    def places(axis: int) -> torch.Tensor:
        """Where the taps of a row or column are without offset: (kernel[axis], size)."""
        taps, pixels = (
            torch.arange(n, device=x.device, dtype=offset.dtype) for n in (kernel[axis], offset.shape[4 + axis])
        )
        return taps[:, None] + pixels - pad[axis]

    y = places(0)[:, None, :, None] + offset[:, :, :, 0]
    samples = _sample(x, y.flatten(1, 2), (places(1)[:, None] + offset[:, :, :, 1]).flatten(1, 2))
    return F.conv2d(samples.flatten(1, 2), weight.flatten(1)[:, :, None, None], bias)


def _sample(image, y, x):
    """(N, C, H, W) at (N, taps, h, w) positions in px -> (N, C, taps, h, w), by the rules above."""
    channels, height, width = image.shape[1:]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    # Also where a position is not a number, which has no index.
    y, x = torch.where(inside, y, 0), torch.where(inside, x, 0)
    y0, x0 = y.detach().floor(), x.detach().floor()
    row, column = (torch.stack([p, (p + 1).clamp(max=n - 1)], 1) for p, n in ((y0, height), (x0, width)))
    down, right = (torch.stack([1 - part, part], 1) for part in (y - y0, x - x0))
    down = down * inside[:, None]
    # Of the four corners: the index, (N, 4, taps h w), and the weight, (N, 4, 1, taps, h, w).
    index = (row[:, :, None] * width + column[:, None]).long().flatten(3).flatten(1, 2)
    weight = (down[:, :, None] * right[:, None]).to(image.dtype).flatten(1, 2)[:, :, None]
    flat, sampled = image.flatten(2), image.new_zeros(())
    for corner in range(4):
        values = flat.gather(2, index[:, corner, None].expand(-1, channels, -1)).unflatten(2, y.shape[1:])
        sampled = torch.addcmul(sampled, values, weight[:, corner])
    return sampled


@operator("GridGenerator")
def grid_generator(x, *, transform_type, target_shape=(0, 0)):
    """Sampling positions (N, 2, H, W), (x, y) in [-1, 1] from the first to the last pixel.

    "warp": from a flow (N, 2, H, W) in px, (x, y); "affine": from (N, 6), two rows of 2x3 matrices.
    """
    only("GridGenerator", transform_type=(transform_type, "warp", "affine"))
    x = wide(x)
    height, width = x.shape[2:] if transform_type == "warp" else target_shape
    column = torch.arange(width, device=x.device, dtype=x.dtype)
    row = torch.arange(height, device=x.device, dtype=x.dtype)[:, None]
    if transform_type == "warp":
        across = (x[:, 0] + column) / (max(width - 1, 1) / 2) - 1
        down = (x[:, 1] + row) / (max(height - 1, 1) / 2) - 1
        return torch.stack([across, down], 1)
    # Multiplied out, as matrix products may have a reduced precision on GPUs.
    column, row = column * (2 / (width - 1)) - 1, row * (2 / (height - 1)) - 1
    matrix = x.view(-1, 2, 3, 1, 1)
    return matrix[:, :, 0] * column + matrix[:, :, 1] * row + matrix[:, :, 2]


@operator("BilinearSampler")
def bilinear_sampler(x, grid):
    """(N, C, H, W) at a grid (N, 2, h, w) -> (N, C, h, w), zero outside."""
    sampled = F.grid_sample(x.to(grid.dtype), grid.permute(0, 2, 3, 1), padding_mode="zeros", align_corners=True)
    return sampled.to(x.dtype)


@operator("Convolution")
def convolution(
    x, weight, bias=None, *, kernel, num_filter, stride=(1, 1), pad=(0, 0), dilate=(1, 1), num_group=1,
    no_bias=False, layout="NCHW",
):  # fmt: skip
    only("Convolution", layout=(layout, "NCHW", None))
    return F.conv2d(x, weight, bias, stride, pad, dilate, num_group)


@operator("Deconvolution")
def deconvolution(
    x, weight, bias=None, *, kernel, num_filter, stride=(1, 1), pad=(0, 0), adj=(0, 0), dilate=(1, 1),
    num_group=1, no_bias=True, layout="NCHW",
):  # fmt: skip
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


@operator("SliceChannel")
def slice_channel(x, *, num_outputs, axis=1):
    size = x.shape[axis] // num_outputs
    return tuple(x.narrow(axis, i * size, size) for i in range(num_outputs))  # of batches that are no constant, too


@operator("slice_axis")
def slice_axis(x, *, axis, begin, end):
    end = x.shape[axis] if end is None else end
    only("slice_axis", order=(0 <= begin < end <= x.shape[axis], True))
    return x.narrow(axis, begin, end - begin)


@operator("Reshape")
def reshape(x, *, shape):
    """0 in the shape keeps an axis, -1 is inferred."""
    only("Reshape", codes=(min(shape, default=0) >= -1, True))
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape)])


@operator("_arange")
def arange(*, start, stop=None, step=1.0, repeat=1, infer_range=False, dtype="float32"):
    only("_arange", repeat=(repeat, 1), infer_range=(infer_range, False), dtype=(dtype, "float32"))
    start, stop = (0, start) if stop is None else (start, stop)
    return torch.arange(start, stop, step, dtype=torch.float32)


def _reduce(function, x, axis=None, keepdims=False, exclude=False):
    axes = [axis] if isinstance(axis, int) else range(x.dim()) if axis is None else axis
    axes = {a % x.dim() for a in axes}
    out = function(x, sorted(set(range(x.dim())) - axes if exclude else axes), keepdim=keepdims)
    return out if out.dim() else out.reshape(1)  # MXNet's arrays have at least one axis


for name, function, *attributes in (
    ("Concat", lambda *inputs, num_args, dim=1: torch.cat(inputs, dim), "num_args", "dim"),
    ("reverse", lambda x, axis: x.flip(axis), "axis"),
    ("tile", lambda x, reps: x.tile(reps), "reps"),
    ("zeros_like", torch.zeros_like),
    ("sum", partial(_reduce, torch.sum), "axis", "keepdims", "exclude"),
    ("mean", partial(_reduce, torch.mean), "axis", "keepdims", "exclude"),
    ("clip", lambda x, a_min, a_max: x.clamp(a_min, a_max), "a_min", "a_max"),
):
    _enter(name, function, attributes)

for name, function in {
    "abs": torch.abs,
    "sigmoid": torch.sigmoid,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "dot": torch.mm,  # which refuses what is no matrix
    "elemwise_add": torch.add,
    "elemwise_sub": torch.sub,
    "elemwise_mul": torch.mul,
    "elemwise_div": torch.div,
    "broadcast_add": torch.add,
    "broadcast_mul": torch.mul,
    "broadcast_div": torch.div,
    "broadcast_power": torch.pow,
}.items():
    _enter(name, function, ())

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
    _enter(name, function, ("scalar",))
