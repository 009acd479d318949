"""A frame between two: python -m maskflownet.examples.interpolate A.png B.png OUT.png [--time 0.5]

The flows of both directions are carried to the time asked for. From there both pictures are looked up. Where one shows
what the other hides, the masks say so, and it counts alone.
"""

import sys
from pathlib import Path

import cv2
import maskflownet
import numpy as np
from maskflownet.reader.formats import read_images, write_image
from maskflownet.settings.cli import Parser, add_devices, number, run


def between(there, back, image_1, image_2, time):
    """Return (H, W, 3) uint8 at a time from 0 to 1, given the predictions from image 1 to 2 and back."""
    height, width = image_1.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)  # (H, W, 2), x and y
    seen_1, seen_2 = (np.square(p.mask) + np.float32(1e-6) for p in (back, there))  # seldom 0: the square is clearer
    sums = np.zeros((height, width, 3), np.float32)  # of flow x weight, and of weight
    for flow, seen, share, towards in ((there.flow, seen_2, time, 1), (back.flow, seen_1, 1 - time, -1)):
        x, y = np.moveaxis(np.rint(grid + share * flow).astype(int), -1, 0)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        weight = (1 - share) * seen
        np.add.at(sums, (y[inside], x[inside]), np.dstack([towards * flow * weight, weight])[inside])
    sums = cv2.GaussianBlur(sums, (0, 0), 1.5)
    for sigma in (2, 4, 8, 16, 32):  # where no flow arrived, that of the surroundings
        sums += cv2.GaussianBlur(sums, (0, 0), sigma) * (sums[..., 2:] < 1e-3) * 1e-3
    flow = sums[..., :2] / sums[..., 2:]

    def look_up(picture, places):
        found = cv2.remap(picture.astype(np.float32), places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return found.reshape(height, width, -1)

    start, end = grid - time * flow, grid + (1 - time) * flow
    weights = (1 - time) * look_up(seen_1, end), time * look_up(seen_2, start)  # what only image 1 shows has seen_2 = 0
    blend = (weights[0] * look_up(image_1, start) + weights[1] * look_up(image_2, end)) / sum(weights)
    return np.rint(blend).astype(np.uint8)


def main(arguments):
    parser = Parser(description=__doc__.splitlines()[0])
    for name in ("a", "b", "out"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    parser.add_argument("--time", type=number(float, "a number from 0 to 1", 0, 1), default=0.5, help="0 = A, 1 = B")
    add_devices(parser)
    args = parser.parse_args(arguments)
    image_1, image_2 = read_images((args.a, args.b))
    predictor = maskflownet.load(gpus=args.gpus, engine=args.engine, precision=args.precision)
    there, back = predictor(image_1, image_2), predictor(image_2, image_1)
    write_image(args.out, between(there, back, image_1, image_2, args.time))


if __name__ == "__main__":
    sys.exit(run(main))
