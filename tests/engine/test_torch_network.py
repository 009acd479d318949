"""The network as a module in programs of others: what it computes, its gradients, precisions, compilers."""

import maskflownet
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from maskflownet.engine.graphs import graph_of
from maskflownet.errors import UserError
from maskflownet.inference.confidence import consistency
from maskflownet.reader.formats import read_image
from maskflownet.settings.folders import PACKAGE

from tests.known_engine import on_gpu

DEVICES = ["cpu", on_gpu("cuda")]


def images(height=50, width=90, count=1, dtype=torch.float32, device="cpu"):
    """Smooth pairs, the second picture moved by 2 px."""
    noise = torch.rand(count, 3, height // 8 + 2, width // 8 + 2, generator=torch.Generator().manual_seed(0))
    canvas = F.interpolate(noise, (height, width + 2), mode="bicubic").clamp(0, 1).to(device, dtype)
    return canvas[..., 2:].contiguous(), canvas[..., :-2].contiguous()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("network", ["MaskFlownet_S", "MaskFlownet"])
def test_the_flow_is_that_of_the_predictor(network, device, monkeypatch):
    """Of pictures that are no multiples of 64, and in the order of colours that is asked for."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # what PyTorch lets convolutions do on GPUs
    pictures = [read_image(PACKAGE / "examples" / f"example_{i}.png")[100:220, 100:220] for i in (1, 2)]
    tensors = [torch.from_numpy(p.copy()).permute(2, 0, 1)[None].to(device) / 255 for p in pictures]
    for colour in (None, "BGR"):
        expected = maskflownet.load(network, engine="torch", colour=colour)(*pictures)
        module = maskflownet.torch_network(network, colour=colour).to(device)
        with torch.no_grad():
            flow, mask, levels = module(*tensors, return_levels=True)
        assert np.abs(expected.flow).max() > 3
        for found, array in ((flow, expected.flow), (mask, expected.mask)):
            np.testing.assert_allclose(found[0].permute(1, 2, 0).cpu(), array, rtol=0, atol=2e-3)
        assert [tuple(level.shape) for level in levels] == [(1, 2, 128 // s, 128 // s) for s in (64, 32, 16, 8, 4)]
        coarse = F.interpolate(levels[-1], flow.shape[2:], mode="bilinear", align_corners=True)
        assert (coarse - flow).norm(dim=1).mean() < 0.5  # the same px, and (u, v)
    assert set(module.state_dict()) == set(graph_of("network", network=network).parameters)


def test_gradients_are_those_of_differences():
    """Of flow, mask and levels, with respect to the images and to weights at both ends."""
    module = maskflownet.torch_network("MaskFlownet", "random").double()
    weights = dict(module.named_parameters())
    names = ("MaskFlownet_S.conv1a.0.weight", "MaskFlownet_S.deform2.weight", "dc_conv7.weight")
    pair = images(24, 40, dtype=torch.float64)

    def outputs(image_1, image_2, *chosen):
        parameters = {**weights, **dict(zip(names, chosen))}
        flow, mask, levels = torch.func.functional_call(module, parameters, (image_1, image_2, True))
        # Scaled, so that a wrong derivative of any one is found: level 6 is 1x1 here, and hardly depends on them.
        scaled = (scale * level.flatten() for scale, level in zip((1e8, 10, 1, 1, 1), levels))
        return flow, 100 * mask, torch.cat([*scaled])

    inputs = [x.detach().clone().requires_grad_() for x in (*pair, *(weights[name] for name in names))]
    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True, eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_loop_of_somebody_else_lowers_its_loss(device):
    module = maskflownet.torch_network("MaskFlownet_S", "random").to(device)
    optimizer = torch.optim.Adam(module.parameters(), 1e-4)
    pair, truth, losses = images(64, 64, 2, device=device), torch.tensor([2.0, 0.0], device=device)[:, None, None], []
    for _ in range(8):
        _, _, levels = module(*pair, return_levels=True)
        loss = sum((level - truth).norm(dim=1).mean() for level in levels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["bfloat16", "float16", "autocast"])
def test_16_bits_keep_the_flow(kind, device):
    """Flows are float32 and near; positions are never rounded to 16 bits."""
    module, pair = maskflownet.torch_network("MaskFlownet_S").to(device), images(device=device)
    with torch.no_grad():
        expected, _ = module(*pair)
        with torch.autocast(device, torch.bfloat16, enabled=kind == "autocast"):
            dtype = torch.float32 if kind == "autocast" else getattr(torch, kind)
            flow, mask = module.to(dtype)(*(image.to(dtype) for image in pair))
    assert flow.dtype == mask.dtype == torch.float32
    assert expected.norm(dim=1).mean() > 1
    assert (flow - expected).norm(dim=1).mean() < (0.02 if kind == "float16" else 0.15)


def test_a_compiler_takes_the_whole_module():
    module, pair = maskflownet.torch_network("MaskFlownet_S"), images(64, 64)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for found, expected in zip(compiled(*pair), module(*pair)):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_warp_and_consistency_are_those_of_the_predictor(device):
    rng = np.random.default_rng(0)
    forward, backward = rng.normal(0, 6, (2, 2, 20, 30, 2)).astype("f4")
    backward[0] = -forward[0] + rng.normal(0, 0.3, forward[0].shape)
    forward[1, 3, 4] = np.nan
    flows = [torch.from_numpy(flow).permute(0, 3, 1, 2).to(device) for flow in (forward, backward)]
    with pytest.raises(ValueError, match="have no flow"):
        maskflownet.warp(flows[0], flows[1][:, :, 1:])
    found = maskflownet.consistency(*flows).cpu().numpy()
    assert found.shape == (2, 1, 20, 30) and found[0].max() > 0.5
    for i in range(2):
        np.testing.assert_allclose(found[i, 0], consistency(forward[i], backward[i]), rtol=0, atol=1e-4)
    pictures = [rng.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(2)]
    flow, _, warped = maskflownet.load("MaskFlownet_S", engine="torch")(*pictures)
    image, flow = (torch.from_numpy(x).permute(2, 0, 1)[None].to(device) for x in (pictures[1] / np.float32(255), flow))
    np.testing.assert_allclose(maskflownet.warp(image, flow)[0].permute(1, 2, 0).cpu(), warped, rtol=0, atol=1e-4)


def test_wrong_arguments_are_one_sentence():
    with pytest.raises(UserError, match="no network MaskFlownet_X, did you mean 'MaskFlownet"):
        maskflownet.torch_network("MaskFlownet_X")
    module, (a, b) = maskflownet.torch_network("MaskFlownet_S", "random"), images()
    for pair in ((a, b[..., 1:]), (a[0], b[0]), (a[:, :2], b[:, :2])):
        with pytest.raises(UserError, match=r"two images are \(N, 3, H, W\) each, not"):
            module(*pair)
    with pytest.raises(UserError, match="images are floats in"):
        module(a.to(torch.uint8), b)
