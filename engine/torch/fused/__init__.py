"""What executes a network's graph fastest on a device, and at which precision it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from maskflownet.engine.symbol import Graph
from maskflownet.engine.torch.fused.cpu import CPUNetwork
from maskflownet.engine.torch.kernels.layout import triton_runs
from maskflownet.engine.torch.module import GraphModule


def executor(graph: Graph, device: torch.device, precision: str) -> torch.nn.Module:
    """A network's graph as a module on a device, for prediction and training.

    Parameters
    ----------
    graph : Graph
        Of kind "network".
    device : torch.device
    precision : {"float32", "tf32", "bf16"}
        It is called, and differentiated, within `computing` of the same precision.

    Returns
    -------
    torch.nn.Module
        Two images (N, 3, H, W) float32 -> list of five flows and the mask, as the graph has them.
        ``named_parameters()`` are float32 under the names of the `.params` file; whatever else
        depends on them is made anew in ``parameters_changed()``, if there is such a method, in
        place where a captured CUDA graph reads it.
    """
    if precision != "float32" and triton_runs(device):
        from maskflownet.engine.torch.fused.gpu import GPUNetwork  # noqa: PLC0415 - needs Triton

        return GPUNetwork(graph, precision).to(device)
    if device.type == "cpu":
        return CPUNetwork(graph)
    return GraphModule(graph).to(device)


def module_of(graph: Graph, device: torch.device) -> torch.nn.Module:
    """A graph without parameters, such as a loss, as a float32 module on a device."""
    if triton_runs(device):
        from maskflownet.engine.torch.fused.gpu import with_fast_upsampling  # noqa: PLC0415 - needs Triton

        return with_fast_upsampling(graph).to(device)
    return GraphModule(graph).to(device)


@contextmanager
def computing(precision: str, search: bool = False) -> Iterator[None]:
    """Let matrix products be computed at a precision; everything outside stays float32.

    Parameters
    ----------
    precision : {"float32", "tf32", "bf16"}
    search : bool
        Whether cuDNN may time its algorithms for sizes that it meets for the first time.
    """
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, precision != "float32"
    try:
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=search, allow_tf32=precision != "float32"),
            torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"),
        ):
            yield
    finally:
        products.allow_tf32 = before
