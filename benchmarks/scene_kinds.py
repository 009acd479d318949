"""Errors of one or several checkpoints on synthetic scenes kind by kind, as a markdown table.

    python -m maskflownet.benchmarks.scene_kinds CONFIG -c CHECKPOINT [-c CHECKPOINT] [--textures DIR]

A kind turns one difficulty of the scenes up (and what lets it show) and leaves the others at their defaults, so that
the table says what a training set lacks. All kinds have the same seed, one that no config trains on. EPE is the mean
over images of each image's mean over its pixels; also in % of the mean flow length, and over the pixels that the
second image shows. For every further checkpoint the table says by how much its EPE differs from the first one's, with
the standard error of that difference over the images: what is not well above it is luck.
"""

import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.errors import UserError, nearest
from maskflownet.inference.metrics import end_point_error, measure, summarise
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


class Row(NamedTuple):
    """A line of the table."""

    kind: str
    length: float  # px, of the true flow
    errors: np.ndarray  # (3, checkpoints): EPE in px, in % of the length, px where visible
    differences: np.ndarray  # (checkpoints, images): px, each image's EPE less that of the first checkpoint

    def changes(self) -> np.ndarray:
        """(2, checkpoints): the differences' mean and its standard error, NaN of one image."""
        images = self.differences.shape[1]
        spread = self.differences.std(axis=1, ddof=1) if images > 1 else np.full(len(self.differences), np.nan)
        return np.array([self.differences.mean(axis=1), spread / np.sqrt(images)])


def measured(kind: str, scenes: Iterable, predictors: Collection[Predictor]) -> Row:
    """The errors of every predictor on the same scenes."""
    images, lengths = [[] for _ in predictors], []
    for scene in scenes:
        lengths.append(end_point_error(scene.flow, 0).mean())
        for own, predictor in zip(images, predictors):
            own.append(measure(predictor(scene.img1, scene.img2).flow, scene.flow, occlusion=scene.occlusion))
    length = float(np.mean(lengths))
    errors = [(total["epe"], 100 * total["epe"] / length, total["matched"]) for total in map(summarise, images)]
    return Row(kind, length, np.array(errors).T, differences(images))


def differences(images: list[list[dict]]) -> np.ndarray:
    """(checkpoints, images): each image's EPE less that of the first checkpoint."""
    sums, counts = np.array([[image["epe"] for image in own] for own in images]).transpose(2, 0, 1)
    means = sums / counts
    return means - means[0]


def over_kinds(rows: list[Row]) -> Row:
    """Every column's mean, all kinds counting the same."""
    # Images of the same number have the same seed in all kinds, and in some (standard, noise) the same layers and
    # motions: only their means over the kinds are independent of each other.
    length, errors, changes = (np.mean(column, axis=0) for column in list(zip(*rows))[1:])
    return Row(f"mean of {len(rows)}", float(length), errors, changes)


def table(rows: list[Row], names: Iterable[str]) -> str:
    heads = ["kind", "mean flow, px"]
    for number, name in enumerate(names):
        heads += [f"{name}: EPE, px", "% of the flow", "EPE where visible, px"]
        if number:
            heads.append(f"{name} less the first, px")
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in rows:
        changes = row.changes()
        cells = [row.kind, f"{row.length:.2f}"]
        for number, (epe, share, visible) in enumerate(row.errors.T):
            cells += [f"{epe:.3f}", f"{share:.1f}", f"{visible:.3f}"]
            if number:
                change, error = changes[:, number]
                cells.append(f"{change:+.3f}" + ("" if np.isnan(error) else f" ± {error:.3f}"))
        lines.append(cells)
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
    rows = []
    for kind, scenes in sets.items():
        numbers = tqdm(range(args.count), kind, leave=False, unit="scene", disable=None)
        rows.append(measured(kind, map(scenes.scene, numbers), predictors.values()))
    print(table([*rows, over_kinds(rows)], predictors))


if __name__ == "__main__":
    sys.exit(run(main))
