"""The operators that sample images and match features, with MXNet's border rules.

Plain PyTorch, whose memory grows by no more than a feature map for each displacement or tap.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from engine.torch_graph.table import Table, only

OPERATORS = Table()
operator = OPERATORS.operator


@operator("Correlation")
def correlation(
    a, b, *, max_displacement, pad_size=0, kernel_size=1, stride1=1, stride2=1, is_multiply=True
):
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
    height, width = a.shape[2:]
    padded = F.pad(b, [max_displacement] * 4)
    shifts = range(2 * max_displacement + 1)
    matches = [
        (a * padded[:, :, y : y + height, x : x + width]).mean(1) for y in shifts for x in shifts
    ]
    return torch.stack(matches, 1)


@operator("_contrib_DeformableConvolution")
def deformable_convolution(
    x,
    offset,
    weight,
    bias=None,
    *,
    kernel,
    num_filter,
    stride=(1, 1),
    pad=(0, 0),
    dilate=(1, 1),
    num_group=1,
    num_deformable_group=1,
    no_bias=False,
):
    """Convolution: tap k samples `x` (N, C, H, W) at its place + offset[:, 2k : 2k + 2], (y, x).

    A sample with a coordinate < 0 or >= size is 0; inside bilinear, the last row and column held.
    """
    only(
        "_contrib_DeformableConvolution",
        num_group=(num_group, 1),
        num_deformable_group=(num_deformable_group, 1),
    )
    rows, columns = offset.shape[2:]
    top = torch.arange(rows, device=x.device, dtype=x.dtype)[:, None] * stride[0] - pad[0]
    left = torch.arange(columns, device=x.device, dtype=x.dtype) * stride[1] - pad[1]
    out = None
    for tap in range(kernel[0] * kernel[1]):
        i, j = divmod(tap, kernel[1])
        y = top + i * dilate[0] + offset[:, 2 * tap]  # (N, rows, columns)
        sample = _sample(x, y, left + j * dilate[1] + offset[:, 2 * tap + 1])
        term = F.conv2d(sample, weight[:, :, i : i + 1, j : j + 1])
        out = term if out is None else out + term
    return out if bias is None else out + bias[:, None, None]


def _sample(image, y, x):
    """(N, C, H, W) at (N, h, w) positions in px -> (N, C, h, w), by the rules above."""
    count, channels, height, width = image.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    # Also where a position is not a number, which has no index.
    y, x = torch.where(inside, y, 0), torch.where(inside, x, 0)
    y0, x0 = y.detach().floor(), x.detach().floor()
    flat = image.flatten(2)  # (N, C, H W)

    def corner(row, column):
        row, column = row.clamp(max=height - 1), column.clamp(max=width - 1)
        index = (row * width + column).long().flatten(1)[:, None]
        return flat.gather(2, index.expand(-1, channels, -1)).view(count, channels, *y.shape[1:])

    down, right = (y - y0)[:, None], (x - x0)[:, None]
    upper = torch.lerp(corner(y0, x0), corner(y0, x0 + 1), right)
    lower = torch.lerp(corner(y0 + 1, x0), corner(y0 + 1, x0 + 1), right)
    return torch.lerp(upper, lower, down) * inside[:, None]


@operator("GridGenerator")
def grid_generator(x, *, transform_type, target_shape=(0, 0)):
    """Sampling positions (N, 2, H, W), (x, y) in [-1, 1] from the first to the last pixel.

    "warp": from a flow (N, 2, H, W) in px, (x, y); "affine": from (N, 6), two rows of 2x3 matrices.
    """
    only("GridGenerator", transform_type=(transform_type, "warp", "affine"))
    height, width = x.shape[2:] if transform_type == "warp" else target_shape
    column = torch.arange(width, device=x.device, dtype=x.dtype)
    row = torch.arange(height, device=x.device, dtype=x.dtype)[:, None]
    if transform_type == "warp":
        across = (x[:, 0] + column) / ((width - 1) / 2) - 1
        down = (x[:, 1] + row) / ((height - 1) / 2) - 1
        return torch.stack([across, down], 1)
    # Multiplied out, as matrix products may have a reduced precision on GPUs.
    column, row = column * (2 / (width - 1)) - 1, row * (2 / (height - 1)) - 1
    matrix = x.view(-1, 2, 3, 1, 1)
    return matrix[:, :, 0] * column + matrix[:, :, 1] * row + matrix[:, :, 2]


@operator("BilinearSampler")
def bilinear_sampler(x, grid, *, cudnn_off=None):
    """(N, C, H, W) at a grid (N, 2, h, w) -> (N, C, h, w), zero outside."""
    return F.grid_sample(
        x, grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode="zeros", align_corners=True
    )
