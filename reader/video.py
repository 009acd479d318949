"""Videos as streams of (H, W, 3) RGB frames, through PyAV: one frame in memory at a time."""

from __future__ import annotations

import os
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from reader.errors import DataError
from reader.files import PathLike, check_file
from reader.gif import check_gif
from reader.video_writer import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["VideoReader", "VideoWriter"]

# Since PyAV 19 there is no other way than this one with metadata that is not UTF-8.
_METADATA = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
_THREADS = min(4, os.cpu_count() or 1)  # each holds frames of its own, so this bounds the memory


class VideoReader:
    """A video file, read anew by every iteration.

    Frames stand upright: a rotation that the file states (phones do) is applied.

    Parameters
    ----------
    path : str or os.PathLike
        Any file that FFmpeg decodes. The first video stream is read.

    Attributes
    ----------
    height, width : int
        Size of every frame, px.
    rate : fractions.Fraction
        Frames per second; the average where the distance of the frames varies.

    Raises
    ------
    DataError
        The file is missing, empty, no video, or has no frame or no frame rate. Iterating and
        `count` raise it where a frame is damaged, the file ends before its header says, or the
        frames change their size.
    """

    def __init__(self, path: PathLike):
        self.path = Path(path)
        check_file(self.path)
        self._stored_size: tuple[int, int] | None = None
        self.rate, rotation = self._measure()
        for frame in self._decoded():
            self._stored_size = (frame.height, frame.width)
            rotation = getattr(frame, "rotation", rotation)
            break
        else:
            raise DataError(f"cannot read {self.path}: it holds no frame")
        self._quarter_turns = round(rotation / 90) % 4
        turned = self._quarter_turns % 2 == 1
        self.height, self.width = self._stored_size[::-1] if turned else self._stored_size

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, (H, W, 3) uint8 RGB, from the first one."""
        for frame in self._decoded():
            picture = frame.to_ndarray(format="rgb24")  # (H, W, 3)
            yield np.ascontiguousarray(np.rot90(picture, self._quarter_turns))

    def count(self) -> int:
        """Return the number of frames by decoding all of them, which finds any damage, too."""
        return sum(1 for _ in self._decoded())

    def _decoded(self) -> Iterator[av.VideoFrame]:
        with self._opened() as (container, stream):
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = _THREADS
            end = Fraction(0)  # s, over all streams, since the header states the longest one's
            for packet in container.demux():
                if packet.pts is not None:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream.index != stream.index:
                    continue
                if packet.is_corrupt:
                    raise DataError(f"cannot read {self.path}: the video is damaged or cut short")
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise DataError(f"cannot read {self.path}: a frame is damaged")
                    if self._stored_size not in (None, (frame.height, frame.width)):
                        raise DataError(f"cannot read {self.path}: its frames change their size")
                    yield frame
            self._check_end(container, stream, end)

    @contextmanager
    def _opened(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        try:
            # The prefix keeps FFmpeg from taking a name with a colon for a network protocol.
            with av.open(f"file:{self.path}", **_METADATA) as container:
                kind = container.format.name
                if kind in ("tty", "image2") or kind.endswith("_pipe"):  # text, single pictures
                    raise DataError(f"cannot read {self.path}: it is not a video")
                streams = [s for s in container.streams.video if not _is_cover(s)]
                if not streams:
                    raise DataError(f"cannot read {self.path}: it holds no video stream")
                if streams[0].codec_context is None:
                    raise DataError(f"cannot read {self.path}: FFmpeg cannot decode its codec")
                yield container, streams[0]
        except av.error.FFmpegError as error:
            reason = error.strerror or error
            raise DataError(f"cannot read {self.path} as a video: {reason}") from error

    def _check_end(
        self, container: av.container.InputContainer, stream: av.VideoStream, end: Fraction
    ) -> None:
        """Compare the time of the last packet with what the header promises.

        Time, because an AVI counts frames that were dropped on recording, and an edit list of an
        MP4 hides some. Other containers state no length, and FFmpeg's is an estimate.
        """
        promised = Fraction(0)  # s
        formats = container.format.name.split(",")
        if "mp4" in formats and stream.duration:
            promised = stream.duration * stream.time_base
        elif "matroska" in formats and container.duration:
            promised = Fraction(container.duration, av.time_base)
        elif "avi" in formats:  # its duration is corrected to what is left of a cut file
            promised = stream.frames / Fraction(stream.average_rate or self.rate)
        # Intact files state up to two frames more, as the last packet's own duration is unknown.
        if end < promised - max(3 / self.rate, Fraction(1, 10)):
            raise DataError(
                f"cannot read {self.path}: the video is cut short, "
                f"{float(end):.2f} s of {float(promised):.2f} s are there"
            )

    def _measure(self) -> tuple[Fraction, float]:
        """Return the frame rate, and the stream's rotation in degrees counter-clockwise.

        Before version 14 PyAV states a rotation with the stream, since then with each frame.
        """
        with self._opened() as (container, stream):
            rotation = getattr(stream, "side_data", {}).get("DISPLAYMATRIX", 0)
            rate = stream.average_rate
            if container.format.name == "gif":
                check_gif(self.path)
            # A GIF has a delay per frame, an AVI gaps; neither's header knows the average.
            if rate is None or container.format.name in ("gif", "avi"):
                rate = _average_rate(container, stream) or rate
        if not rate or rate < 0:
            raise DataError(f"cannot read {self.path}: no frame rate can be determined")
        return Fraction(rate), rotation


def _average_rate(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Fraction | None:
    """Return the number of packets over the time that they fill; None where they state no time."""
    count, start, end = 0, None, 0
    for packet in container.demux(stream):
        if packet.pts is not None and packet.size:
            count += 1
            start = packet.pts if start is None else min(start, packet.pts)
            end = max(end, packet.pts + (packet.duration or 0))
    if start is None or end <= start:
        return None
    return count / ((end - start) * stream.time_base)


def _is_cover(stream: av.VideoStream) -> bool:
    """Tell the cover picture of an audio file from a video; PyAV before 14 does not show it."""
    return hasattr(stream, "disposition") and bool(
        stream.disposition & av.stream.Disposition.attached_pic
    )
