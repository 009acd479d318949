"""What the passes find in the networks' graphs: all of it, in both networks."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.fused.patterns import (
    find_convolutions,
    find_correlations,
    find_deformables,
    find_dense_blocks,
    find_upsamplings,
    fuse,
)

# network -> dense blocks, convolutions, correlations, deformable convolutions, upsamplings
EXPECTED = {"MaskFlownet_S": (5, 63, 5, 4, 8), "MaskFlownet": (10, 118, 15, 9, 14)}


@pytest.fixture(params=EXPECTED)
def network(request):
    return request.param


@pytest.fixture
def graph(network):
    return graph_of("network", network=network, flow_multiplier=1.0, pyramid="paper")


def test_everything_is_found(network, graph):
    found = (
        find_dense_blocks(graph),
        find_convolutions(graph),
        find_correlations(graph),
        find_deformables(graph),
        find_upsamplings(graph, lambda ref, factor: True),
    )
    assert tuple(map(len, found)) == EXPECTED[network]
    kinds = Counter(node.op for node in graph.nodes)
    assert len(found[1]) == kinds["Convolution"]
    assert len(found[2]) == kinds["Correlation"]
    assert len(found[3]) == kinds["_contrib_DeformableConvolution"]


def test_the_first_stage_masks_what_it_warps_and_the_second_does_not(network, graph):
    masked = {fusion.node.name: fusion.node.attrs["masked"] for fusion in find_deformables(graph)}
    for name, attrs in masked.items():
        assert attrs == (network == "MaskFlownet_S" or "MaskFlownet_S" in name)
    assert all(fusion.node.attrs["slope"] == 0.1 for fusion in find_deformables(graph))


def test_a_kernel_that_is_no_triangle_is_left_alone(graph):
    assert find_upsamplings(graph, lambda ref, factor: False) == []


def test_fused_graphs_keep_inputs_outputs_and_parameters(graph):
    fused = fuse(graph, find_correlations(graph) + find_deformables(graph))
    assert (fused.inputs, fused.parameters) == (graph.inputs, graph.parameters)
    assert len(fused.outputs) == len(graph.outputs)
    left = {node.op for node in fused.nodes}
    assert not left & {"Correlation", "_contrib_DeformableConvolution"}
