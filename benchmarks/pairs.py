"""Errors on labelled pairs of one or several checkpoints and of OpenCV's DIS, as a markdown table.

    python -m maskflownet.benchmarks.pairs CONFIG -c CHECKPOINT [-c CHECKPOINT] ROOT [ROOT ...] [--pictures DIR]

A ROOT is a folder as `--data_root pairs=` takes it. EPE is the mean over valid pixels, Fl the share
of those with an error above 3 px and above 5 %. Where a pair has an occlusion file, the average
precision with which 1 - learned mask and 1 - confidence of the forward-backward check find what it
marks; in brackets where pixels that the true flow leads out of the picture are counted as occluded,
too, which that file may leave out (MPI Sintel's does).

With --pictures a picture of each pair: both frames, ground truth and occlusion, and below them, for
each method, flow, error, mask and confidence.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.benchmarks.panels import grey, longest, panels
from maskflownet.engine.contract import ConfidentPrediction
from maskflownet.errors import DataError
from maskflownet.inference.confidence import average_precision, consistency, look_up
from maskflownet.inference.metrics import end_point_error, means, measure, plane, valid_pixels
from maskflownet.inference.predictor import Predictor
from maskflownet.reader.colour import flow_to_colour
from maskflownet.reader.pairs import Pairs
from maskflownet.reader.pictures import write_image
from maskflownet.report.pictures import error_to_colour
from maskflownet.settings.cli import Parser, add_devices, add_sizing, run

WIDTH = 512  # px of a picture


class Row(NamedTuple):
    """A line of the table; NaN where a pair or a method has no such value."""

    pair: str
    method: str
    epe: float  # px
    fl: float  # share
    occluded: float = float("nan")  # share
    mask: float = float("nan")  # average precision, as the next three
    check: float = float("nan")
    mask_leaving: float = float("nan")
    check_leaving: float = float("nan")


def dis(image_1: np.ndarray, image_2: np.ndarray) -> ConfidentPrediction:
    """OpenCV's DIS flow (Kroeger et al., ECCV 2016), preset medium, with its confidence."""
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image_1, image_2)]
    flows = []
    for there in (greys, greys[::-1]):
        method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flows.append(method.calc(*there, None))
    return ConfidentPrediction(flows[0], None, None, consistency(*flows).confidence[..., None])


def measured(name: str, method: str, prediction, sample, occlusion) -> Row:
    measures = means(measure(prediction.flow, sample.flow, sample.mask))
    row = Row(name, method, measures["epe"], measures["fl"])
    if occlusion is None:
        return row
    valid = valid_pixels(sample.flow, sample.mask)
    occluded = plane(occlusion)
    _, inside = look_up(sample.flow, np.where(valid[..., None], sample.flow, 0))
    found = []
    for truth in (occluded, occluded | ~inside):
        for visible in (prediction.mask, prediction.confidence):
            found.append(float("nan") if visible is None else average_precision(-visible[..., 0][valid], truth[valid]))
    return Row(*row[:4], occluded[valid].mean(), *found)


def over_pairs(rows: list[Row], method: str) -> Row:
    """Means of a method over the pairs that have the value."""
    of_method = [row[2:] for row in rows if row.method == method]
    values = []
    for column in zip(*of_method):
        known = [value for value in column if not np.isnan(value)]
        values.append(float(np.mean(known)) if known else float("nan"))
    return Row(f"mean of {len(of_method)}", method, *values)


def table(rows: list[Row]) -> str:
    heads = ["pair", "method", "EPE, px", "Fl, %"]
    with_occlusion = any(not np.isnan(row.occluded) for row in rows)
    if with_occlusion:
        heads += ["occluded, %", "AP of the mask", "AP of forward-backward"]
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    for row in rows:
        cells = [row.pair, row.method, f"{row.epe:.3f}", f"{100 * row.fl:.2f}"]
        if with_occlusion:
            cells.append(_number(100 * row.occluded, 1))
            for value, leaving in ((row.mask, row.mask_leaving), (row.check, row.check_leaving)):
                both = f"{_number(value, 3)} ({_number(leaving, 3)})"
                cells.append("" if np.isnan(leaving) else both)
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def picture(sample, occlusion, predictions: dict[str, ConfidentPrediction]) -> np.ndarray:
    """All there is to see of a pair, see above."""
    valid = valid_pixels(sample.flow, sample.mask)
    label = np.where(valid[..., None], sample.flow, 0)
    scale = longest(label)
    rows: list[list] = [
        [
            ("frame 1", sample.img1),
            ("frame 2", sample.img2),
            (f"true flow, up to {scale:.1f} px", flow_to_colour(label, scale, valid)),
            None if occlusion is None else ("true visibility", grey(~plane(occlusion))),
        ]
    ]
    for name, found in predictions.items():
        error = end_point_error(found.flow, label)
        epe = error[valid].mean() if valid.any() else float("nan")
        rows.append(
            [
                (f"{name}: flow", flow_to_colour(found.flow, scale)),
                (f"error, EPE {epe:.2f} px", error_to_colour(error, valid)),
                None if found.mask is None else ("learned mask", grey(found.mask)),
                ("forward-backward confidence", grey(found.confidence)),
            ]
        )
    return panels(rows, WIDTH)


def methods_of(args) -> dict[str, Callable[[np.ndarray, np.ndarray], ConfidentPrediction]]:
    """The methods to compare by name, each from two images to a prediction."""
    methods: dict = {}
    for checkpoint in args.checkpoint:
        stem = Path(checkpoint).stem
        predictor = Predictor.load(
            args.config, checkpoint, args.gpus, args.resize, args.pad, engine=args.engine, precision=args.precision
        )
        methods[checkpoint if stem in methods else stem] = lambda *images, of=predictor: of(*images, confidence=True)
    methods["OpenCV DIS"] = dis
    return methods


def main(arguments):
    parser = Parser(prog="pairs.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("config", metavar="CONFIG", help="network config, such as MaskFlownet_S")
    add("roots", nargs="+", metavar="ROOT", help="folder of pairs with their flow")
    add("-c", "--checkpoint", action="append", required=True, help="may be given several times")
    add("--pictures", type=Path, metavar="DIR", help="folder for a picture of each pair")
    add_sizing(parser)
    add_devices(parser)
    args = parser.parse_args(arguments)
    sets = {Path(root).resolve().name: Pairs(root, need_flow=True) for root in args.roots}
    if len(sets) < len(args.roots):
        raise DataError(f"two of {', '.join(args.roots)} have the same name")
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    methods = methods_of(args)
    rows = []
    for title, pairs in sets.items():
        for i in range(len(pairs)):
            sample, occlusion = pairs[i], pairs.occlusion(i)
            name = f"{title}/{sample.name}"
            predictions = {key: method(sample.img1, sample.img2) for key, method in methods.items()}
            rows += [measured(name, *item, sample, occlusion) for item in predictions.items()]
            if args.pictures is not None:
                path = args.pictures / f"{name.replace('/', '_')}.jpg"
                write_image(path, picture(sample, occlusion, predictions))
    print(table(rows + [over_pairs(rows, method) for method in methods]))


if __name__ == "__main__":
    sys.exit(run(main))
