"""Levels 6 and 5 of MaskFlownet_S begun anew, as copies of level 4.

    python -m engine.coarse_levels -c CHECKPOINT [--textures DIR] [--folder DIR]

Where large motion is rare at first, the coarse levels can die: their features shrink to nothing,
their correlation with them, and no gradient brings them back (`python -m benchmarks.levels` shows
it). Level 4 matches by then. Its features, averaged, are features of a coarser level, and its
decoder reads their correlation as well, with displacements in longer units. So the copies match
from the first step. Needs PyTorch.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from engine.checkpoint import Checkpoint
from engine.cli import Parser, add_folder, run
from engine.derived import save_derived
from engine.errors import UserError
from engine.graphs import graph_of
from engine.loading import read_checkpoint
from engine.torch_graph.module import SLOPE, GraphModule
from engine.torch_prediction import centred, to_float
from reader.synthetic import Synthetic

SCENES, SIZE = 8, (384, 512)  # what features are measured on
WIDTHS = {4: 96, 5: 128, 6: 196}  # channels of the pyramid
MATCHES, UPPER, FLOW = 81, 16, 2  # channels that a decoder takes: its correlation, upfeat, flow
DENSE = (128, 128, 96, 64, 32)  # channels that its convolutions add, the newest first
MASK_LOGIT = 2.0  # of the copies at first: open to 88 %, where a sigmoid still learns
BLUR = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
KEEP = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])

Parameters = dict[str, torch.Tensor]


def restart_coarse_levels(
    checkpoint: Checkpoint, textures: str | Path | None = None, seed: int = 0
) -> Checkpoint:
    """The checkpoint with new levels 6 and 5; levels 4 to 2 keep what they compute.

    Level 4 keeps it as far as the old levels 6 and 5 gave it constants, which is what dead ones do.

    Parameters
    ----------
    checkpoint : Checkpoint
        Of MaskFlownet_S.
    textures : str or Path, optional
        Pictures for the scenes that features are measured on; default: those of scikit-image.
    seed : int
        Of the channels that the coarse levels have beyond those of level 4.

    Raises
    ------
    UserError
        It is a checkpoint of another network.
    """
    if checkpoint.record.network != "MaskFlownet_S":
        raise UserError(
            f"{checkpoint.path} is a checkpoint of {checkpoint.record.network}: "
            "coarse levels are those of MaskFlownet_S"
        )
    old = {name: torch.from_numpy(array) for name, array in checkpoint.parameters.items()}
    new = {name: array.clone() for name, array in old.items()}
    with torch.no_grad():
        features, upper = _measure(checkpoint, textures)
        generator = torch.Generator().manual_seed(seed)
        _copy_pyramid(new, features, generator)
        for level in (5, 6):
            _copy_decoder(old, new, level, upper)
        _copy_warp(old, new, upper, generator)
        _detach_level_4(new, upper)
    parameters = {name: array.numpy() for name, array in new.items()}
    return replace(checkpoint, parameters=parameters)


def _measure(checkpoint: Checkpoint, textures) -> tuple[torch.Tensor, torch.Tensor]:
    """Level 4's features of both images of some scenes, and its mean input from level 5."""
    record = checkpoint.record
    graph = graph_of(
        "network", network="MaskFlownet_S", flow_multiplier=record.flow_multiplier or 1.0
    )
    outputs = (("conv4c_leakyrelu0_fwd", 0), ("upfeat4_leakyrelu0_fwd", 0))
    network = GraphModule(replace(graph, outputs=outputs))
    arrays = {n: torch.from_numpy(checkpoint.parameters[n]) for n in network.state_dict()}
    network.load_state_dict(arrays)
    scenes = Synthetic(SCENES, *SIZE, textures=textures)
    features, upper = [], []
    for scene in map(scenes.scene, range(SCENES)):
        images = [to_float(torch.from_numpy(image[None])) for image in (scene.img1, scene.img2)]
        found = network(*centred(images, record.colour))
        features.append(found[0])
        upper.append(found[1].mean((0, 2, 3)))
    return torch.cat(features), torch.stack(upper).mean(0)


def _copy_pyramid(new: Parameters, features: torch.Tensor, generator: torch.Generator) -> None:
    """Features that are averages of level 4's, and random ones as strong for the other channels.

    Correlations are products of features: both levels get the strength of level 4's.
    """
    strength = _strength(features)
    copied = WIDTHS[4]
    for level in (5, 6):
        for name, stride in (("a", 2), ("b", 1), ("c", 1)):
            weight = new[f"conv{level}{name}.0.weight"]
            _randomise(weight, 9 * weight.shape[1], generator)
            weight[:copied] = 0
            for channel in range(copied):
                weight[channel, channel] = BLUR if stride == 2 else KEEP
            new[f"conv{level}{name}.0.bias"].zero_()
            found = F.leaky_relu(F.conv2d(features, weight, stride=stride, padding=1), SLOPE)
            weight[copied:] *= _strength(found[:, :copied]) / _strength(found[:, copied:])
            found = F.leaky_relu(F.conv2d(features, weight, stride=stride, padding=1), SLOPE)
            weight *= strength / _strength(found)
            features = found * (strength / _strength(found))
        copied = WIDTHS[level]


def _randomise(weight: torch.Tensor, fan_in: int, generator: torch.Generator) -> None:
    """Weights that keep the strength of what they are applied to (He et al., ICCV 2015)."""
    deviation = np.sqrt(2 / (1 + SLOPE**2) / fan_in)
    weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)


def _strength(features: torch.Tensor) -> torch.Tensor:
    return features.square().mean().sqrt()


def _copy_decoder(old: Parameters, new: Parameters, level: int, upper: torch.Tensor) -> None:
    """Level 4's decoder, of which level 6 has neither features nor anything from above.

    What level 4 got from above was constant and goes into the biases.
    """
    convolutions = [(f"conv4_{i}.0", f"conv{level}_{i}.0", sum(DENSE[:i]), 1.0) for i in range(5)]
    longer = 2.0 ** (level - 4)  # a displacement by one cell, in px
    convolutions.append(("pred_flow4", f"pred_flow{level}", sum(DENSE), longer))
    for source, target, dense, factor in convolutions:
        weight, bias = old[f"{source}.weight"], old[f"{source}.bias"]
        own = dense + MATCHES + (WIDTHS[4] if level == 5 else 0)
        from_above = slice(dense + MATCHES + WIDTHS[4], dense + MATCHES + WIDTHS[4] + UPPER)
        constant = (weight[:, from_above] * upper[:, None, None]).sum((1, 2, 3))
        new[f"{target}.weight"].zero_()
        new[f"{target}.weight"][:, :own] = weight[:, :own] * factor
        new[f"{target}.bias"].copy_((bias + constant) * factor)
    new[f"pred_mask{level}.weight"].zero_()
    new[f"pred_mask{level}.bias"].fill_(MASK_LOGIT)


def _copy_warp(
    old: Parameters, new: Parameters, upper: torch.Tensor, generator: torch.Generator
) -> None:
    """Level 5's deformable convolution as level 4's.

    The features from level 6 are random ones that nothing reads yet: weights of zero for both would
    stay so, as the gradient of each is a product with the other.
    """
    count = WIDTHS[4]
    deform, bias = new["deform5.weight"], new["deform5.bias"]
    deform.zero_()
    bias.zero_()
    deform[:count, :count] = old["deform4.weight"]
    bias[:count] = old["deform4.bias"]
    for channel in range(count, WIDTHS[5]):
        deform[channel, channel] = KEEP
    upfeat = new["upfeat5.0.weight"]
    _randomise(upfeat, 4 * upfeat.shape[0], generator)
    new["upfeat5.0.bias"].zero_()
    new["conv5f.0.weight"].zero_()
    new["conv5f.0.bias"].zero_()
    constant = (old["conv4f.0.weight"] * upper[:, None, None]).sum((1, 2, 3))
    new["conv5f.0.bias"][:count] = old["conv4f.0.bias"] + constant


def _detach_level_4(new: Parameters, upper: torch.Tensor) -> None:
    """Level 4 gets the same constants as before, and does not yet read the flow from above.

    It had only ever seen a flow of zero there: what its weights make of another is chance.
    """
    new["upfeat4.0.weight"].zero_()
    new["upfeat4.0.bias"].copy_(torch.where(upper > 0, upper, upper / SLOPE))
    for name in (*(f"conv4_{i}.0" for i in range(5)), "pred_flow4", "pred_mask4"):
        new[f"{name}.weight"][:, -FLOW:] = 0


def main(arguments: list[str]) -> None:
    parser = Parser(
        prog="python -m engine.coarse_levels",
        description="Begin levels 6 and 5 of MaskFlownet_S anew as copies of level 4; writes a "
        "checkpoint under a new run id.",
    )
    parser.add_argument("-c", "--checkpoint", required=True, help="of either network; its head")
    parser.add_argument("--textures", metavar="DIR", help="pictures of the scenes it measures on")
    add_folder(parser)
    args = parser.parse_args(arguments)
    checkpoint = read_checkpoint(args.checkpoint)
    if checkpoint.record.network == "MaskFlownet":
        checkpoint = checkpoint.head()
    found = restart_coarse_levels(checkpoint, args.textures)
    parent = f"{checkpoint.path.stem}, coarse levels begun anew"
    save_derived(args.folder, found.parameters, found.record, parent)


if __name__ == "__main__":
    sys.exit(run(main))
