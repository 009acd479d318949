"""Videos as streams of (H, W, 3) uint8 RGB frames, through PyAV: one frame in memory at a time."""

import errno
import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from maskflownet.errors import UserError
from maskflownet.processes import end_is_asked
from maskflownet.reader.files import PathLike, atomic_path, check_file, check_pixels, max_pixels, read_bytes
from maskflownet.reader.formats import check_header, check_jpeg, sample_range, to_8bit
from PIL import Image, ImageSequence

_THREADS = min(8, os.cpu_count() or 1)  # each holds frames of its own, so this bounds the memory
_SILENCE = 10  # s without a frame, after which a live stream is given up
_CAMERAS = {"linux": ("v4l2", "/dev/video"), "darwin": ("avfoundation", ""), "win32": ("dshow", "video=")}
# A GIF counts hundredths of a second, and viewers slow a frame of fewer than two down to ten.
_GIF_MAX_RATE = 50
# Values of ITU-T H.273, which FFmpeg uses, too.
_BT601 = 5
_STUDIO_RANGE = 1
_SQUARE = Fraction(1)
# Since PyAV 19 there is no other way than this one with metadata that is not UTF-8.
_METADATA = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


class VideoReader:
    """The first video stream of any file that FFmpeg decodes, read anew by every iteration.

    When it is opened its packets are counted and the first frame is decoded; all frames are where they have 16 bit, for
    one scale of their values. Frames stand upright: an orientation that the file states (phones do) is applied,
    mirrored ones, too.

    `height` and `width` are the size of every frame, px, `count` their number; a codec with hidden frames (VP8) has
    fewer. `rate` are the frames per second by their time stamps, the average where their distance varies.
    `pixel_aspect` is the width of a pixel over its height.

    UserError: When it is opened: the file is missing, empty, too large, no video, has no frame or no frame rate, or
    ends before its header says. In an iteration: a frame is damaged, or the frames change their size.
    """

    height: int
    width: int
    rate: Fraction
    _kind: str | None = None  # the container's, which is found out where it is None

    def __init__(self, path: PathLike):
        self.path = Path(path)
        check_file(self.path)
        # The prefix keeps FFmpeg from taking a name with a colon for a network protocol.
        self._url = f"file:{self.path}"
        self.count = 0
        with self._opened() as (container, stream):
            if container.format.name == "gif":
                _check_gif(self.path)
            deep = self._measure(container, stream)
        self._range = 0, 65535
        if deep:
            with self._opened() as opened:
                self._range = sample_range(map(_samples, self._decoded(*opened)))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, (H, W, 3) uint8 RGB, from the first one."""
        with self._opened() as (container, stream):
            for frame in self._decoded(container, stream):
                yield self._picture(frame)

    def _picture(self, frame: av.VideoFrame) -> np.ndarray:
        picture = to_8bit(_samples(frame), self._range)
        picture = picture.swapaxes(0, 1) if self._turned else picture
        return np.ascontiguousarray(picture[:: self._steps[0], :: self._steps[1]])

    def _measure(self, container: av.container.InputContainer, stream: av.VideoStream) -> bool:
        """Read all packets for what they tell together, and the first frame; whether that has 16 bit."""
        first = None
        stamps = []  # s, when a frame is shown, and how long
        for packet in self._packets(container, stream):
            if first is None:
                first = next(iter(packet.decode()), None)
            if packet.size:
                self.count += 1
                if packet.pts is not None:
                    stamps.append((_seconds(packet.pts, packet), _seconds(packet.duration, packet)))
        if first is None:
            raise UserError(f"cannot read {self.path}: it holds no frame")
        self._measure_frame(first, stream)
        (start, _), (end, length) = min(stamps, default=(0, 0)), max(stamps, default=(0, 0))
        self.rate = self._rate(container.format.name, stream, end - start, length)
        self._check_end(container, stream)
        return _is_deep(first)

    def _measure_frame(self, frame: av.VideoFrame, stream: av.VideoStream) -> None:
        self._size = frame.height, frame.width
        self._turned, self._steps = _orientation(frame)
        self.height, self.width = self._size[::-1] if self._turned else self._size
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        self.pixel_aspect = 1 / aspect if self._turned else aspect

    def _rate(self, kind: str, stream: av.VideoStream, span: Fraction, length: Fraction) -> Fraction:
        """Return the frames per second; headers claim anything, and AVI and GIF have gaps."""
        stated = stream.average_rate
        intervals = self.count - 1
        if kind in ("gif", "avi"):  # here alone it is certain how long the last frame stays
            span, intervals = span + length, self.count
        if span <= 0 or intervals == 0:  # one frame, or no time stamps
            rate = stated or (1 / length if length > 0 else 0)
        elif stated and abs(intervals / stated - span) <= 2 * stream.time_base:  # to which stamps are rounded
            rate = stated
        else:
            rate = intervals / span
        if rate <= 0:
            raise UserError(f"cannot read {self.path}: no frame rate can be determined")
        return Fraction(rate)

    def _packets(self, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = _THREADS
        stream.codec_context.options = {"err_detect": "explode", **_limit()}
        is_jpeg = stream.codec_context.name == "mjpeg"
        self._end = Fraction(0)  # s, over all streams, since the header states the longest one's
        for packet in container.demux():
            if packet.pts is not None:
                self._end = max(self._end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index != stream.index:
                continue
            if packet.is_corrupt:
                raise UserError(f"cannot read {self.path}: the video is damaged or cut short")
            if is_jpeg and packet.size:
                check_jpeg(self.path, bytes(packet))
            yield packet

    def _decoded(self, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        for packet in self._packets(container, stream):
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise UserError(f"cannot read {self.path}: a frame is damaged")
                if self._size != (frame.height, frame.width):
                    raise UserError(f"cannot read {self.path}: its frames change their size")
                yield frame

    @contextmanager
    def _opened(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        try:
            with av.open(self._url, format=self._kind, options=_limit(), **_METADATA) as container:
                kind = container.format.name
                if kind in ("tty", "image2") or kind.endswith("_pipe"):  # text, single pictures
                    raise UserError(f"cannot read {self.path}: it is not a video")
                cover = av.stream.Disposition.attached_pic  # of an audio file
                streams = [s for s in container.streams.video if not s.disposition & cover]
                if not streams:
                    raise UserError(f"cannot read {self.path}: it holds no video stream")
                if streams[0].codec_context is None:
                    raise UserError(f"cannot read {self.path}: FFmpeg cannot decode its codec")
                check_pixels(self.path, streams[0].height * streams[0].width)
                yield container, streams[0]
        except av.error.FFmpegError as error:
            reason = error.strerror or error
            raise UserError(f"cannot read {self.path} as a video: {reason}") from error

    def _check_end(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
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
        if self._end < promised - max(3 / self.rate, Fraction(1, 10)):
            raise UserError(
                f"cannot read {self.path}: the video is cut short, "
                f"{float(self._end):.2f} s of {float(promised):.2f} s are there"
            )


class LiveReader(VideoReader):
    """The newest frame of a camera or URL, read once. A thread decodes all frames; those not asked for are dropped.

    A stream that states its length is a file: its frames come when their time stamps say.
    """

    rate = Fraction(60)  # the most

    def __init__(self, url: str, kind: str | None = None):
        self.path, self._url, self._kind = url, url, kind
        self.times: list[float] = []  # s, when the frames that were yielded came, from the first one
        self.dropped = 0  # frames that came between them
        self.lost: Exception | None = None  # why the frames ended, unless the sender or Ctrl-C ended them
        self._newest: deque[tuple] = deque(maxlen=1)  # frame, when it came, s, its number
        self._closed, self._thread = threading.Event(), threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        if not self._take():
            raise self.lost or UserError(f"cannot read {url}: it holds no frame")

    def __iter__(self):
        first = None
        try:
            while (newest := self._take()) and not end_is_asked():
                first = first or newest
                self.times.append(newest[1] - first[1])
                self.dropped = newest[2] - first[2] + 1 - len(self.times)
                yield self._picture(newest[0])
        finally:
            self._closed.set()
            self._thread.join(1)
        if len(self.times) < 2 and end_is_asked():
            raise KeyboardInterrupt
        if len(self.times) < 2:
            raise self.lost or UserError(f"{self.path} ended before the first pair")

    def _take(self) -> tuple | None:
        until = time.monotonic() + _SILENCE
        while time.monotonic() < until:
            ended = end_is_asked() or not self._thread.is_alive()  # first: the last frame comes before the end
            if self._newest or ended:
                return self._newest.pop() if self._newest else None
            time.sleep(0.005)
        self.lost = UserError(f"cannot read {self.path}: no frame came for {_SILENCE} s")
        return None

    def _follow(self) -> None:
        number = -1
        try:
            with self._opened() as (container, stream):  # PyAV's time-outs crash where the interpreter ends first
                stream.thread_type = "SLICE"  # FRAME would hold frames back
                stream.codec_context.options = _limit()
                paced = container.duration or container.format.name in ("hls", "dash")
                for number, frame in enumerate(_intact(container.demux(stream))):
                    now = time.monotonic()
                    if number == 0:
                        self._measure_frame(frame, stream)
                        self._range = sample_range([_samples(frame)])
                        start = now - (frame.time or 0)
                    if self._size != (frame.height, frame.width):
                        raise UserError(f"{self.path}: its frames change their size")
                    if paced and frame.time is not None:
                        self._closed.wait(max(0, start + frame.time - now))
                    if self._closed.is_set():
                        return
                    self._newest.append((frame, time.monotonic(), number))
        except Exception as error:
            # FFmpeg says EIO, too, where the server ends an HTTP stream that has no stated length.
            ended = self._url.startswith("http") and getattr(error.__cause__, "errno", None) == errno.EIO
            self.lost = None if ended and number >= 0 else error


def camera(name: str) -> tuple[str, str]:
    """URL and kind of a camera for `LiveReader`; `name` is its number, path or, on Windows, name."""
    kind, prefix = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
    if kind not in ",".join(av.formats_available).split(","):
        raise UserError(f"--camera: PyAV's FFmpeg has no {kind} here; --video_filepath takes the URL of a stream")
    return (name if "/" in name else prefix + name), kind


def _intact(packets: Iterable[av.Packet]) -> Iterator[av.VideoFrame]:
    for packet in packets:
        with suppress(av.error.InvalidDataError):  # as before the first key frame
            yield from packet.decode()


def _limit() -> dict[str, str]:
    """The option that keeps FFmpeg from taking memory for larger frames."""
    return {"max_pixels": str(min(max_pixels(), 2**31 - 1))}


def _seconds(ticks: int | None, packet: av.Packet) -> Fraction:
    return Fraction((ticks or 0) * (packet.time_base or 0))


def _is_deep(frame: av.VideoFrame) -> bool:
    return frame.format.components[0].bits == 16


def _samples(frame: av.VideoFrame) -> np.ndarray:
    """(H, W, 3) RGB as stored, uint16 where the container has 16 bit, whatever the camera had."""
    return frame.to_ndarray(format="rgb48le" if _is_deep(frame) else "rgb24")


def _orientation(frame: av.VideoFrame) -> tuple[bool, tuple[int, int]]:
    """Whether axes 0 and 1 are swapped, and then the step along each, -1 = mirrored."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, (1, 1)
    # ISO 14496-12, 8.3.2: (x, y) becomes (a x + c y, b x + d y).
    (a, b), (c, d) = np.frombuffer(matrix, np.int32).reshape(3, 3)[:2, :2].astype(float)
    turned = abs(a) + abs(d) < abs(b) + abs(c)
    x, y = (c, b) if turned else (a, d)
    return turned, (-1 if y < 0 else 1, -1 if x < 0 else 1)


def _check_gif(path: Path) -> None:
    """Let Pillow decode a GIF to its trailer: FFmpeg takes whatever is left of a cut or damaged one for the whole."""
    data = read_bytes(path)
    check_header(path, data)
    try:
        with io.BytesIO(data) as file, Image.open(file) as gif:
            for frame in ImageSequence.Iterator(gif):
                frame.load()
            ended = data[file.tell() - 1] == ord(";")
    except Exception as error:
        raise UserError(f"cannot read {path}: the GIF is damaged") from error
    if not ended:
        raise UserError(f"cannot read {path}: the GIF is cut short")


_CODECS = {  # encoder, pixel format, options
    # A drawing at 16 has the PSNR of the slower preset "medium" at 18, 43.5 dB, for 13 % more bytes and 0.44 of the
    # time. The encoder looks 10 frames ahead with this preset, which keeps its memory small.
    ".mp4": ("libx264", "yuv420p", {"preset": "veryfast", "crf": "16"}),
    ".avi": ("mjpeg", "yuvj444p", {"qmin": "1", "qmax": "2"}),
    ".gif": ("gif", "pal8", {}),
}


def pixel_format(codec: str) -> str:
    """The pixel format in which a named encoder gets its frames; a UserError if FFmpeg has no such encoder."""
    try:
        found = av.codec.Codec(codec, "w")
    except (av.codec.codec.UnknownCodecError, ValueError):
        found = None
    if found is None or not found.video_formats:
        raise UserError(f"--codec {codec}: PyAV's FFmpeg has no encoder of videos of this name; libx264 is the default")
    return found.video_formats[0].name


class VideoWriter:
    """Write a video frame by frame; a context manager.

    The file gets its name when the ``with`` block ends, and is removed when the block raises.

    * ``.mp4``: H.264 of high quality; 4:2:0, or 4:4:4 (which some hardware players lack) where a
      side is odd, since 4:2:0 has even sides only.
    * ``.avi``: Motion JPEG of high quality, 4:4:4.
    * ``.gif``: a palette of its own for every frame. Delays are whole hundredths of a second that
      keep the rate on average (30 per second is 3, 4, 3, 3, 4, ...); above 50 frames per second,
      which viewers do not play, 50 is written.

    In an .mp4 or .avi `codec` replaces the encoder: one of PyAV's FFmpeg, such as h264_nvenc.

    UserError: The encoder is unknown, or does not start here, or the file cannot be written.
    ValueError: A frame has another shape or type, or the block ends without a frame.
    """

    def __init__(
        self,
        path: PathLike,
        rate: Fraction,
        height: int,
        width: int,
        pixel_aspect: Fraction = _SQUARE,
        codec: str | None = None,
    ):
        self.path = Path(path)
        self._suffix = self.path.suffix.lower()
        self.height, self.width, self.pixel_aspect = height, width, pixel_aspect
        self.rate = Fraction(rate).limit_denominator(100_000)
        if self._suffix == ".gif":
            self.rate = min(self.rate, Fraction(_GIF_MAX_RATE))
        self._codec = _CODECS[self._suffix]
        if codec not in (None, self._codec[0]):
            self._codec = codec, pixel_format(codec), {"crf": "16", "cq": "16"}
        self._written = 0  # 1/rate s

    def __enter__(self):
        self._context = self._opened()
        self._context.__enter__()
        return self

    def __exit__(self, *raised: object) -> bool | None:
        return self._context.__exit__(*raised)

    def converted(self, frame: np.ndarray) -> av.VideoFrame:
        """A frame (H, W, 3) uint8 RGB as `write` takes it; any thread may call this."""
        expected = (self.height, self.width, 3)
        if frame.shape != expected or frame.dtype != np.uint8:
            raise ValueError(f"a frame of this video is {expected} uint8, not {frame.shape} {frame.dtype}")
        # Without odd strides, which PyAV refuses: a column of one pixel may have any.
        picture = av.VideoFrame.from_numpy_buffer(frame.ravel().reshape(frame.shape), format="rgb24")
        return picture if self._graph else picture.reformat(format=self._stream.pix_fmt)

    def write(self, frame: np.ndarray | av.VideoFrame, time: float | None = None) -> None:
        """Append one frame, (H, W, 3) uint8 RGB or `converted`, for this time, s; without one it follows at once.

        One that comes less than 1/rate s after the frame before it may be left out.
        """
        place = self._written if time is None else int(time * self.rate)
        if place < self._written:
            return
        picture = frame if isinstance(frame, av.VideoFrame) else self.converted(frame)
        picture.pts, picture.time_base = place, 1 / self.rate
        self._encode(picture)
        self._written = place + 1

    @contextmanager
    def _opened(self) -> Iterator[None]:
        try:
            with atomic_path(self.path) as temporary, av.open(f"file:{temporary}", "w") as container:
                self._container = container
                self._stream = self._add_stream()
                self._graph = self._palette_graph() if self._suffix == ".gif" else None
                yield
                if not self._written:
                    raise ValueError(f"{self.path}: a video has at least one frame")
                self._encode(None)
        except av.error.FFmpegError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _add_stream(self) -> av.VideoStream:
        codec, pixels, options = self._codec
        if pixels == "yuv420p" and (self.height % 2 or self.width % 2):
            pixels = "yuv444p"
        try:
            stream = self._container.add_stream(codec, rate=self.rate)
        except ValueError as error:
            raise UserError(f"cannot write {self.path}: the format takes no {codec}") from error
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, pixels
        stream.codec_context.time_base = 1 / self.rate
        stream.codec_context.sample_aspect_ratio = self.pixel_aspect
        stream.codec_context.thread_count = _THREADS
        if self._suffix == ".avi":
            stream.codec_context.max_b_frames = 0  # an AVI does not say when a frame is shown
        stream.options = options
        if pixels.startswith("yuv4"):
            # Stated, because players take an unmarked large video for BT.709 and shift its reds.
            stream.codec_context.colorspace = _BT601
            stream.codec_context.color_range = _STUDIO_RANGE
        try:
            stream.codec_context.open()
        except av.error.FFmpegError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write {self.path}: the encoder {codec} does not start here: {reason}") from error
        return stream

    def _palette_graph(self) -> av.filter.Graph:
        """Return the filters that find a palette for each frame and apply it."""
        graph = av.filter.Graph()
        source = graph.add_buffer(width=self.width, height=self.height, format="rgb24", time_base=1 / self.rate)
        split = graph.add("split")
        generate = graph.add("palettegen", "stats_mode=single")
        use = graph.add("paletteuse", "new=1")
        graph.link_nodes(source, split, use, graph.add("buffersink"))
        split.link_to(generate, 1, 0)
        generate.link_to(use, 0, 1)
        graph.configure()
        return graph

    def _encode(self, frame: av.VideoFrame | None) -> None:
        """Encode one frame; None ends the stream. A GIF's filters hold a frame back until it has a palette."""
        if self._graph is not None:
            self._graph.push(frame)
            with suppress(av.error.BlockingIOError, av.error.EOFError):  # it needs more, or is at the end
                while True:
                    self._container.mux(self._stream.encode(self._graph.pull()))
        if self._graph is None or frame is None:
            self._container.mux(self._stream.encode(frame))
