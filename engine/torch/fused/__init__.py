"""What executes a network's graph fastest on a device. Triton is imported behind this door only."""

import warnings

import torch
from maskflownet.engine.symbol import Graph
from maskflownet.engine.torch.fused.cpu import CPUNetwork
from maskflownet.engine.torch.kernels.layout import triton_runs
from maskflownet.engine.torch.module import GraphModule


def executor(graph: Graph, device: torch.device, precision: str) -> torch.nn.Module:
    """A network's graph as a module on a device, for prediction and training.

    It is called, and differentiated, within `computing` of the same precision: two images (N, 3, H, W) float32 -> five
    flows and the mask, as the graph has them. ``named_parameters()`` are float32 under the names of the `.params` file.
    Whatever else depends on them is made anew in ``parameters_changed()``, if there is such a method, in place where a
    captured CUDA graph reads it.
    """
    # Weights lie as their gradients do, in all processes of a run alike.
    memory = torch.preserve_format if precision == "float32" else torch.channels_last
    try:
        if precision != "float32" and triton_runs(device):
            from maskflownet.engine.torch.fused.gpu import GPUNetwork  # noqa: PLC0415 - needs Triton

            return GPUNetwork(graph, precision).to(device, memory_format=memory)
        if device.type == "cpu":
            return CPUNetwork(graph)
    except ValueError as error:
        warnings.warn(f"the network runs node by node, which takes longer: {error}", stacklevel=2)
    return GraphModule(graph).to(device, memory_format=memory)
