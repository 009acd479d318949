"""From images to flow with PyTorch: what the engine and the programs of others share, and a module for the latter."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from maskflownet.checkpoints.checkpoint import Checkpoint, match_network, read_checkpoint
from maskflownet.engine.contract import BORDER, SHARE, SLACK, Sizing
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.symbol import Graph
from maskflownet.engine.torch.module import GraphModule, centred
from maskflownet.engine.torch.operators import OPERATORS, Operator, bilinear_sampler, grid_generator, wide
from maskflownet.errors import UserError, nearest
from maskflownet.network.architecture import NETWORKS


def pad(x: torch.Tensor, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    return OPERATORS["Pad"]([x], {"mode": "edge", "pad_width": (0, 0, 0, 0, top, bottom, left, right)})


def resize(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear, corners aligned: (N, C, h, w) -> (N, C, height, width)."""
    if x.shape[2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)


def upsample(x: torch.Tensor) -> torch.Tensor:
    """The networks' last upsampling, (N, C, h, w) -> (N, C, 4h, 4w): bilinear, pixel 4i at pixel i."""
    height, width = (4 * size for size in x.shape[2:])
    return resize(pad(x, 0, 1, 0, 1), height + 1, width + 1)[:, :, :height, :width]


def estimate(network: Callable, images: list[torch.Tensor], colour: str, sizing: Sizing):
    """Centring, fitting to the network's size, the network, and the way back.

    Two RGB images (N, 3, H, W) in [0, 1] -> flow (N, 2, H, W), px, (y, x), and functions that give the mask (N, 1, H,
    W) and the network's five flows in the images' px.
    """
    fit, unfit = sizing.fitting(*images[0].shape[2:], pad, resize)
    *levels, mask = network(*(fit(image) for image in centred(images, colour)))
    flow, factors = unfit(upsample(wide(levels[-1])))

    def scaled(flow: torch.Tensor) -> torch.Tensor:
        # Not times a tensor of factors, which would have to be sent to the device.
        return flow if factors == (1, 1) else torch.cat([flow[:, :1] * factors[0], flow[:, 1:] * factors[1]], 1)

    return scaled(flow), lambda: unfit(upsample(wide(mask)))[0], lambda: [scaled(wide(level)) for level in levels]


class FlowNetwork(GraphModule):
    """MaskFlownet or MaskFlownet_S for programs in PyTorch, see `torch_network`.

    Its parameters have the structural names: `conv1a.0.weight`, or `MaskFlownet_S.conv1a.0.weight`.
    """

    def __init__(self, graph: Graph, colour: str = "RGB", operators: Mapping[str, Operator] = OPERATORS):
        super().__init__(graph, operators)
        self.colour = colour

    def forward(self, image_1: torch.Tensor, image_2: torch.Tensor, return_levels: bool = False):
        """Flow and mask of N pairs, differentiable with respect to images and parameters.

        Parameters
        ----------
        image_1, image_2 : (N, 3, H, W) tensors
            RGB in [0, 1], of any size. They are resized to multiples of 64, and the flow back.
        return_levels : bool
            Also return the flows that the network estimates coarse to fine, which training compares with the truth.

        Returns
        -------
        flow : (N, 2, H, W) tensor
            Px, (u, v): what is at (x, y) in image 1 is at (x + u, y + v) in image 2. At least float32.
        mask : (N, 1, H, W) tensor
            1 = visible in image 2, 0 = hidden.
        levels : list of five (N, 2, h, w) tensors, with `return_levels`
            Px of the images, (u, v); h and w are the multiples of 64, divided by 64, 32, 16, 8 and 4.

        UserError: The images are no floating-point tensors of one such shape.
        """
        if image_1.dim() != 4 or image_1.shape[1] != 3 or image_1.shape != image_2.shape:
            raise UserError(f"two images are (N, 3, H, W) each, not {(*image_1.shape,)} and {(*image_2.shape,)}")
        if not (image_1.is_floating_point() and image_2.is_floating_point()):
            raise UserError(f"images are floats in [0, 1], not {image_1.dtype} and {image_2.dtype}")

        def network(*images):
            return super(FlowNetwork, self).forward(*(image.to(next(self.parameters()).dtype) for image in images))

        flow, mask, levels = estimate(network, [image_1, image_2], self.colour, Sizing())
        found = flow.flip(1), mask()
        return (*found, [level.flip(1) for level in levels()]) if return_levels else found


def of_checkpoint(network: str, checkpoint: Checkpoint, operators: Mapping[str, Operator] = OPERATORS) -> FlowNetwork:
    """The module with a checkpoint's parameters, or its head's; a UserError where it is not of the network."""
    record = checkpoint.record
    graph = graph_of("network", network=network, flow_multiplier=record.flow_multiplier, pyramid=record.pyramid)
    arrays = match_network(checkpoint, network, graph.parameters).parameters
    module = FlowNetwork(graph, record.colour, operators)
    module.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return module


def torch_network(network: str = "MaskFlownet", checkpoint=None, colour: str | None = None) -> FlowNetwork:
    """The network as a module for programs in PyTorch: training, other losses, a part of a larger network.

    >>> module = torch_network("MaskFlownet_S").cuda()
    >>> flow, mask = module(image_1, image_2)  # (N, 3, H, W) RGB in [0, 1] -> (N, 2, H, W) px (u, v), (N, 1, H, W)

    Parameters
    ----------
    network : {"MaskFlownet", "MaskFlownet_S"}
    checkpoint : str, optional
        As of `load`: without it the shipped weights. "random": new weights, by `module.initialise(seed)` others.
    colour : {"RGB", "BGR"}, optional
        Order in which the network takes the channels, if not as the checkpoint's record says. Images are RGB always.

    UserError: There is no such network or checkpoint, or they do not fit.
    """
    if network not in NETWORKS:
        raise UserError(f"no network {network}{nearest(network, NETWORKS)}: there are {' and '.join(NETWORKS)}")
    if checkpoint == "random":
        module = FlowNetwork(graph_of("network", network=network), colour or "RGB")
        module.initialise(0)
        return module
    return of_checkpoint(network, read_checkpoint(checkpoint, colour=colour))


def warp(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Images 2 moved back onto images 1: `image` at x + flow(x), bilinear; outside the nearest border pixel.

    (N, C, H, W) and flow (N, 2, H, W) px, (u, v) -> (N, C, H, W); differentiable with respect to both.
    """
    if flow.shape[1:] != (2, *image.shape[2:]):
        raise ValueError(f"images {tuple(image.shape)} have no flow {tuple(flow.shape)}: it is (N, 2, H, W)")
    return bilinear_sampler(image, grid_generator(flow, transform_type="warp").clamp(-1, 1))


def consistency(forward: torch.Tensor, backward: torch.Tensor) -> torch.Tensor:
    """How far the flow from images 1 to images 2 leads back by the flow of the opposite direction.

    (N, 2, H, W) px, (u, v), twice -> confidence (N, 1, H, W) in [0, 1]: 1 = back exactly, above 1/2 = consistent by
    Sundaram et al. (ECCV 2010, equation 5), 0 = out of the picture, or the flow is no number. docs/predict.md has the
    formula.
    """
    forward = wide(forward)
    height, width = forward.shape[2:]
    x = forward[:, :1] + torch.arange(width, device=forward.device)
    y = forward[:, 1:] + torch.arange(height, device=forward.device)[:, None]
    inside = (x >= -BORDER) & (x <= width - 1 + BORDER) & (y >= -BORDER) & (y <= height - 1 + BORDER)
    there, back = forward, warp(wide(backward), forward)
    tolerance = SHARE * (there.square() + back.square()).sum(1, keepdim=True) + SLACK
    confidence = 1 / (1 + (there + back).square().sum(1, keepdim=True) / tolerance)
    return torch.where(inside, confidence, 0).nan_to_num(0)
