"""What the torch engine computes for a batch of pairs on one device, from uint8 images to flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from engine.graphs import graph_of
from engine.sizing import Sizing
from engine.torch_fusion import computing, module_of


class FlowComputation:
    """Centring, fitting to the network's size, the network, and the way back.

    Parameters
    ----------
    network : torch.nn.Module
        On its device.
    precision : {"float32", "tf32", "bf16"}
        Of the network; everything else is float32.
    colour : {"RGB", "BGR"}
        The order in which the network takes the channels.
    """

    def __init__(self, network: torch.nn.Module, precision: str, colour: str):
        device = next(network.parameters()).device
        self.network, self.precision, self.colour = network, precision, colour
        self.upsample_flow, self.upsample_mask, self.warp = (
            module_of(graph, device)
            for graph in (
                graph_of("upsample", factor=4, channels=2),
                graph_of("upsample", factor=4, channels=1),
                graph_of("warp", clamp=True),
            )
        )

    @torch.no_grad()
    def __call__(
        self,
        image_1: torch.Tensor,
        image_2: torch.Tensor,
        sizing: Sizing,
        with_mask: bool,
        with_warped: bool,
        search: bool = False,
    ) -> list[torch.Tensor]:
        """(N, H, W, 3) uint8 on the device -> flow (N, H, W, 2), then what is asked for."""
        with computing("float32"):
            image_1, image_2 = (to_float(image) for image in (image_1, image_2))
            height, width = image_1.shape[2:]
            fit, unfit = fitting(sizing, height, width)
            inputs = [fit(image) for image in centred([image_1, image_2], self.colour)]
            with computing(self.precision, search):
                *_, flow, mask = self.network(*inputs)
            flow, factors = unfit(self.upsample_flow(flow.float())[0])  # (N, 2, H, W), (y, x)
            # Not as a tensor of factors, which would have to be sent to the device.
            flow = torch.cat([flow[:, i : i + 1] * factors[i] for i in range(2)], dim=1)
            outputs = [flow.flip(1)]
            if with_mask:
                outputs.append(unfit(self.upsample_mask(mask.float())[0])[0])
            if with_warped:
                outputs.append(self.warp(image_2, flow)[0])
            return [output.permute(0, 2, 3, 1).contiguous() for output in outputs]


def to_float(image: torch.Tensor) -> torch.Tensor:
    """(N, H, W, C) uint8 -> (N, C, H, W) float32 in [0, 1]."""
    return image.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255


def centred(images: list[torch.Tensor], colour: str) -> list[torch.Tensor]:
    """RGB images (N, 3, H, W) in the network's channel order, minus the mean of both."""
    if colour == "BGR":
        images = [image.flip(1) for image in images]
    mean = torch.cat(images, dim=2).mean((2, 3), keepdim=True)
    return [image - mean for image in images]


def fitting(sizing: Sizing, height: int, width: int):
    """`Sizing.fitting` for PyTorch's tensors."""
    return sizing.fitting(height, width, pad, resize)


def pad(x: torch.Tensor, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    return F.pad(x, (left, right, top, bottom), mode="replicate")


def resize(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear, corners aligned: (N, C, h, w) -> (N, C, height, width)."""
    if x.shape[2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)
