"""Deformable convolution: the plain version against MXNet, the kernels against the plain one."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from maskflownet.engine.torch.kernels.deformable import deformable, deformable_reference, pack_weight  # noqa: E402

CASES = [  # (N, C, H, W), K
    ((1, 16, 1, 1), 16),
    ((2, 16, 5, 7), 20),
    ((1, 196, 2, 3), 196),
    ((2, 32, 13, 21), 32),
    ((1, 96, 4, 30), 96),
]
LARGE = ((8, 64, 40, 56), 64)
# Each shape, precision and fusion is a compilation: what is fused is fused at any shape, and TF32
# differs from float32 in the products alone, of whole blocks of channels and of a part of one.
KERNEL_CASES = [(*case, fused) for case, fused in zip(CASES, (True, False, True, False, True))] + [
    (*LARGE, False),
    (*LARGE, True),
]
PRECISIONS = [
    ("float32", "ieee", 1e-4, KERNEL_CASES),
    ("float32", "tf32", 2e-3, [KERNEL_CASES[2], KERNEL_CASES[3]]),
    ("bfloat16", "tf32", 2e-2, KERNEL_CASES),
]


def relative(a, b) -> float:
    a, b = torch.as_tensor(a).detach().double().cpu(), torch.as_tensor(b).detach().double().cpu()
    assert a.shape == b.shape
    # Where terms of order 1 cancel, what is left is their rounding, and processors differ in it.
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-1))


def draw(shape, channels, whole=False, seed=0):
    """x, offset, weight, bias, mask, residual, gradient; the offsets lead across the borders."""
    rng = np.random.default_rng(seed)
    n, c, h, w = shape
    x, weight, bias, residual, grad = (
        rng.standard_normal(s).astype(np.float32)
        for s in (shape, (channels, c, 3, 3), channels, (n, channels, h, w), (n, channels, h, w))
    )
    offset = (rng.standard_normal((n, 2, h, w)) * (1 + min(h, w) / 4)).astype(np.float32)
    mask = rng.uniform(0, 1, (n, 1, h, w)).astype(np.float32)
    return x, np.round(offset) if whole else offset, weight, bias, mask, residual, grad


def mxnet_convolution(x, offset, weight, bias, grad):
    """Result and the gradients of all four inputs by MXNet."""
    mx = pytest.importorskip("maskflownet.network.compat").mx
    from maskflownet.network.layers import DeformableConv  # noqa: PLC0415 - needs MXNet

    block = DeformableConv(weight.shape[0], weight.shape[1])
    block.initialize()
    block.weight.set_data(mx.nd.array(weight))
    block.bias.set_data(mx.nd.array(bias))
    inputs = [mx.nd.array(v) for v in (x, offset)]
    for v in inputs:
        v.attach_grad()
    with mx.autograd.record():
        result = block(*inputs)
    result.backward(mx.nd.array(grad))
    gradients = (*(v.grad for v in inputs), block.weight.grad(), block.bias.grad())
    return result.asnumpy(), [g.asnumpy() for g in gradients]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("shape", "channels"), CASES)
def test_plain_version_agrees_with_mxnet_forward_and_backward(shape, channels, whole):
    *arrays, _, _, grad = draw(shape, channels, whole)
    expected, expected_gradients = mxnet_convolution(*arrays, grad)
    tensors = [torch.tensor(v, requires_grad=True) for v in arrays]
    result = deformable_reference(*tensors)
    result.backward(torch.tensor(grad))
    assert relative(result, expected) < 1e-5
    for tensor, gradient in zip(tensors, expected_gradients):
        assert relative(tensor.grad, gradient) < 1e-5


def test_edge_value_is_held_up_to_the_size_and_samples_outside_are_zero():
    x = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1
    offset = torch.zeros(1, 2, 1, 3)
    offset[0, 1, 0] = torch.tensor([-0.01, 0.5, 0.99])
    result = deformable(x, offset, weight, torch.zeros(1))
    assert torch.allclose(result.flatten(), torch.tensor([0.0, 3.0, 4.0]))
    offset[0, 0] = torch.tensor([0.5, 0.99, 1.0])
    result = deformable(x, offset, weight, torch.zeros(1))
    assert torch.allclose(result.flatten(), torch.tensor([0.0, 3.0, 0.0]))


def test_mask_residual_and_leaky_relu_follow_the_convolution():
    x, offset, weight, bias, mask, residual, _ = map(torch.tensor, draw((2, 8, 9, 10), 12))
    convolved = deformable(x, offset, weight, bias)
    memory = torch.zeros(2, 9, 10, 20).permute(0, 3, 1, 2)
    result = deformable(x, offset, weight, bias, mask, residual, 0.1, out=memory[:, 4:16])
    assert relative(result, F.leaky_relu(convolved * mask + residual, 0.1)) < 1e-6
    assert memory[:, :4].abs().max() == 0 == memory[:, 16:].abs().max()
    packed = deformable(x, offset, pack_weight(weight, x.dtype), bias)
    assert relative(packed, convolved) < 1e-6


def wider(x, before, after):
    """`x` as a slice of a wider channels-last map, as in the networks."""
    padded = F.pad(x.permute(0, 2, 3, 1), (before, after)).permute(0, 3, 1, 2)
    return padded[:, before : padded.shape[1] - after]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "precision", "tolerance", "shape", "channels", "fused"),
    [(*arithmetic, *case) for *arithmetic, cases in PRECISIONS for case in cases],
)
def test_kernels_agree_with_plain_version(kernels, dtype, precision, tolerance, shape, channels, fused):
    from maskflownet.engine.torch.kernels.deformable_triton import deform  # noqa: PLC0415 - needs Triton

    dtype = getattr(torch, dtype)
    *tensors, grad = (torch.tensor(v, device=kernels) for v in draw(shape, channels))
    x, offset, weight, bias, mask, residual = tensors
    x, residual, grad = wider(x.to(dtype), 8, 5), residual.to(dtype), wider(grad.to(dtype), 0, 3)
    leaves = [x, offset, weight, bias, *((mask, residual) if fused else ())]
    leaves = [v.detach().requires_grad_() for v in leaves]
    extra = (*leaves[4:], 0.1) if fused else (None, None, None)
    result = deform(*leaves[:4], *extra, None, precision)
    gradients = torch.autograd.grad(result, leaves, grad)

    # The offset stays float32: a sample's place, and so the bilinear cell, must be the same.
    wide = [v.detach().cpu().double().requires_grad_() for v in leaves]
    wide[2].data = wide[2].data.to(dtype).double()
    expected = deformable_reference(*wide[:4])
    if fused:
        expected = expected * wide[4] + wide[5]
        # Where rounding decides the sign, the result decides the slope.
        expected = expected * torch.where(result.detach().cpu() > 0, 1.0, 0.1).double()
    expected_gradients = torch.autograd.grad(expected, wide, grad.cpu().double())
    assert relative(result, expected) < tolerance
    for one, other in zip(gradients, expected_gradients):
        assert relative(one, other) < tolerance

    with torch.no_grad():
        memory = wider(torch.zeros_like(result), 7, 13)
        deform(*leaves[:2], pack_weight(weight, dtype), bias, *extra, memory, precision)
    assert torch.equal(memory, result)


@pytest.mark.gpu
def test_only_the_wanted_gradients_are_computed(kernels):
    from maskflownet.engine.torch.kernels.deformable_triton import deform  # noqa: PLC0415 - needs Triton

    *tensors, grad = (torch.tensor(v, device=kernels) for v in draw((1, 16, 6, 9), 16))
    x, offset, weight, bias, mask, _ = tensors
    all_wanted = [v.clone().requires_grad_() for v in (x, offset, weight, bias, mask)]
    result = deform(*all_wanted, None, None, None, "ieee")
    expected = torch.autograd.grad(result, all_wanted, grad)
    for wanted in range(5):
        leaves = [v.clone() for v in (x, offset, weight, bias, mask)]
        leaves[wanted].requires_grad_()
        result = deform(*leaves, None, None, None, "ieee")
        (gradient,) = torch.autograd.grad(result, [leaves[wanted]], grad)
        assert relative(gradient, expected[wanted]) < 1e-5
