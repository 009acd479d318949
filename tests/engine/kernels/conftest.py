"""Where the Triton kernels run: on a GPU, or by Triton's interpreter on the CPU, see tests/conftest.py."""

import pytest


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton", reason="Triton is not installed")
    if (request.param == "cuda") != torch.cuda.is_available():
        pytest.skip("there is no GPU" if request.param == "cuda" else "the kernels are compiled for the GPU")
    return torch.device(request.param)


@pytest.fixture
def close():
    """A function that checks two arrays: the largest difference, relative to the largest value."""
    torch = pytest.importorskip("torch")

    def check(ours, theirs, bound, least=0.0):
        ours, theirs = (torch.as_tensor(x).detach().double().cpu() for x in (ours, theirs))
        assert ours.shape == theirs.shape
        # Where terms of order 1 cancel, what is left is their rounding: `least` is then what counts as large.
        assert (ours - theirs).abs().max() < bound * theirs.abs().max().clamp(min=least)

    return check


@pytest.fixture
def compare(close):
    """A function that checks results and, for one random gradient of them, the gradients of all inputs."""
    torch = pytest.importorskip("torch")

    def check(results, expected, inputs, bound):
        for ours, theirs in zip(results, expected):
            close(ours, theirs, bound)
        towards = [torch.randn(result.shape).to(result) for result in expected]
        ours = torch.autograd.grad(results, inputs, [t.to(r.dtype) for t, r in zip(towards, results)])
        for one, other in zip(ours, torch.autograd.grad(expected, inputs, towards)):
            close(one, other, 2 * bound)

    return check


@pytest.fixture(autouse=True)
def exact_reference(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
