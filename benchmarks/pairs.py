"""Errors on labelled pairs of one or several checkpoints and of OpenCV's DIS, as a markdown table.

    python -m maskflownet.benchmarks.pairs CONFIG -c CHECKPOINT [-c CHECKPOINT] ROOT [ROOT ...] [--pictures DIR]

A ROOT is a folder as `--data_root pairs=` takes it. EPE is the mean over valid pixels, Fl the share of those with an
error above 3 px and above 5 %. Where a pair has an occlusion file: the average precision (AP) with which 1 - learned
mask and 1 - confidence of the forward-backward check find what it marks. In brackets the AP where pixels that the
true flow leads out of the picture count as occluded, too: the file may leave them out (MPI Sintel's does). The last
rows are means over the pairs that have the value.

With --pictures a picture of each pair: a row for each method with both frames, flow, true flow, error, learned mask,
true visibility and the confidence of the forward-backward check. With --flows the first checkpoint's flows are kept in
a file or, where it exists, compared with it: what another engine or precision changes, on another machine, too.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from maskflownet.engine.contract import ConfidentPrediction
from maskflownet.errors import UserError
from maskflownet.inference.confidence import average_precision, consistency, look_up
from maskflownet.inference.metrics import Labelled, Measured, means, measure, plane, valid_pixels
from maskflownet.inference.predictor import load
from maskflownet.reader.formats import write_image
from maskflownet.reader.pairs import Pairs
from maskflownet.report.pictures import TITLES, draw_views
from maskflownet.settings.cli import Parser, add_devices, add_sizing, run

WIDTH, LINE, GAP = 512, 26, 6  # px: of a picture at most, height of its name, space between pictures
COLUMNS = {"frame": "First frame", "second": "Second frame", **TITLES}


def dis(image_1: np.ndarray, image_2: np.ndarray) -> ConfidentPrediction:
    """OpenCV's DIS flow (Kroeger et al., ECCV 2016), preset medium, with its confidence."""
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image_1, image_2)]
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = [method.calc(*there, None) for there in (greys, greys[::-1])]
    return ConfidentPrediction(flows[0], None, None, consistency(*flows).confidence[..., None])


def measured(prediction, sample, occlusion) -> np.ndarray:
    """EPE (px), Fl, share of occluded pixels, AP of the mask and with pixels that leave, the two of the check.

    (7,), NaN where the pair or the method has none.
    """
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


def table(rows: dict[tuple[str, str], np.ndarray]) -> str:
    """The values of `measured` by pair and method, and their means for each method."""
    heads, columns = ["pair", "method", "EPE, px", "Fl, %"], 2
    if any(values[2] >= 0 for values in rows.values()):
        heads, columns = [*heads, "occluded, %", "AP of the mask", "AP of forward-backward"], 7
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    lines += [[*names, *cells(values[:columns])] for names, values in rows.items()]
    for method in dict.fromkeys(method for _, method in rows):
        values = np.array([values for (_, of), values in rows.items() if of == method])[:, :columns]
        known = (~np.isnan(values)).sum(axis=0)
        mean = cells([column[~np.isnan(column)].mean() if n else np.nan for n, column in zip(known, values.T)])
        for i, n in zip((3, 4), known[4::2]):
            mean[i] += f", {n} of {len(values)} pairs" if mean[i] else ""
        lines.append([f"mean of {len(values)}", method, *mean])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(values) -> list[str]:
    epe, fl, *others = values
    number = [f"{epe:.3f}", f"{100 * fl:.2f}", *(f"{100 * share:.1f}" for share in others[:1])]
    precisions = [f"{ap:.3f} ({leaving:.3f})" for ap, leaving in zip(others[1::2], others[2::2])]
    return [cell.replace("nan (nan)", "").replace("nan", "") for cell in (*number, *precisions)]


def picture(pair: Labelled, predictions: dict[str, ConfidentPrediction]) -> np.ndarray:
    """All there is to see of a pair, see above: (h, w, 3) uint8 RGB."""
    rows = []
    for method, found in predictions.items():
        drawn = draw_views(pair, Measured({}, found), WIDTH).pictures
        height, width = drawn["frame"].shape[:2]
        drawn["second"] = cv2.resize(pair.sample.img2, (width, height), interpolation=cv2.INTER_AREA)
        row = np.full((LINE + height + GAP, len(COLUMNS) * (width + GAP), 3), 255, np.uint8)
        for i, (name, title) in enumerate(COLUMNS.items()):
            if name in drawn:
                left, view = i * (width + GAP), np.atleast_3d(drawn[name])
                row[LINE : LINE + height, left : left + width] = view
                text = f"{method}: {title}" if name == "flow" else title
                cv2.putText(row, text, (left + 2, LINE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        rows.append(row)
    return np.vstack(rows)


def compare(path: Path, flows: dict[str, np.ndarray]) -> str:
    """Write the flows of all pairs, or say how far they are from those that are there."""
    if not path.exists():
        with path.open("wb") as file:
            np.savez_compressed(file, **flows)
        return f"wrote {path}"
    with np.load(path) as kept:
        if kept.files != list(flows):
            raise UserError(f"{path} holds the flows of other pairs")
        return f"largest difference from {path}: {max(abs(flows[n] - kept[n]).max() for n in flows):.1e} px"


def methods_of(args) -> dict[str, Callable[[np.ndarray, np.ndarray], ConfidentPrediction]]:
    """The methods to compare by name, each from two images to a prediction."""
    methods, options = {}, {name: getattr(args, name) for name in ("resize", "pad", "engine", "precision")}
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
    add("--flows", type=Path, metavar="FILE.npz", help="flows of the first checkpoint, to keep or to compare with")
    add_sizing(parser)
    add_devices(parser)
    args = parser.parse_args(arguments)
    sets = {Path(root).resolve().name: Pairs(root) for root in args.roots}
    if len(sets) < len(args.roots):
        raise UserError(f"two of {', '.join(args.roots)} have the same name")
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    methods = methods_of(args)
    rows, flows = {}, {}
    for title, pairs in sets.items():
        for i in range(len(pairs)):
            sample, occlusion = pairs[i], pairs.occlusion(i)
            name = f"{title}/{sample.name}"
            predictions = {key: method(sample.img1, sample.img2) for key, method in methods.items()}
            rows.update({(name, key): measured(found, sample, occlusion) for key, found in predictions.items()})
            if args.flows is not None:
                flows[name] = next(iter(predictions.values())).flow
            if args.pictures is not None:
                path = args.pictures / f"{name.replace('/', '_')}.jpg"
                write_image(path, picture(Labelled(sample, occlusion, None), predictions))
    print(table(rows))
    if args.flows is not None:
        print(compare(args.flows, flows))


if __name__ == "__main__":
    sys.exit(run(main))
