"""Deformable 3x3 convolution whose nine taps share one offset, at MXNet's border rule."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from maskflownet.engine.torch.kernels.layout import float32_precision, uses_triton
from torch import Tensor

CHUNK = 1 << 22  # elements of gathered features that are held at once where nothing needs them


def deformable(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor | None = None,
    residual: Tensor | None = None,
    slope: float | None = None,
    out: Tensor | None = None,
    precision: str | None = None,
) -> Tensor:
    """``leaky(conv(x) * mask + residual)`` with a deformable 3x3 convolution of padding 1.

    Tap (ky, kx) of output (y, x) samples `x` at (y - 1 + ky + oy, x - 1 + kx + ox), bilinearly. A
    sample with a coordinate < 0 or >= size is zero; beyond size - 1 the edge value is held, as in
    MXNet. Differentiable in all tensors, once. On a GPU a Triton kernel, elsewhere
    `deformable_reference`.

    Parameters
    ----------
    x : (N, C, H, W)
        Features, best in channels-last memory (slices of wider maps too).
    offset : (N, 2, H, W), float32
        Feature pixels, (y, x).
    weight : (K, C, 3, 3), or (9, C, K) of `pack_weight`
        The packed form saves a copy, and has no gradient.
    bias : (K,)
    mask : (N, 1, H, W), float32, optional
        Factor of the convolution, after its bias.
    residual : (N, K, H, W), optional
        Summand, of the type of `x`.
    slope : float, optional
        Of the LeakyReLU at the end, greater than 0; none by default.
    out : (N, K, H, W), optional
        A channels-last view to write to; only without gradients.
    precision : {"tf32", "ieee"}, optional
        Of float32 products on a GPU; by default ``torch.get_float32_matmul_precision()``.

    Returns
    -------
    (N, K, H, W), type of `x`; on a GPU in channels-last memory.
    """
    if uses_triton(x):
        from maskflownet.engine.torch.kernels.deformable_triton import deform  # noqa: PLC0415 - needs Triton

        precision = precision or float32_precision()
        return deform(x, offset, weight, bias, mask, residual, slope, out, precision)
    result = deformable_reference(x, offset, weight, bias)
    if mask is not None:
        result = result * mask.to(result.dtype)
    if residual is not None:
        result = result + residual
    if slope is not None:
        result = F.leaky_relu(result, slope)
    return result if out is None else out.copy_(result)


def pack_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(K, C, 3, 3) -> (9, C, K), contiguous: the layout in which the kernels read weights."""
    return weight.permute(2, 3, 1, 0).flatten(0, 1).to(dtype).contiguous()


def deformable_reference(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution of `deformable` in plain differentiable torch operators, float32 or float64.

    Where all four corners of all nine taps are pixels of `x`, the convolution and the sampling
    commute, since the taps have one offset: there one plain convolution is sampled once. Only the
    pixels near the border gather nine times.
    """
    height, width = x.shape[2:]
    wide = torch.promote_types(x.dtype, torch.float32)
    if weight.dim() == 3:
        weight = weight.permute(2, 1, 0).unflatten(2, (3, 3))
    values, kernel = x.to(wide), weight.to(wide)
    plain = F.conv2d(values, kernel, padding=1)
    results = [
        _deform_image(features, convolved, where, kernel, (height, width))
        for features, convolved, where in zip(values, plain, offset.to(wide))
    ]
    result = torch.stack(results).permute(0, 3, 1, 2) + bias.to(wide).reshape(-1, 1, 1)
    memory = torch.contiguous_format
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        memory = torch.channels_last
    return result.to(x.dtype).contiguous(memory_format=memory)


def _deform_image(features, convolved, offset, kernel, size) -> Tensor:
    """One image, without bias: (C, H, W), (K, H, W), (2, H, W), (K, C, 3, 3) -> (H, W, K)."""
    height, width = size
    axes = [torch.arange(length, device=offset.device) for length in size]
    pixels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)  # (H W, 2)
    shift = offset.permute(1, 2, 0).flatten(0, 1)  # (H W, 2), px, (y, x)
    with torch.no_grad():
        centre = pixels + shift
        # Half a pixel of margin: the rounding of a coordinate must not decide.
        highest = torch.tensor(size, device=offset.device) - 2.5
        near = ~((centre > 1.5) & (centre < highest)).all(dim=1)
        near = near.nonzero().squeeze(1)
    result = sample_shifted(convolved, pixels[:, None], shift, size).squeeze(1)  # (H W, K)
    if near.numel():
        result = result.index_copy(0, near, gather_taps(features, pixels[near], shift[near], kernel, size))
    return result.unflatten(0, (height, width))


def gather_taps(features, pixels, shift, kernel, size) -> Tensor:
    """The convolution at P pixels by its definition: nine samples each; -> (P, K)."""
    taps = torch.arange(9, device=pixels.device)
    taps = torch.stack([taps // 3, taps % 3], dim=1) - 1  # (9, 2)
    matrix = kernel.permute(2, 3, 1, 0).flatten(0, 2)  # (9 C, K)
    step = max(1, CHUNK // matrix.shape[0])
    parts = [
        sample_shifted(features, some[:, None] + taps, moved, size).flatten(1) @ matrix
        for some, moved in zip(pixels.split(step), shift.split(step))
    ]
    return torch.cat(parts)


def sample_shifted(features: Tensor, pixels: Tensor, shift: Tensor, size) -> Tensor:
    """Bilinear samples of (C, H, W) at (P, T, 2) pixels + (P, 2) -> (P, T, C), MXNet's border."""
    height, width = size
    y, x = (pixels + shift[:, None]).unbind(-1)  # (P, T)
    valid = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = (torch.where(valid, axis, torch.zeros_like(axis)) for axis in (y, x))
    top, left = y.detach().floor(), x.detach().floor()
    fy, fx = y - top, x - left
    top, left = top.to(torch.int32), left.to(torch.int32)
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    index = [top * width + left, top * width + right, bottom * width + left, bottom * width + right]
    share = [(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]
    share = torch.stack(share, dim=-1) * valid[..., None].to(fy.dtype)
    rows = features.permute(1, 2, 0).flatten(0, 1)  # (H W, C)
    samples = F.embedding_bag(
        torch.stack(index, dim=-1).flatten(0, 1), rows, per_sample_weights=share.flatten(0, 1), mode="sum"
    )
    return samples.unflatten(0, y.shape)
