"""The device that runs the Triton kernels."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def kernels():
    """A GPU, or with TRITON_INTERPRET=1 the CPU, on which Triton then interprets the kernels."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    from maskflownet.engine.torch.kernels.layout import interpreted  # noqa: PLC0415 - needs torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if interpreted():
        return torch.device("cpu")
    pytest.skip("no GPU for the kernels")
    return None
