"""Writing a video frame by frame through PyAV: MP4, AVI and GIF."""

from __future__ import annotations

import os
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from reader.errors import DataError
from reader.files import PathLike, atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterator

VIDEO_SUFFIXES = (".mp4", ".avi", ".gif")

_THREADS = min(4, os.cpu_count() or 1)  # each holds frames of its own, so this bounds the memory
# A GIF counts hundredths of a second, and viewers slow a frame of fewer than two down to ten.
_GIF_MAX_RATE = 50
# Values of ITU-T H.273, which FFmpeg uses, too.
_BT601 = 5
_STUDIO_RANGE = 1


class VideoWriter:
    """Write a video frame by frame; a context manager.

    The file gets its name when the ``with`` block ends, and is removed when the block raises.

    * ``.mp4``: H.264 of high quality; 4:2:0, or 4:4:4 (which some hardware players lack) where a
      side is odd, since 4:2:0 has even sides only.
    * ``.avi``: Motion JPEG of high quality, 4:4:4.
    * ``.gif``: a palette of its own for every frame. Delays are whole hundredths of a second that
      keep the rate on average (30 per second is 3, 4, 3, 3, 4, ...); above 50 frames per second,
      which viewers do not play, 50 is written.

    Parameters
    ----------
    path : str or os.PathLike
    rate : fractions.Fraction
        Frames per second.
    height, width : int
        Size of every frame, px.

    Raises
    ------
    DataError
        The suffix is unknown, or the file cannot be written.
    ValueError
        The rate or the size is not above 0, a frame has another shape or type, or the block ends
        without a frame.
    """

    def __init__(self, path: PathLike, rate: Fraction, height: int, width: int):
        self.path = Path(path)
        self._suffix = self.path.suffix.lower()
        if self._suffix not in VIDEO_SUFFIXES:
            raise DataError(
                f"cannot write {path}: a video's suffix is one of {', '.join(VIDEO_SUFFIXES)}"
            )
        if rate <= 0 or height <= 0 or width <= 0:
            raise ValueError(f"no video has rate {rate} and size {height}x{width}")
        self.height, self.width = height, width
        self.rate = Fraction(rate).limit_denominator(100_000)
        if self._suffix == ".gif":
            self.rate = min(self.rate, Fraction(_GIF_MAX_RATE))
        self._written = 0

    def __enter__(self) -> VideoWriter:
        self._context = self._opened()
        self._context.__enter__()
        return self

    def __exit__(self, *raised: object) -> bool | None:
        return self._context.__exit__(*raised)

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, (H, W, 3) uint8 RGB."""
        expected = (self.height, self.width, 3)
        if frame.shape != expected or frame.dtype != np.uint8:
            raise ValueError(
                f"a frame of this video is {expected} uint8, not {frame.shape} {frame.dtype}"
            )
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts = self._written
        picture.time_base = 1 / self.rate
        self._encode(picture)
        self._written += 1

    @contextmanager
    def _opened(self) -> Iterator[None]:
        try:
            with atomic_path(self.path) as temporary, av.open(
                f"file:{temporary}", "w"
            ) as container:
                self._container = container
                self._stream = self._add_stream()
                self._graph = self._palette_graph() if self._suffix == ".gif" else None
                yield
                if not self._written:
                    raise ValueError(f"{self.path}: a video has at least one frame")
                self._encode(None)
        except av.error.FFmpegError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _add_stream(self) -> av.VideoStream:
        codec, pixels, options = {
            # The encoder looks 40 frames ahead unless told; ten keep its memory small.
            ".mp4": ("libx264", "yuv420p", {"crf": "18", "x264-params": "rc-lookahead=10"}),
            ".avi": ("mjpeg", "yuvj444p", {"qmin": "1", "qmax": "2"}),
            ".gif": ("gif", "pal8", {}),
        }[self._suffix]
        if pixels == "yuv420p" and (self.height % 2 or self.width % 2):
            pixels = "yuv444p"
        stream = self._container.add_stream(codec, rate=self.rate)
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, pixels
        stream.codec_context.time_base = 1 / self.rate
        stream.codec_context.thread_count = _THREADS
        stream.options = options
        if codec == "libx264":
            # Stated, because players take an unmarked large video for BT.709 and shift its reds.
            stream.codec_context.colorspace = _BT601
            stream.codec_context.color_range = _STUDIO_RANGE
        return stream

    def _palette_graph(self) -> av.filter.Graph:
        """Return the filters that find a palette for each frame and apply it."""
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=self.width, height=self.height, format="rgb24", time_base=1 / self.rate
        )
        split = graph.add("split")
        generate = graph.add("palettegen", "stats_mode=single")
        use = graph.add("paletteuse", "new=1")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(generate, 0, 0)
        split.link_to(use, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        return graph

    def _encode(self, frame: av.VideoFrame | None) -> None:
        """Encode one frame; None ends the stream."""
        for prepared in self._prepared(frame):
            self._container.mux(self._stream.encode(prepared))
        if frame is None:
            self._container.mux(self._stream.encode(None))

    def _prepared(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Yield what the encoder takes; the filters hold a frame back until it has a palette."""
        if self._graph is None:
            if frame is not None:
                yield frame.reformat(format=self._stream.pix_fmt)
            return
        self._graph.push(frame)
        while True:
            try:
                yield self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):  # needs more, or is at the end
                return
