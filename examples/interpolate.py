"""A frame between two: python -m maskflownet.examples.interpolate A.png B.png OUT.png [--time 0.5]

Both flows are carried to that time. What mask and way back say is hidden in one picture, the other one alone shows.
"""

import cv2
import numpy as np
from maskflownet.examples import load, parse
from maskflownet.inference.confidence import consistency
from maskflownet.reader.formats import read_images, write_image
from maskflownet.settings.cli import number, run


def between(to, back, image_1, image_2, time):
    """Return (H, W, 3) uint8 at a time from 0 to 1, given the predictions from image 1 to 2 and back."""
    grid = np.indices(image_1.shape[:2], np.float32)[::-1].transpose(1, 2, 0)  # (H, W, 2), x and y
    seen_1, seen_2 = (p.mask**2 * consistency(p.flow, q.flow)[..., None] + 1e-6 for p, q in ((to, back), (back, to)))
    sums = np.zeros(image_1.shape, np.float32)  # of flow x weight, and of weight
    for flow, seen, share, towards in ((to.flow, seen_1, time, 1), (back.flow, seen_2, 1 - time, -1)):
        x, y = np.rint(grid + share * flow).clip(0, grid[-1, -1]).astype(int).transpose(2, 0, 1)
        np.add.at(sums, (y, x), (1 - share) * seen * np.insert(towards * flow, 2, 1, axis=2))
    sums = sum(cv2.GaussianBlur(sums, (0, 0), 1.5 * 2**i) * 1e-3**i for i in range(6))  # holes: as around
    flow = sums[..., :2] / sums[..., 2:]
    start, end = grid - time * flow, grid + (1 - time) * flow
    at_1 = cv2.remap(np.dstack([image_1, seen_1]), start, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    at_2 = cv2.remap(np.dstack([image_2, seen_2]), end, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    weights = (1 - time) * at_2[..., 3:], time * at_1[..., 3:]  # what only image 1 shows has seen_1 = 0
    return np.rint((weights[0] * at_1 + weights[1] * at_2)[..., :3] / sum(weights)).astype(np.uint8)


def main(arguments):
    time = {"default": 0.5, "type": number(float, "a number from 0 to 1", 0, 1), "help": "0 = A, 1 = B; default 0.5"}
    args = parse(arguments, __doc__, {"a": None, "b": None}, time=time)
    images = read_images((args.a, args.b))
    write_image(args.out, between(*load(args).stream((images, images[::-1])), *images, args.time))
    print(f"wrote {args.out}: the frame at time {args.time} between {args.a} and {args.b}")


if __name__ == "__main__":
    raise SystemExit(run(main))
