"""Points tracked through a video: python -m maskflownet.examples.tracks VIDEO OUT.mp4 [--every 16]

A grid of points starts in the first frame. Each follows the flow from frame to frame, and is given up where it leaves
the picture or where the way back does not lead to where it came from: there something hides it.
"""

import sys
from itertools import islice, pairwise

import cv2
import maskflownet
import numpy as np
from maskflownet.reader.video import VideoReader, VideoWriter
from maskflownet.settings.cli import Parser, add_devices, count, run


def tracks(predictor, frames, every):
    """Yield for each frame but the first (frame, paths (T, N, 2) px of the N points still seen, their number in T)."""
    height, width = frames.height, frames.width
    path = np.stack(np.meshgrid(np.arange(every // 2, width, every), np.arange(every // 2, height, every)), -1)
    path = path.reshape(1, -1, 2).astype(np.float32)
    predictions = predictor.stream(pairwise(frames), mask=False, warped=False, confidence=True)
    for frame, prediction in zip(islice(frames, 1, None), predictions):
        here = path[-1:]  # (1, N, 2)
        fields = prediction.flow, prediction.confidence
        flow, confidence = (cv2.remap(field, here, None, cv2.INTER_LINEAR) for field in fields)
        there = here + flow
        seen = (there >= 0).all(-1) & (there <= (width - 1, height - 1)).all(-1) & (confidence > 0.5)
        path = np.concatenate([path, there])[:, seen[0]]
        yield frame, path


def draw(frame, path, length=20):
    """The frame with the last positions of each point as a line, its colour drawn by its first place."""
    places = (path[0] @ np.array([[5.3], [11.7]]) % 256).astype(np.uint8)  # (N, 1): neighbours differ
    colours = cv2.applyColorMap(places, cv2.COLORMAP_HSV)[:, 0].tolist()
    for points, colour in zip(path[-length:].transpose(1, 0, 2), colours):
        cv2.polylines(frame, [np.rint(points * 16).astype(int)], False, colour, 1, cv2.LINE_AA, shift=4)
        cv2.circle(frame, np.rint(points[-1] * 16).astype(int).tolist(), 32, colour, -1, cv2.LINE_AA, shift=4)
    return frame


def main(arguments):
    parser = Parser(description=__doc__.splitlines()[0])
    for name in ("video", "out"):
        parser.add_argument(name, metavar=name.upper())
    parser.add_argument("--every", type=count, default=16, metavar="PX", help="distance of the points (default 16)")
    add_devices(parser)
    args = parser.parse_args(arguments)
    frames = VideoReader(args.video)
    predictor = maskflownet.load(gpus=args.gpus, engine=args.engine, precision=args.precision)
    with VideoWriter(args.out, frames.rate, frames.height, frames.width, frames.pixel_aspect) as video:
        for frame, path in tracks(predictor, frames, args.every):
            video.write(draw(frame, path))


if __name__ == "__main__":
    sys.exit(run(main))
