"""One clean picture from a burst: python -m maskflownet.examples.average FIRST.png OTHER.png ... OUT.png

Every picture is moved onto the first one along the flow; their mean has less noise. What the mask says is hidden, or
what does not look like the first picture, counts little.
"""

import cv2
import numpy as np
from maskflownet.examples import load, parse
from maskflownet.reader.formats import read_images, write_image
from maskflownet.settings.cli import run


def average(predictor, images):
    """Return the mean (H, W, 3) uint8 of the first picture and of the others where they show the same."""
    first = images[0] / np.float32(255)
    total, weight = first, 1
    for prediction in predictor.stream((images[0], other) for other in images[1:]):
        difference = cv2.GaussianBlur(prediction.warped - first, (0, 0), 2)  # blurred: without the noise
        seen = prediction.mask * np.exp(-np.square(difference / 0.08).mean(axis=2, keepdims=True))
        total, weight = total + seen * prediction.warped, weight + seen
    return np.clip(np.rint(255 * total / weight), 0, 255).astype(np.uint8)


def main(arguments):
    args = parse(arguments, __doc__, {"first": None, "other": "+"})
    images = read_images([args.first, *args.other])
    write_image(args.out, average(load(args), images))
    print(f"wrote {args.out}: the mean of {len(images)} pictures, moved onto {args.first}")


if __name__ == "__main__":
    raise SystemExit(run(main))
