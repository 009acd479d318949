"""What each level of the decoder contributes: end-point error of the five flows, coarse to fine.

    python -m benchmarks.levels CONFIG -c CHECKPOINT [-c CHECKPOINT] [--motion 2] [--count 16]

On held-out synthetic scenes of fast motion. A level whose flow is as wrong as a flow of zero has
not begun to match: motions beyond the reach of the finer ones are lost. Beside it the error of the
true flow averaged over the level's cells, which no flow of that resolution undercuts by much. Needs
PyTorch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from engine.checkpoint import HEAD
from engine.cli import Parser, count, run
from engine.config import load_network_config
from engine.errors import UserError
from engine.graphs import graph_of
from engine.loading import read_checkpoint
from engine.metrics import end_point_error
from engine.torch_devices import devices
from engine.torch_graph.module import GraphModule
from engine.torch_prediction import centred, to_float
from reader.scene_options import SceneOptions
from reader.synthetic import Synthetic

LEVELS = (6, 5, 4, 3, 2)
SIZE = (384, 512)  # px, multiples of 64
SEED = 7654321


def load(config, name: str, device: torch.device) -> tuple[GraphModule, str]:
    """The network of a checkpoint, and the order of its colours."""
    checkpoint = read_checkpoint(name)
    record, kind = checkpoint.record, config.network.class_
    graph = graph_of(
        "network",
        network=kind,
        flow_multiplier=config.network.flow_multiplier,
        pyramid=record.pyramid if kind == "MaskFlownet" else "paper",
    )
    prefix = HEAD if (kind, record.network) == ("MaskFlownet_S", "MaskFlownet") else ""
    module = GraphModule(graph)
    arrays = {n: checkpoint.parameters.get(prefix + n) for n in module.state_dict()}
    missing = [n for n, array in arrays.items() if array is None]
    if missing:
        raise UserError(f"{checkpoint.path} is no checkpoint of {kind}: it has no {missing[0]}")
    tensors = {n: torch.from_numpy(array.astype(np.float32)) for n, array in arrays.items()}
    module.load_state_dict(tensors)
    return module.to(device), record.colour


def flows(network: GraphModule, colour: str, scene, device: torch.device) -> list[np.ndarray]:
    """The five flows of a scene at its size, (H, W, 2), px, (u, v); enlarged as by the network."""
    images = [torch.from_numpy(image[None]).to(device) for image in (scene.img1, scene.img2)]
    with torch.no_grad():
        outputs = network(*centred([to_float(image) for image in images], colour))[: len(LEVELS)]
    arrays = [output[0].flip(0).permute(1, 2, 0).cpu().numpy() for output in outputs]
    return [enlarged(array) for array in arrays]


def enlarged(flow: np.ndarray) -> np.ndarray:
    """Bilinear, aligned to the first sample, the edge held."""
    for axis, size in enumerate(SIZE):
        count = flow.shape[axis]
        place = np.arange(size) * (count / size)
        low = place.astype(int)
        high = np.minimum(low + 1, count - 1)
        share = np.expand_dims(place - low, tuple(i for i in range(3) if i != axis))
        flow = flow.take(low, axis) * (1 - share) + flow.take(high, axis) * share
    return flow


def reduced(flow: np.ndarray, level: int) -> np.ndarray:
    """The mean flow of a level's cells, enlarged again from their centres."""
    size = tuple(side // 2**level for side in SIZE[::-1])
    cells = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(cells, SIZE[::-1], interpolation=cv2.INTER_LINEAR)


def main(arguments):
    parser = Parser(prog="levels.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("config", metavar="CONFIG", help="network config, such as MaskFlownet_S")
    add("-c", "--checkpoint", action="append", required=True, help="may be given several times")
    add("--motion", type=float, default=2.0, help="motion_scale of the scenes (default 2)")
    add("--count", type=count, default=16, metavar="N", help="scenes (default 16)")
    add("--textures", metavar="DIR", help="pictures (default: those that scikit-image ships)")
    add("-g", "--gpus", default="", metavar="ID", help="a GPU; default: the CPU")
    args = parser.parse_args(arguments)
    config, (device, *_) = load_network_config(args.config), devices(args.gpus)
    options = SceneOptions(motion_scale=args.motion)
    scenes = Synthetic(args.count, *SIZE, SEED, args.textures, options)
    loaded = {name: load(config, name, device) for name in dict.fromkeys(args.checkpoint)}
    errors: dict = {name: [] for name in ("zero", "true", *loaded)}
    for i in tqdm(range(len(scenes)), unit="scene", disable=None):
        scene = scenes.scene(i)
        found = {
            "zero": [np.zeros_like(scene.flow)] * len(LEVELS),
            "true": [reduced(scene.flow, level) for level in LEVELS],
        }
        for name, (network, colour) in loaded.items():
            found[name] = flows(network, colour, scene, device)
        for name, fields in found.items():
            errors[name].append([end_point_error(field, scene.flow).mean() for field in fields])
    names = [Path(name).stem for name in loaded]
    print(
        f"| level (cell, px) | a flow of zero | the true flow of the cells | {' | '.join(names)} |"
    )
    print(f"| --- | {' | '.join(['---:'] * (2 + len(names)))} |")
    means = np.array([np.mean(values, axis=0) for values in errors.values()]).T
    for level, row in zip(LEVELS, means):
        print(f"| {level} ({2**level}) | {' | '.join(f'{value:.2f}' for value in row)} |")


if __name__ == "__main__":
    sys.exit(run(main))
