"""Upsampling and the training's loss by Triton against the graph's operators, in both directions."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.module import GraphModule, with_fast_upsampling
from maskflownet.network.architecture import LOSS_WEIGHTS, STRIDES


@pytest.mark.parametrize("factor", [2, 4, 64])
def test_upsampling(factor, device, compare):
    from maskflownet.engine.torch.kernels.upsampling import upsample  # noqa: PLC0415

    x = torch.randn(2, 3, 2, 5, device=device, requires_grad=True)
    # One more row and column, the edge repeated: then corners aligned is aligned to the first.
    size = (2 * factor + 1, 5 * factor + 1)
    wide = F.interpolate(F.pad(x, (0, 1, 0, 1), "replicate"), size, None, "bilinear", True)
    compare([upsample(x, factor)], [wide[:, :, :-1, :-1]], [x], 1e-5)


@pytest.mark.parametrize("q", [None, 0.4])
def test_the_loss_is_that_of_the_graph(q, device, close, compare):
    from maskflownet.engine.torch.kernels.upsampling import multiscale_epe  # noqa: PLC0415

    label, mask = (torch.randn(3, 2, 64, 128, device=device), torch.rand(3, 1, 64, 128, device=device))
    mask[0, :, 20:], mask[1] = 0, 0
    flows = [torch.randn(3, 2, 64 // s, 128 // s, device=device, requires_grad=True) for s in STRIDES]
    expected = GraphModule(graph_of("loss", q=q)).to(device)(label, mask, *flows)
    compare([multiscale_epe(LOSS_WEIGHTS, q, label, mask, *flows)], expected, flows, 1e-5)
    finest = flows[-1].detach()
    expected = GraphModule(graph_of("metric")).to(device)(finest, label, mask)
    close(multiscale_epe((1.0,), None, label, mask, finest), expected[0], 1e-6)


@pytest.mark.parametrize(
    ("kind", "settings", "count"),
    [("loss", {}, 5), ("network", {"network": "MaskFlownet_S"}, 8), ("network", {"network": "MaskFlownet"}, 14)],
)
def test_upsamplings_of_a_graph(kind, settings, count, device, close):
    graph = graph_of(kind, **settings)
    fused, operators = with_fast_upsampling(graph)
    assert sum(node.op == "upsampling" for node in fused.nodes) == count
    assert not any(node.op == "Pad" for node in fused.nodes)
    if kind == "loss":
        inputs = [torch.rand(1, 1 if name == "mask" else 2, 64, 64) for name in graph.inputs[:2]]
        inputs += [torch.randn(1, 2, 64 // stride, 64 // stride) for stride in STRIDES]
        inputs = [x.to(device) for x in inputs]
        found = GraphModule(fused, operators).to(device)(*inputs)
        close(found[0], GraphModule(graph).to(device)(*inputs)[0], 1e-5)
    # A kernel that is no triangle is left alone.
    steeper = [replace(n, attrs={"scalar": 2.0}) if n.op == "_rminus_scalar" else n for n in graph.nodes]
    assert not any(
        node.op == "upsampling" for node in with_fast_upsampling(replace(graph, nodes=tuple(steeper)))[0].nodes
    )
