"""Linear upsampling of flows on GPUs, and their end-point errors, by Triton: forward and backward.

The upsampling is by a whole factor, aligned to the first sample, edge held.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from maskflownet.engine.torch.kernels.layout import ceil_div, power_of_2
from maskflownet.network.architecture import EPE_EPSILON
from torch import Tensor

BLOCK = 256  # pixels of a program of the upsampling
ERRORS = 1024  # pixels whose errors a program adds
SUMMANDS = 2048  # of a program of the gradient


@triton.jit
def _interpolate(x, row, column, known, height, width, y_stride, x_stride, FACTOR: tl.constexpr):
    """Numbers of the upsampled map whose first one lies at `x`."""
    top, left = row // FACTOR, column // FACTOR
    down = tl.minimum(top + 1, height - 1)
    right = tl.minimum(left + 1, width - 1)
    fy = (row - top * FACTOR).to(tl.float32) / FACTOR
    fx = (column - left * FACTOR).to(tl.float32) / FACTOR
    a = tl.load(x + top * y_stride + left * x_stride, mask=known, other=0.0)
    b = tl.load(x + top * y_stride + right * x_stride, mask=known, other=0.0)
    c = tl.load(x + down * y_stride + left * x_stride, mask=known, other=0.0)
    d = tl.load(x + down * y_stride + right * x_stride, mask=known, other=0.0)
    upper = a * (1 - fx) + b * fx
    lower = c * (1 - fx) + d * fx
    return upper * (1 - fy) + lower * fy


# Nothing here is faster for what is known of a size, but each size would want kernels of its own.
@triton.jit(do_not_specialize=["count", "channels", "height", "width", "n_stride", "c_stride", "y_stride", "x_stride"])
def _upsample(
    x, y, count, channels, height, width, n_stride, c_stride, y_stride, x_stride,
    FACTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = at < count
    column = at % (width * FACTOR)
    row = (at // (width * FACTOR)) % (height * FACTOR)
    channel = (at // (width * FACTOR * height * FACTOR)) % channels
    image = at // (width * FACTOR * height * FACTOR * channels)
    base = x + image * n_stride + channel * c_stride
    tl.store(y + at, _interpolate(base, row, column, known, height, width, y_stride, x_stride, FACTOR), mask=known)


@triton.jit
def _collect(g, x, count, length, inner, FACTOR: tl.constexpr, SPAN: tl.constexpr, BLOCK: tl.constexpr):
    """Gradient of the upsampling along one axis: (outer, FACTOR length, inner) -> (outer, length, inner)."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = at < count
    rest = at % inner
    i = (at // inner) % length
    outer = at // (inner * length)
    d = 1 - FACTOR + tl.arange(0, SPAN)[None, :]
    o = (i * FACTOR)[:, None] + d
    place = (outer * length * FACTOR)[:, None] + o
    value = tl.load(g + place * inner + rest[:, None], mask=known[:, None] & (o >= 0) & (d < FACTOR), other=0.0)
    held = (i == length - 1)[:, None] & (d >= 0)
    total = tl.sum(value * tl.where(held, 1.0, 1 - tl.abs(d).to(tl.float32) / FACTOR), axis=1)
    tl.store(x + at, total, mask=known)


def _collected(gradient: Tensor, factor: int) -> Tensor:
    """Gradient of a map (N, C, H, W), float32, from that of the upsampled one."""
    n, c, h, w = gradient.shape
    gradient = gradient.float().contiguous()
    rows = torch.empty((n, c, h, w // factor), dtype=torch.float32, device=gradient.device)
    x = torch.empty((n, c, h // factor, w // factor), dtype=torch.float32, device=gradient.device)
    span = power_of_2(2 * factor)
    block = ceil_div(SUMMANDS, span)
    for source, target, length, inner in ((gradient, rows, w // factor, 1), (rows, x, h // factor, w // factor)):
        count, sizes = target.numel(), {"FACTOR": factor, "SPAN": span, "BLOCK": block}
        _collect[(ceil_div(count, block),)](source, target, count, length, inner, **sizes)
    return x


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, factor: int):
        n, c, h, w = x.shape
        ctx.factor = factor
        y = torch.empty((n, c, h * factor, w * factor), dtype=torch.float32, device=x.device)
        _upsample[(ceil_div(y.numel(), BLOCK),)](x, y, y.numel(), c, h, w, *x.stride(), FACTOR=factor, BLOCK=BLOCK)
        return y

    @staticmethod
    def backward(ctx, gradient):
        return _collected(gradient, ctx.factor), None


def upsample(x: Tensor, factor: int) -> Tensor:
    """``out[o] = lerp(x[o // f], x[min(o // f + 1, n - 1)], (o mod f) / f)`` along both axes, differentiable once.

    (N, C, H, W) of any strides -> (N, C, f H, f W), float32.
    """
    return _Upsample.apply(x, factor)


@triton.jit(do_not_specialize=["height", "width", "n_stride", "c_stride", "y_stride", "x_stride", "programs", "weight"])
def _end_point_errors(
    x, label, mask, sums, gradient, height, width, n_stride, c_stride, y_stride, x_stride, programs, weight, q,
    FACTOR: tl.constexpr, ROBUST: tl.constexpr, GRADIENT: tl.constexpr, EPSILON: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: the sum of BLOCK pixels' errors, and the gradient of the upsampled prediction before the mean."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1)
    pixels = height * width * FACTOR * FACTOR
    known = at < pixels
    row, column = at // (width * FACTOR), at % (width * FACTOR)
    first, second = image * 2 * pixels + at, (image * 2 + 1) * pixels + at
    x += image * n_stride
    dy = _interpolate(x, row, column, known, height, width, y_stride, x_stride, FACTOR)
    dx = _interpolate(x + c_stride, row, column, known, height, width, y_stride, x_stride, FACTOR)
    dy -= tl.load(label + first, mask=known, other=0.0)
    dx -= tl.load(label + second, mask=known, other=0.0)
    weights = weight * tl.load(mask + image * pixels + at, mask=known, other=0.0)
    if ROBUST:
        total = tl.abs(dy) + tl.abs(dx) + EPSILON
        error = tl.exp(q * tl.log(total))
        slope = weights * q * error / total
        dy = tl.where(dy > 0, slope, tl.where(dy < 0, -slope, 0.0))
        dx = tl.where(dx > 0, slope, tl.where(dx < 0, -slope, 0.0))
    else:
        error = tl.sqrt(dy * dy + dx * dx + EPSILON)
        dy *= weights / error
        dx *= weights / error
    tl.store(sums + image * programs + tl.program_id(0), tl.sum(error * weights))
    if GRADIENT:
        tl.store(gradient + first, dy, mask=known)
        tl.store(gradient + second, dx, mask=known)


class _MultiscaleEPE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, label, mask, weights, q, *predictions):
        n, _, h, w = label.shape
        programs = ceil_div(h * w, ERRORS)
        sums = torch.empty((len(predictions), n, programs), dtype=torch.float32, device=label.device)
        ctx.factors, gradients = [h // x.shape[2] for x in predictions], []
        for weight, x, factor, part, wanted in zip(weights, predictions, ctx.factors, sums, ctx.needs_input_grad[4:]):
            gradients.append(torch.empty_like(label) if wanted else None)
            _end_point_errors[programs, n](
                x, label, mask, part, gradients[-1], *x.shape[2:], *x.stride(), programs, float(weight), q or 0.0,
                FACTOR=factor, ROBUST=q is not None, GRADIENT=wanted, EPSILON=EPE_EPSILON, BLOCK=ERRORS,
            )  # fmt: skip
        count = mask.sum((1, 2, 3))
        count += count == 0
        ctx.save_for_backward(count, *gradients)
        return sums.sum((0, 2)) / count

    @staticmethod
    def backward(ctx, gradient):
        count, *gradients = ctx.saved_tensors
        scale = (gradient / count)[:, None, None, None]
        return None, None, None, None, *(_collected(g, f) * scale for g, f in zip(gradients, ctx.factors))


def multiscale_epe(weights: Sequence[float], q: float | None, label: Tensor, mask: Tensor, *predictions) -> Tensor:
    """`network.losses.MultiscaleEPE`, (N,), of any number of predictions (N, 2, H / f, W / f) float32.

    Label (N, 2, H, W) and mask (N, 1, H, W) are float32, too. Gradients reach the predictions alone.
    """
    return _MultiscaleEPE.apply(label.contiguous(), mask.contiguous(), weights, q, *predictions)
