"""Errors on labelled pairs of one or several checkpoints and of OpenCV's DIS, as a markdown table.

    python -m maskflownet.benchmarks.pairs CONFIG -c CHECKPOINT [-c CHECKPOINT] ROOT [ROOT ...] [--pictures DIR]

A ROOT is a folder as `--data_root pairs=` takes it. EPE is the mean over valid pixels, Fl the share of those with an
error above 3 px and above 5 %. Where a pair has an occlusion file: the average precision (AP) with which 1 - learned
mask and 1 - confidence of the forward-backward check find what it marks. In brackets the AP where pixels that the
true flow leads out of the picture count as occluded, too: the file may leave them out (MPI Sintel's does). The last
rows are means over the pairs that have the value.

With --pictures a picture of each pair: both frames, true flow and visibility, and below them, for each method, flow,
error, mask and confidence.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.engine.contract import ConfidentPrediction
from maskflownet.errors import UserError
from maskflownet.inference.confidence import average_precision, consistency, look_up
from maskflownet.inference.metrics import end_point_error, means, measure, plane, valid_pixels
from maskflownet.inference.predictor import load
from maskflownet.reader.colour import flow_to_colour
from maskflownet.reader.formats import write_image
from maskflownet.reader.pairs import Pairs
from maskflownet.report.pictures import error_to_colour
from maskflownet.settings.cli import Parser, add_devices, add_sizing, run

WIDTH, LINE, GAP = 512, 26, 6  # px: of a picture, height of its name, space between pictures


class Row(NamedTuple):
    """A line of the table."""

    pair: str
    method: str
    # EPE (px), Fl, share of occluded pixels, AP of the mask, the same with pixels that leave, AP of the check, the same
    values: np.ndarray  # (7,), NaN where the pair or the method has none


def dis(image_1: np.ndarray, image_2: np.ndarray) -> ConfidentPrediction:
    """OpenCV's DIS flow (Kroeger et al., ECCV 2016), preset medium, with its confidence."""
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image_1, image_2)]
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = [method.calc(*there, None) for there in (greys, greys[::-1])]
    return ConfidentPrediction(flows[0], None, None, consistency(*flows).confidence[..., None])


def measured(prediction, sample, occlusion) -> np.ndarray:
    """The `values` of a Row."""
    of_flow = means(measure(prediction.flow, sample.flow, sample.mask))
    values = np.full(7, np.nan)
    values[:2] = of_flow["epe"], of_flow["fl"]
    if occlusion is not None:
        valid, occluded = valid_pixels(sample.flow, sample.mask), plane(occlusion)
        _, inside = look_up(sample.flow, np.where(valid[..., None], sample.flow, 0))
        values[2] = occluded[valid].mean()
        for i, visible in ((3, prediction.mask), (5, prediction.confidence)):
            if visible is not None:
                truths = (occluded, occluded | ~inside)
                values[i : i + 2] = [average_precision(-visible[..., 0][valid], truth[valid]) for truth in truths]
    return values


def table(rows: list[Row]) -> str:
    """The rows, and a mean for each method."""
    with_occlusion = any(not np.isnan(row.values[2]) for row in rows)
    heads = ["pair", "method", "EPE, px", "Fl, %"]
    heads += ["occluded, %", "AP of the mask", "AP of forward-backward"] if with_occlusion else []
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    lines += [[row.pair, row.method, *_cells(row.values, with_occlusion)] for row in rows]
    for method in dict.fromkeys(row.method for row in rows):
        values = np.array([row.values for row in rows if row.method == method])
        known = ~np.isnan(values)
        mean = np.where(known, values, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
        cells = _cells(mean, with_occlusion)
        for cell, column in ((-2, 4), (-1, 6)) if with_occlusion else ():
            if cells[cell]:
                cells[cell] += f", {known[:, column].sum()} of {len(values)} pairs"
        lines.append([f"mean of {len(values)}", method, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(values: np.ndarray, with_occlusion: bool) -> list[str]:
    epe, fl, occluded, *precisions = values
    cells = [f"{epe:.3f}", f"{100 * fl:.2f}"]
    if with_occlusion:
        cells.append(_number(100 * occluded, 1))
        for value, leaving in (precisions[:2], precisions[2:]):
            cells.append("" if np.isnan(leaving) else f"{_number(value, 3)} ({_number(leaving, 3)})")
    return cells


def _number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def picture(sample, occlusion, predictions: dict[str, ConfidentPrediction]) -> np.ndarray:
    """All there is to see of a pair, see above: (h, w, 3) uint8 RGB."""
    valid = valid_pixels(sample.flow, sample.mask)
    label = np.where(valid[..., None], sample.flow, 0)
    scale = float(end_point_error(label, 0).max()) or 1.0
    rows = [
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


def grey(values: np.ndarray) -> np.ndarray:
    """Draw (H, W) or (H, W, 1) in [0, 1] as (H, W, 3) uint8, 1 is white."""
    picture = np.rint(255 * np.clip(values.reshape(values.shape[:2]), 0, 1)).astype(np.uint8)
    return np.repeat(picture[..., None], 3, axis=2)


def panels(rows: Sequence[Sequence[tuple[str, np.ndarray] | None]], width: int) -> np.ndarray:
    """Arrange named pictures, (H, W, 3) uint8 RGB of one size, in rows of equal length; None leaves a place empty.

    Each is `width` px wide in the result.
    """
    first = next(panel for row in rows for panel in row if panel is not None)[1]
    height = round(first.shape[0] * width / first.shape[1])
    lines = []
    for row in rows:
        line = np.full((height + LINE + GAP, len(row) * (width + GAP), 3), 255, np.uint8)
        for i, panel in enumerate(row):
            if panel is None:
                continue
            name, drawn = panel
            left = i * (width + GAP)
            how = cv2.INTER_AREA if drawn.shape[1] > width else cv2.INTER_CUBIC
            line[LINE : LINE + height, left : left + width] = cv2.resize(drawn, (width, height), interpolation=how)
            font = cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(line, name, (left + 2, LINE - 8), font, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        lines.append(line)
    return np.vstack(lines)[:-GAP, :-GAP]


def methods_of(args) -> dict[str, Callable[[np.ndarray, np.ndarray], ConfidentPrediction]]:
    """The methods to compare by name, each from two images to a prediction."""
    methods: dict = {}
    options = {"resize": args.resize, "pad": args.pad, "engine": args.engine, "precision": args.precision}
    for checkpoint in args.checkpoint:
        stem = Path(checkpoint).stem
        predictor = load(args.config, checkpoint, args.gpus, **options)
        methods[checkpoint if stem in methods else stem] = lambda *images, of=predictor: of(*images, confidence=True)
    return {**methods, "OpenCV DIS": dis}


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
    sets = {Path(root).resolve().name: Pairs(root) for root in args.roots}
    if len(sets) < len(args.roots):
        raise UserError(f"two of {', '.join(args.roots)} have the same name")
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    methods = methods_of(args)
    rows = []
    for title, pairs in sets.items():
        for i in range(len(pairs)):
            sample, occlusion = pairs[i], pairs.occlusion(i)
            name = f"{title}/{sample.name}"
            predictions = {key: method(sample.img1, sample.img2) for key, method in methods.items()}
            rows += [Row(name, key, measured(found, sample, occlusion)) for key, found in predictions.items()]
            if args.pictures is not None:
                path = args.pictures / f"{name.replace('/', '_')}.jpg"
                write_image(path, picture(sample, occlusion, predictions))
    print(table(rows))


if __name__ == "__main__":
    sys.exit(run(main))
