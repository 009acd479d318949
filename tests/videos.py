"""Small videos, whole and damaged, for the tests of reading and writing them."""

from fractions import Fraction

import av
import cv2
import numpy as np
from maskflownet.reader.video import VideoWriter

NTSC = Fraction(30000, 1001)


def frames(count, height, width):
    """Yield red pictures with a blue square and a grey-level that states the frame's number."""
    for index in range(count):
        picture = np.full((height, width, 3), (230, 20, 10), np.uint8)
        picture[: height // 2, : width // 2] = (10, 20, 230)
        picture[height // 2 :, width // 2 :] = 10 * index % 256
        yield picture


def save(path, pictures, rate=NTSC, **options):
    with VideoWriter(path, rate, *pictures[0].shape[:2], **options) as video:
        for picture in pictures:
            video.write(picture)
    return path


def make(path, count=10, rate=NTSC, height=48, width=64, **options):
    return save(path, list(frames(count, height, width)), rate, **options)


def smooth(random, height=96, width=128):
    """A picture with some texture, as a photograph has it."""
    return cv2.GaussianBlur(random.integers(0, 256, (height, width, 3)).astype(np.uint8), (0, 0), 1.5)


def damaged(data, count):
    """Yield a file's content `count` times with 20 to 500 bytes missing, zero or random, not at its ends."""
    random = np.random.default_rng(0)
    for number in range(count):
        length = int(random.integers(20, 500))
        start = int(random.integers(len(data) // 8, len(data) * 7 // 8 - length))
        yield data[:start] + (b"", bytes(length), random.bytes(length))[number % 3] + data[start + length :]


def encode(path, codec, pixels, pictures, rate=25, times=None, **options):
    """Write a file that `VideoWriter` does not write; `times` are those of the frames in 1/rate s."""
    with av.open(str(path), "w", options=options) as container:
        stream = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = container.add_stream(codec, rate=rate)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixels
            kind = "rgb24" if picture.ndim == 3 else "gray16le"
            frame = av.VideoFrame.from_ndarray(picture, format=kind).reformat(format=pixels)
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def index_first(source, target):
    """Copy an MP4 with its index in front, so that it opens however little of it is there."""
    with av.open(str(source)) as old, av.open(str(target), "w", options={"movflags": "faststart"}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    return target


def cut(source, target, share):
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target
