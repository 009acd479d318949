"""Points tracked through a video: python -m maskflownet.examples.tracks VIDEO OUT.mp4 [--every 16]

Each follows the flow from frame to frame, and is given up where the way back does not lead to where it came from.
"""

import cv2
import numpy as np
from maskflownet.examples import load, parse
from maskflownet.inference.new_data import Video
from maskflownet.reader.video import VideoWriter
from maskflownet.settings.cli import count, run


def tracks(predictor, video, every):
    """Yield for each frame but the first (frame, paths (T, N, 2) px of the N points still seen, their number in T)."""
    path = np.mgrid[every // 2 : video.width : every, every // 2 : video.height : every].T.reshape(1, -1, 2)
    predictions = predictor.stream(video.pairs(), mask=False, warped=False, confidence=True)
    for (_, frame), (flow, _, _, confidence) in zip(video.pairs(), predictions):
        if path.size:
            found = cv2.remap(np.dstack([flow, confidence]), np.float32(path[-1][:, None]), None, cv2.INTER_LINEAR)
            path = np.concatenate([path, path[-1:] + found[None, :, 0, :2]])[:, found[:, 0, 2] > 0.5]
        yield frame, path


def main(arguments):
    args = parse(arguments, __doc__, {"video": None}, every={"default": 16, "type": count, "help": "px, default 16"})
    video = Video(args.video)
    hues = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_HSV)[0]
    with VideoWriter(args.out, video.rate, video.height, video.width, video.pixel_aspect) as writer:
        for frame, path in tracks(load(args), video, args.every):
            colours = hues[(path[0] @ [5.3, 11.7] % 256).astype(int)].tolist()  # neighbours differ
            for points, colour in zip(np.rint(path[-20:] * 16).astype(np.int32).swapaxes(0, 1), colours):
                cv2.polylines(frame, [points], False, colour, 1, cv2.LINE_AA, shift=4)
                cv2.circle(frame, points[-1].tolist(), 32, colour, -1, cv2.LINE_AA, shift=4)
            writer.write(frame)
    print(f"wrote {args.out}: points that begin {args.every} px apart in {args.video}, {path.shape[1]} seen to its end")


if __name__ == "__main__":
    raise SystemExit(run(main))
