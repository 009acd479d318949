"""Peak memory of a video's prediction: after its first frames and after all of them.

python -m maskflownet.benchmarks.video_memory VIDEO OUTPUT.mp4 CONFIG -c CHECKPOINT [--frames 20]
"""

import resource
import sys

from maskflownet.inference.outputs import check_outputs, predict_files
from maskflownet.inference.predictor import Predictor
from maskflownet.inference.sources import Video
from maskflownet.reader.video import VideoReader
from maskflownet.settings.cli import Parser, count, run


def peak_mib() -> float:
    """Largest resident memory of this process so far (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class WatchedVideo(Video):
    """A video that notes the peak memory when its first `frames` frames have been computed."""

    def __init__(self, path, frames):
        super().__init__(path)
        self.frames_until_note = frames
        self.early_peak = None

    def pairs(self):
        # Frame n + 1 is asked for once the pair that ends with frame n has been written.
        for number, pair in enumerate(super().pairs(), start=2):
            if number == self.frames_until_note + 1:
                self.early_peak = peak_mib()
            yield pair


def main(arguments):
    parser = Parser(prog="video_memory.py", description=__doc__.splitlines()[0])
    parser.add_argument("video", metavar="VIDEO")
    parser.add_argument("output", metavar="OUTPUT")
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("-c", "--checkpoint", required=True)
    parser.add_argument("--frames", type=count, default=20, help="frames of the first peak")
    args = parser.parse_args(arguments)
    source = WatchedVideo(args.video, args.frames)
    outputs = check_outputs(source, args.output)
    # A given scale keeps the sampling of the whole video out of the first peak.
    predict_files(Predictor.load(args.config, args.checkpoint), source, outputs, max_flow=20)
    written = VideoReader(args.output)
    frames = written.count()
    print(f"in:  {source.count + 1} frames of {source.height}x{source.width} at {source.rate}/s")
    print(f"out: {frames} frames of {written.height}x{written.width} at {written.rate}/s")
    print(
        f"peak memory: {source.early_peak:.0f} MiB after {args.frames} frames, {peak_mib():.0f} "
        f"MiB after all, {100 * (peak_mib() / source.early_peak - 1):+.1f} %"
    )


if __name__ == "__main__":
    sys.exit(run(main))
