"""Correlation: the plain version against MXNet, the kernels against the plain version."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from maskflownet.engine.torch.kernels.correlation import correlation, correlation_reference  # noqa: E402

CASES = [  # (N, C, H, W), radius
    ((1, 16, 1, 1), 4),
    ((2, 16, 5, 7), 4),
    ((1, 196, 3, 5), 2),
    ((2, 96, 9, 37), 4),
    ((3, 32, 11, 32), 2),
]
# Each shape, slope and precision is a compilation: a slope is of any shape, and TF32 differs from
# float32 in the products alone, of whole blocks of channels and of a part of one.
KERNEL_CASES = [(*case, slope) for case, slope in zip(CASES, (None, 0.1, 0.1, None, 0.1))] + [
    ((8, 32, 80, 112), 4, 0.1)
]
PRECISIONS = [
    ("float32", "ieee", 1e-4, KERNEL_CASES),
    ("float32", "tf32", 2e-3, [KERNEL_CASES[2], KERNEL_CASES[3]]),
    ("bfloat16", "tf32", 2e-2, KERNEL_CASES),
]


def relative(a, b) -> float:
    a, b = torch.as_tensor(a).detach().double().cpu(), torch.as_tensor(b).detach().double().cpu()
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-2))


def draw(shape, radius, seed=0):
    rng = np.random.default_rng(seed)
    channels = (2 * radius + 1) ** 2
    shapes = (shape, shape, (shape[0], channels, *shape[2:]))
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


@pytest.mark.parametrize(("shape", "radius"), CASES)
def test_plain_version_agrees_with_mxnet_forward_and_backward(shape, radius):
    mx = pytest.importorskip("maskflownet.network.compat").mx
    from maskflownet.network.layers import Correlation  # noqa: PLC0415 - needs MXNet

    a, b, grad = draw(shape, radius)
    inputs = [mx.nd.array(v) for v in (a, b)]
    for v in inputs:
        v.attach_grad()
    with mx.autograd.record():
        expected = Correlation(radius)(*inputs)
    expected.backward(mx.nd.array(grad))

    tensors = [torch.tensor(v, requires_grad=True) for v in (a, b)]
    result = correlation_reference(*tensors, radius)
    result.backward(torch.tensor(grad))
    assert relative(result, expected.asnumpy()) < 1e-5
    for tensor, v in zip(tensors, inputs):
        assert relative(tensor.grad, v.grad.asnumpy()) < 1e-5


def test_displacement_order_is_rows_first():
    a, b = torch.zeros(1, 2, 6, 6), torch.zeros(1, 2, 6, 6)
    a[0, :, 2, 3] = 1
    b[0, :, 4, 2] = 3  # dy = 2, dx = -1
    result = correlation(a, b, 2, slope=0.1)
    assert result[0, (2 + 2) * 5 + (-1 + 2), 2, 3] == 3
    assert result.sum() == 3


def test_plain_version_keeps_layout_and_type_and_writes_to_a_given_tensor():
    a, b, _ = (torch.tensor(v) for v in draw((1, 8, 4, 5), 1))
    memory = torch.zeros(1, 4, 5, 12).permute(0, 3, 1, 2)
    result = correlation(a, b, 1, slope=0.1, out=memory[:, 2:11])
    assert relative(result, F.leaky_relu(correlation(a, b, 1), 0.1)) < 1e-6
    assert memory[:, :2].abs().max() == 0 == memory[:, 11:].abs().max()
    last = a.to(torch.bfloat16, memory_format=torch.channels_last)
    result = correlation(last, last, 1)
    assert result.dtype == torch.bfloat16
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "precision", "tolerance", "shape", "radius", "slope"),
    [(*arithmetic, *case) for *arithmetic, cases in PRECISIONS for case in cases],
)
def test_kernels_agree_with_plain_version(kernels, dtype, precision, tolerance, shape, radius, slope):
    a, b, grad = (torch.tensor(v, device=kernels).to(getattr(torch, dtype)) for v in draw(shape, radius))
    # `a` and the gradient are slices of wider channels-last maps, as in the networks.
    a = F.pad(a.permute(0, 2, 3, 1), (8, 5)).permute(0, 3, 1, 2)[:, 8:-5].requires_grad_()
    grad = F.pad(grad.permute(0, 2, 3, 1), (3, 0)).permute(0, 3, 1, 2)[:, 3:]
    b.requires_grad_()
    result = correlate(a, b, radius, slope, None, precision)
    gradients = torch.autograd.grad(result, (a, b), grad)

    wide = [v.detach().cpu().double().requires_grad_() for v in (a, b)]
    expected = correlation_reference(*wide, radius)
    if slope is not None:
        # Where rounding decides the sign, the result decides the slope.
        factor = torch.where(result.detach().cpu() > 0, 1.0, slope).double()
        expected = expected * factor
    expected_gradients = torch.autograd.grad(expected, wide, grad.cpu().double())
    assert relative(result, expected) < tolerance
    for one, other in zip(gradients, expected_gradients):
        assert relative(one, other) < tolerance

    with torch.no_grad():
        memory = torch.zeros(*result.shape[:1], *result.shape[2:], result.shape[1] + 20, device=kernels)
        memory = memory.to(a.dtype).permute(0, 3, 1, 2)
        correlate(a, b, radius, slope, memory[:, 7:-13], precision)
    assert torch.equal(memory[:, 7:-13], result)
    assert memory[:, :7].abs().max() == 0 == memory[:, -13:].abs().max()


def correlate(*args):
    from maskflownet.engine.torch.kernels.correlation_triton import correlate  # noqa: PLC0415 - needs Triton

    return correlate(*args)
