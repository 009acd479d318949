"""The demo of `make demo`: flow of the example pair, drawn beside the true one, and its EPE.

python -m maskflownet.examples.demo CONFIG [-c CHECKPOINT] [-o PICTURE]
"""

import sys
import time
from pathlib import Path

import numpy as np
from maskflownet.inference.metrics import end_point_error
from maskflownet.inference.predictor import load
from maskflownet.reader.colour import flow_to_colour
from maskflownet.reader.formats import read_flow, read_image, write_image
from maskflownet.settings.cli import Parser, add_checkpoint, add_config, add_devices, run
from maskflownet.settings.folders import FLOWS

HERE = Path(__file__).resolve().parent


def main(arguments):
    parser = Parser(description=__doc__.splitlines()[0])
    add_config(parser)
    add_checkpoint(parser)
    add_devices(parser)
    parser.add_argument("-o", "--output", default=FLOWS / "demo.png", type=Path, help="(default: flows/demo.png)")
    args = parser.parse_args(arguments)
    image_1, image_2 = (read_image(HERE / f"example_{i}.png") for i in (1, 2))
    label, _ = read_flow(HERE / "example_flow.png")
    print("Loading the weights; a pair then takes one to five seconds on two CPU cores.")
    predictor = load(args.config, args.checkpoint, args.gpus, engine=args.engine, precision=args.precision)
    started = time.perf_counter()
    flow, mask, _ = predictor(image_1, image_2)
    seconds = time.perf_counter() - started
    scale = float(np.hypot(label[..., 0], label[..., 1]).max())
    seen = np.rint(mask * 255).astype(np.uint8).repeat(3, axis=2)
    rows = (image_1, flow_to_colour(label, scale)), (seen, flow_to_colour(flow, scale))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_image(args.output, np.vstack([np.hstack(row) for row in rows]))
    error, at_rest = (end_point_error(guess, label).mean() for guess in (flow, np.zeros_like(label)))
    print(
        f"Flow of {label.shape[0]}x{label.shape[1]} px in {seconds:.1f} s: end-point error {error:.2f} px (a flow of "
        f"zero has {at_rest:.2f}).\nSee {args.output}: left the first image and the mask (white = visible in the "
        "second), right the true flow and the predicted one. Hue is the direction, saturation the speed: the "
        "red-orange astronaut moves to the right, the violet rocket up and to the right, the green-blue cup to the "
        "left. By the shipped weights the middle of the rocket is too slow, and the ring is one with the cup."
    )


if __name__ == "__main__":
    sys.exit(run(main))
