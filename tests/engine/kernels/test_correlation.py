"""The correlation's kernels against the graph's operator, which test_torch_operators compares with MXNet."""

import pytest
import torch
import torch.nn.functional as F
from maskflownet.engine.torch.operators import correlation as reference

SLOPE = 0.1
# Each shape, slope and precision is a compilation: a slope is of any shape, and TF32 differs from
# float32 in the products alone, of whole blocks of channels and of a part of one.
CASES = [  # (N, C, H, W), radius, slope
    ((1, 16, 1, 1), 4, None),
    ((2, 16, 5, 7), 4, SLOPE),
    ((1, 196, 3, 5), 2, SLOPE),
    ((1, 96, 3, 37), 4, None),
    ((2, 32, 3, 32), 2, SLOPE),
    ((8, 32, 80, 112), 4, SLOPE),
]
PRECISIONS = [
    ("float32", "ieee", 1e-4, CASES),
    ("float32", "tf32", 2e-3, CASES[2:4]),
    ("bfloat16", "tf32", 2e-2, CASES),
]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("dtype", "precision", "bound", "shape", "radius", "slope"),
    [(*arithmetic, *case) for *arithmetic, cases in PRECISIONS for case in cases],
)
def test_the_kernels(device, close, dtype, precision, bound, shape, radius, slope):
    if device.type == "cpu" and (precision != "ieee" or shape[0] == 8):
        pytest.skip("the interpreter computes in float32, and slowly")
    from maskflownet.engine.torch.kernels.correlation import correlation  # noqa: PLC0415 - needs Triton

    channels = (2 * radius + 1) ** 2
    a, b, grad = (draw(*s, seed=i) for i, s in enumerate((shape, shape, (shape[0], channels, *shape[2:]))))
    a, b, grad = (x.to(device, getattr(torch, dtype)) for x in (a, b, grad))
    # `a` and the gradient are slices of wider channels-last maps, as in the networks.
    a = F.pad(a.permute(0, 2, 3, 1), (8, 5)).permute(0, 3, 1, 2)[:, 8:-5].requires_grad_()
    grad = F.pad(grad.permute(0, 2, 3, 1), (3, 0)).permute(0, 3, 1, 2)[:, 3:]
    b.requires_grad_()
    result = correlation(a, b, radius, slope, precision)
    gradients = torch.autograd.grad(result, (a, b), grad)

    wide = [v.detach().cpu().double().requires_grad_() for v in (a, b)]
    expected = reference(*wide, max_displacement=radius, pad_size=radius)
    if slope is not None:
        # Where rounding decides the sign, the result decides the slope.
        expected = expected * torch.where(result.detach().cpu() > 0, 1.0, slope).double()
    close(result, expected, bound, 1e-2)
    for one, other in zip(gradients, torch.autograd.grad(expected, wide, grad.cpu().double())):
        close(one, other, bound, 1e-2)
    with torch.no_grad():
        assert torch.equal(correlation(a, b, radius, slope, precision), result)
