"""Confidence and learned mask beside the true occlusion, as a picture and as numbers.

    python -m maskflownet.benchmarks.confidence CONFIG -c CHECKPOINT PAIR [-o docs/confidence.jpg]

PAIR is a folder of one pair with its flow and `occlusions.png`, as MPI Sintel's training pairs have
them. Prints the average precision with which 1 - confidence and 1 - mask find the occluded pixels.
"""

import sys
from pathlib import Path

from maskflownet.benchmarks.panels import grey, longest, panels
from maskflownet.errors import DataError
from maskflownet.inference.confidence import describe_confidence, measure_confidence
from maskflownet.inference.metrics import means, plane
from maskflownet.inference.predictor import Predictor
from maskflownet.reader.colour import flow_to_colour
from maskflownet.reader.pairs import Pairs
from maskflownet.reader.pictures import write_image
from maskflownet.settings.cli import Parser, add_devices, run

WIDTH = 480  # px of each picture


def main(arguments):
    parser = Parser(prog="confidence.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("config", metavar="CONFIG", help="network config, such as MaskFlownet_S")
    add("pair", metavar="PAIR", help="folder of a pair with its flow and occlusions.png")
    add("-c", "--checkpoint", required=True, help="path or run id")
    add("-o", "--output", default="docs/confidence.jpg", type=Path)
    add_devices(parser)
    args = parser.parse_args(arguments)
    pairs = Pairs(args.pair, need_flow=True)
    sample, occlusion = pairs[0], pairs.occlusion(0)
    if occlusion is None or len(pairs) != 1:
        raise DataError(f"{args.pair} is not one pair with an occlusions.png")
    predictor = Predictor.load(args.config, args.checkpoint, args.gpus, engine=args.engine, precision=args.precision)
    found = predictor(sample.img1, sample.img2, confidence=True)
    scale = longest(sample.flow)
    rows = [
        [
            ("first frame", sample.img1),
            ("flow", flow_to_colour(found.flow, scale)),
            ("true flow", flow_to_colour(sample.flow, scale, sample.mask)),
        ],
        [
            ("forward-backward confidence", grey(found.confidence)),
            ("learned mask", grey(found.mask)),
            ("true visibility", grey(~plane(occlusion))),
        ],
    ]
    write_image(args.output, panels(rows, WIDTH))
    measures = measure_confidence(found, sample.flow, sample.mask, occlusion)
    print(f"{sample.name}: {describe_confidence(means(measures))}")
    print(f"wrote {args.output}, {args.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(run(main))
