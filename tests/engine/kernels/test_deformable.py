"""The deformable convolution by Triton against the graph's operator, which test_torch_operators compares with MXNet."""

import pytest
import torch
import torch.nn.functional as F
from maskflownet.engine.torch.operators import deformable_convolution

SLOPE = 0.1
# Each shape, precision and fusion is a compilation: what is fused is fused at any shape, and TF32
# differs from float32 in the products alone, of whole blocks of channels and of a part of one.
CASES = [  # (N, C, H, W), K, with mask, residual and activation
    ((1, 16, 1, 1), 16, True),
    ((2, 16, 5, 7), 20, False),
    ((1, 132, 2, 3), 132, True),
    ((1, 32, 5, 21), 32, True),
    ((1, 96, 3, 13), 96, True),
    ((8, 64, 40, 56), 64, False),
    ((8, 64, 40, 56), 64, True),
]
PRECISIONS = [
    ("float32", "ieee", 1e-4, CASES),
    ("float32", "tf32", 2e-3, CASES[2:4]),
    ("bfloat16", "tf32", 2e-2, CASES),
]


def draw(shape, channels):
    """x, offset, weight, bias, mask, residual, gradient; the offsets lead across the borders."""
    generator = torch.Generator().manual_seed(0)
    n, c, h, w = shape
    shapes = (shape, (n, 2, h, w), (channels, c, 3, 3), (channels,), (n, 1, h, w), *[(n, channels, h, w)] * 2)
    x, offset, weight, bias, mask, residual, grad = (torch.randn(s, generator=generator) for s in shapes)
    return x, offset * (1 + min(h, w) / 4), weight, bias, mask.sigmoid(), residual, grad


def reference(x, offset, weight, bias):
    return deformable_convolution(
        x, offset.repeat(1, 9, 1, 1), weight, bias, kernel=(3, 3), pad=(1, 1), num_filter=weight.shape[0]
    )


def wider(x, before, after):
    """`x` as a slice of a wider channels-last map, as in the networks."""
    padded = F.pad(x.permute(0, 2, 3, 1), (before, after)).permute(0, 3, 1, 2)
    return padded[:, before : padded.shape[1] - after]


@pytest.mark.parametrize(
    ("dtype", "precision", "bound", "shape", "channels", "fused"),
    [(*arithmetic, *case) for *arithmetic, cases in PRECISIONS for case in cases],
)
def test_the_kernels(device, close, dtype, precision, bound, shape, channels, fused):
    if device.type == "cpu" and (precision != "ieee" or 8 in shape or 96 in shape):
        pytest.skip("the interpreter computes in float32, and slowly")
    from maskflownet.engine.torch.kernels.deformable import deformable, pack_weight  # noqa: PLC0415 - needs Triton

    dtype = getattr(torch, dtype)
    x, offset, weight, bias, mask, residual, grad = (v.to(device) for v in draw(shape, channels))
    x, residual, grad = wider(x.to(dtype), 8, 5), residual.to(dtype), wider(grad.to(dtype), 0, 3)
    leaves = [x, offset, weight, bias, *((mask, residual) if fused else ())]
    leaves = [v.detach().requires_grad_() for v in leaves]
    extra = (*leaves[4:], SLOPE) if fused else (None, None, None)
    result = deformable(*leaves[:4], *extra, precision)
    gradients = torch.autograd.grad(result, leaves, grad)

    # The offset stays float32: a sample's place, and so the bilinear cell, must be the same.
    wide = [v.detach().cpu().double().requires_grad_() for v in leaves]
    wide[2].data = wide[2].data.to(dtype).double()
    expected = reference(*wide[:4])
    if fused:
        expected = expected * wide[4] + wide[5]
        # Where rounding decides the sign, the result decides the slope.
        expected = expected * torch.where(result.detach().cpu() > 0, 1.0, SLOPE).double()
    close(result, expected, bound, 1e-1)
    for one, other in zip(gradients, torch.autograd.grad(expected, wide, grad.cpu().double())):
        close(one, other, bound, 1e-1)
    with torch.no_grad():
        packed = deformable(*leaves[:2], pack_weight(weight, dtype), bias, *extra, precision)
    assert torch.equal(packed, result)


def test_only_the_wanted_gradients_are_computed(device, close):
    from maskflownet.engine.torch.kernels.deformable import deformable  # noqa: PLC0415 - needs Triton

    *tensors, _, grad = (v.to(device) for v in draw((1, 16, 3, 5), 16))
    all_wanted = [v.clone().requires_grad_() for v in tensors]
    expected = torch.autograd.grad(deformable(*all_wanted, None, None, "ieee"), all_wanted, grad)
    for wanted in range(5):
        leaves = [v.clone() for v in tensors]
        leaves[wanted].requires_grad_()
        (gradient,) = torch.autograd.grad(deformable(*leaves, None, None, "ieee"), [leaves[wanted]], grad)
        close(gradient, expected[wanted], 1e-5, 1e-1)
