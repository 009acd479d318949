"""Errors on labelled pairs of one or several checkpoints and of OpenCV's DIS, as a markdown table.

    python -m maskflownet.benchmarks.pairs CONFIG [-c CHECKPOINT [-c CHECKPOINT ...]] ROOT [ROOT ...]

A ROOT is a folder as `--data_root pairs=` takes it. EPE is the mean over valid pixels, Fl the share of those with an
error above 3 px and above 5 %. Where a pair has an occlusion file: the average precision (AP) with which 1 - learned
mask and 1 - confidence of the forward-backward check find what it marks. The last rows are means over the pairs that
have the value. `main.py --valid --report` draws the pairs.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from maskflownet.engine.contract import ConfidentPrediction
from maskflownet.errors import UserError
from maskflownet.inference.confidence import consistency, measure_confidence
from maskflownet.inference.metrics import means, measure
from maskflownet.inference.predictor import load
from maskflownet.reader.pairs import Pairs
from maskflownet.settings.cli import Parser, add_devices, add_sizing, run
from maskflownet.settings.folders import SHIPPED

MEASURES = ("epe", "fl", "occluded", "ap_mask", "ap_confidence")  # px; shares; of the mask and of the check


def dis(image_1: np.ndarray, image_2: np.ndarray) -> ConfidentPrediction:
    """OpenCV's DIS flow (Kroeger et al., ECCV 2016), preset medium, with its confidence."""
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image_1, image_2)]
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = [method.calc(*there, None) for there in (greys, greys[::-1])]
    return ConfidentPrediction(flows[0], None, None, consistency(*flows)[..., None])


def table(rows: dict[tuple[str, str], np.ndarray]) -> str:
    """The `MEASURES` by pair and method, and their means for each method; NaN is an empty cell."""
    heads, columns = ["pair", "method", "EPE, px", "Fl, %"], 2
    if any(values[2] >= 0 for values in rows.values()):
        heads, columns = [*heads, "occluded, %", "AP of the mask", "AP of forward-backward"], 5
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    lines += [[*names, *cells(values[:columns])] for names, values in rows.items()]
    for method in dict.fromkeys(method for _, method in rows):
        values = np.array([values for (_, of), values in rows.items() if of == method])[:, :columns]
        known = (~np.isnan(values)).sum(axis=0)
        mean = cells([column[~np.isnan(column)].mean() if n else np.nan for n, column in zip(known, values.T)])
        for i, n in zip((3, 4), known[3:]):
            mean[i] += f", {n} of {len(values)} pairs" if mean[i] else ""
        lines.append([f"mean of {len(values)}", method, *mean])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(values) -> list[str]:
    forms = (lambda epe: f"{epe:.3f}", lambda fl: f"{100 * fl:.2f}", lambda share: f"{100 * share:.1f}")
    texts = [form(value) for form, value in zip(forms, values)] + [f"{precision:.3f}" for precision in values[3:]]
    return [text.replace("nan", "") for text in texts]


def methods_of(args) -> dict[str, Callable[[np.ndarray, np.ndarray], ConfidentPrediction]]:
    """The methods to compare by name, each from two images to a prediction."""
    methods, options = {}, {name: getattr(args, name) for name in ("resize", "pad", "engine", "precision")}
    for checkpoint in args.checkpoint or [SHIPPED]:
        stem = Path(checkpoint).stem
        predictor = load(args.config, checkpoint, args.gpus, **options)
        methods[checkpoint if stem in methods else stem] = lambda *images, of=predictor: of(*images, confidence=True)
    return {**methods, "OpenCV DIS": dis}


def main(arguments):
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("config", metavar="CONFIG", help="network config, such as MaskFlownet_S")
    add("roots", nargs="+", metavar="ROOT", help="folder of pairs with their flow")
    add("-c", "--checkpoint", action="append", help="may be given several times (default: the shipped weights)")
    add_sizing(parser)
    add_devices(parser)
    args = parser.parse_args(arguments)
    sets = {Path(root).resolve().name: Pairs(root) for root in args.roots}
    if len(sets) < len(args.roots):
        raise UserError(f"two of {', '.join(args.roots)} have the same name")
    methods = methods_of(args)
    rows = {}
    for title, pairs in sets.items():
        for i in range(len(pairs)):
            sample, occlusion, _ = pairs.labelled(i)
            truth = sample.flow, sample.mask, occlusion
            for key, method in methods.items():
                prediction = method(sample.img1, sample.img2)
                found = means(measure(prediction.flow, *truth) | measure_confidence(prediction, *truth))
                rows[f"{title}/{sample.name}", key] = np.array([found.get(name, np.nan) for name in MEASURES])
    print(table(rows))


if __name__ == "__main__":
    sys.exit(run(main))
