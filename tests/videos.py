"""Small videos, whole and damaged, for the tests of reading and writing them."""

from fractions import Fraction

import av
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


def make(path, count=10, rate=NTSC, height=48, width=64):
    with VideoWriter(path, rate, height, width) as video:
        for picture in frames(count, height, width):
            video.write(picture)
    return path


def encode(path, codec, pixels, pictures, rate=25, **options):
    """Write a file that `VideoWriter` does not write."""
    with av.open(str(path), "w", options=options) as container:
        stream = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream(codec, rate=rate)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixels
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def index_first(source, target):
    """Copy an MP4 with its index in front, so that it opens however little of it is there."""
    with av.open(str(source)) as old, av.open(str(target), "w", options={"movflags": "faststart"}) as new:
        stream = old.streams.video[0]
        if hasattr(new, "add_stream_from_template"):
            copy = new.add_stream_from_template(stream)
        else:  # PyAV before 14
            copy = new.add_stream(template=stream)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    return target


def cut(source, target, share):
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target
