"""Errors of one or several checkpoints on synthetic scenes kind by kind, as a markdown table.

    python -m maskflownet.benchmarks.scene_kinds CONFIG -c CHECKPOINT [-c CHECKPOINT] [--textures DIR]

A kind turns one difficulty of the scenes up (and what lets it show) and leaves the others at their defaults, so that
the table says what a training set lacks. All kinds have the same seed, one that no config trains on. EPE is the mean
over images of each image's mean over its pixels. Behind that of every further checkpoint stands the standard error of
its difference from the first one's over the images: a difference that is not well above it is luck.
"""

import sys
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from maskflownet.errors import UserError, nearest
from maskflownet.inference.metrics import end_point_error
from maskflownet.inference.predictor import Predictor, load
from maskflownet.scenes.draw import SceneOptions
from maskflownet.scenes.synthetic import Synthetic
from maskflownet.settings.cli import Parser, add_devices, count, height_width, run, whole_number
from tqdm import tqdm

KINDS = {
    "standard": SceneOptions(),
    "large motion": SceneOptions(motion_scale=2.5),
    "small motion": SceneOptions(small_motion_share=1),
    "thin": SceneOptions(thin_share=1, min_objects=6),
    "deforming": SceneOptions(deformation=3),
    "turning": SceneOptions(rotation=3),
    "zooming": SceneOptions(zoom=4),
    "lighting": SceneOptions(photometric=2.5),
    "noise": SceneOptions(noise=12),
    "motion blur": SceneOptions(motion_blur_share=1),
    "out of focus": SceneOptions(defocus_share=1),
    "fog": SceneOptions(fog_share=1),
    "crowded": SceneOptions(min_objects=15, max_objects=20),
    "travelling": SceneOptions(travel_share=1),
    "plain": SceneOptions(plain_share=0.7),
    "darting": SceneOptions(dart_share=0.5, small_motion_share=1),
    "composite": SceneOptions(composite_share=1, min_objects=6),
    "vehicles": SceneOptions(vehicle_share=0.5, small_motion_share=1),
}


def measured(scenes: Iterable, predictors: Collection[Predictor]) -> np.ndarray:
    """(1 + checkpoints, images): each image's mean length of the true flow, px, and EPE of every predictor, px."""
    images = []
    for scene in scenes:
        flows = [np.zeros_like(scene.flow), *(predictor(scene.img1, scene.img2).flow for predictor in predictors)]
        images.append([end_point_error(flow, scene.flow).mean() for flow in flows])
    return np.array(images).T


def table(rows: dict[str, np.ndarray], names: Iterable[str]) -> str:
    """The means of `measured` by kind, and those over all kinds."""
    heads = ["kind", "mean flow, px", *(f"{name}: EPE, px" for name in names)]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    means = {kind: values.mean(axis=1) for kind, values in rows.items()}
    for kind, values in rows.items():
        cells = [f"{mean:.3f}" for mean in means[kind]]
        images = values.shape[1]
        if images > 1:
            errors = (values[2:] - values[1]).std(axis=1, ddof=1) / np.sqrt(images)
            cells[2:] = [f"{cell} ± {error:.3f}" for cell, error in zip(cells[2:], errors)]
        lines.append([kind, *cells])
    whole = np.mean(list(means.values()), axis=0)
    lines.append([f"mean of {len(rows)}", *(f"{mean:.3f}" for mean in whole)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def load_all(args) -> dict[str, Predictor]:
    """The checkpoints by what heads their columns: their names without folder, where unique."""
    given = {checkpoint: Path(checkpoint).stem for checkpoint in args.checkpoint}
    heads = {c: c if list(given.values()).count(stem) > 1 else stem for c, stem in given.items()}
    options = {"engine": args.engine, "precision": args.precision}
    return {head: load(args.config, c, args.gpus, **options) for c, head in heads.items()}


def main(arguments):
    parser = Parser(prog="scene_kinds.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("config", metavar="CONFIG", help="network config, such as MaskFlownet_S")
    add("-c", "--checkpoint", action="append", required=True, help="may be given several times")
    add("--count", type=count, default=12, metavar="N", help="scenes of a kind (default 12)")
    add("--size", type=height_width, default=(384, 512), metavar="H,W", help="of the scenes, px (default 384,512)")
    add("--seed", type=whole_number, default=1234567, help="of all kinds (default 1234567)")
    add("--textures", metavar="DIR", help="pictures (default: those that scikit-image ships)")
    add("--kinds", metavar="NAMES", help=f"comma-separated, of: {', '.join(KINDS)} (default: all)")
    add_devices(parser)
    args = parser.parse_args(arguments)
    kinds = list(KINDS) if args.kinds is None else [name.strip() for name in args.kinds.split(",")]
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"no kind {kind!r}{nearest(kind, KINDS)}: there are {', '.join(KINDS)}")
    sets = {kind: Synthetic(args.count, *args.size, args.seed, args.textures, KINDS[kind]) for kind in kinds}
    predictors = load_all(args)
    rows = {}
    for kind, scenes in sets.items():
        numbers = tqdm(range(args.count), kind, leave=False, unit="scene", disable=None)
        rows[kind] = measured(map(scenes.scene, numbers), predictors.values())
    print(table(rows, predictors))


if __name__ == "__main__":
    sys.exit(run(main))
