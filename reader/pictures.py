"""Pictures as (H, W, 3) RGB arrays, and masks as (H, W, 1) arrays.

A file is decoded by its content, not its name. Its EXIF orientation is applied, so that a
photograph is processed, and its result written, the way up in which viewers show it.
"""

from __future__ import annotations

import re
import struct
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from maskflownet.errors import DataError
from maskflownet.reader.files import PathLike, read_bytes, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".tif", ".tiff", ".webp")
PICTURE_SUFFIXES = (*WRITABLE_SUFFIXES, ".pgm", ".pbm")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NETPBM_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_NETPBM_HEADER = re.compile(rb"P[2356]" + _NETPBM_GAP + rb"\d+" + _NETPBM_GAP + rb"\d+" + _NETPBM_GAP + rb"(\d+)")


def read_image(path: PathLike) -> np.ndarray:
    """Read a picture of any kind that OpenCV decodes.

    Grey becomes three equal channels, an alpha channel is dropped, and deeper samples are scaled
    to 8 bit.

    Returns
    -------
    np.ndarray
        (H, W, 3) uint8, RGB.

    Raises
    ------
    DataError
        The file is missing, empty, damaged, incomplete, or no picture; a GIF is read as a video.
    """
    return cv2.cvtColor(_read_8bit(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_mask(path: PathLike) -> np.ndarray:
    """Read a file in the role of a mask: one channel, however many the file has.

    Returns
    -------
    np.ndarray
        (H, W, 1) uint8, the luminance scaled to 0..255.

    Raises
    ------
    DataError
        As `read_image`.
    """
    return _read_8bit(path, cv2.IMREAD_GRAYSCALE)[:, :, None]


def write_image(path: PathLike, image: np.ndarray) -> None:
    """Write a picture in the format of the path's suffix, under a temporary name first.

    Parameters
    ----------
    path : str or os.PathLike
    image : np.ndarray
        (H, W, 3) uint8 RGB, or (H, W) or (H, W, 1) uint8 grey.

    Raises
    ------
    DataError
        The suffix is unknown, or the file cannot be written.
    ValueError
        The array has another shape or type.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise DataError(f"cannot write {path}: a picture's suffix is one of {', '.join(WRITABLE_SUFFIXES)}")
    grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if image.dtype != np.uint8 or image.size == 0 or not (grey or image.shape[2:] == (3,)):
        raise ValueError(f"a picture is (H, W, 3) or (H, W) uint8, not {image.shape} {image.dtype}")
    if not grey:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    elif suffix == ".ppm":  # a PPM has three channels by definition
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    try:
        with _quiet_opencv():
            done, data = cv2.imencode(suffix, image)
    except cv2.error as error:
        raise DataError(f"cannot write {path}: OpenCV cannot encode {image.shape}") from error
    if not done:
        raise DataError(f"cannot write {path}: OpenCV cannot encode {image.shape} as {suffix}")
    write_bytes(path, data.tobytes())


def decode(path: PathLike, data: bytes, flags: int) -> np.ndarray:
    """Decode the bytes of a picture file as OpenCV does, channels in BGR order.

    Raises
    ------
    DataError
        The bytes are no picture, or not the whole of one; the sentence names `path`.
    """
    if data.startswith(_PNG_SIGNATURE):
        _check_png(path, data)
    elif data.startswith(b"\xff\xd8"):
        _check_jpeg(path, data)
    try:
        with _quiet_opencv():
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"cannot read {path}: OpenCV refuses its size or format") from error
    if picture is None:
        raise DataError(f"cannot read {path}: it is damaged, incomplete or not a picture")
    return picture


def _read_8bit(path: PathLike, flags: int) -> np.ndarray:
    data = read_bytes(path)
    if data.startswith(b"GIF8"):
        raise DataError(f"cannot read {path} as a picture: a GIF is read as a video")
    picture = decode(path, data, flags | cv2.IMREAD_ANYDEPTH)
    if picture.dtype not in (np.uint8, np.uint16):
        raise DataError(f"cannot read {path}: its samples are {picture.dtype}, not 8 or 16 bit")
    # OpenCV hands out the samples of a PPM or PGM unscaled, whatever maximum its header states.
    header = _NETPBM_HEADER.match(data)
    largest = int(header.group(1)) if header else np.iinfo(picture.dtype).max
    if largest == 255:
        return picture
    return np.clip(np.rint(picture * np.float32(255.0 / largest)), 0, 255).astype(np.uint8)


def _check_png(path: PathLike, data: bytes) -> None:
    """Check that every critical chunk is there and has its checksum.

    libpng would notice, but says so on stderr, where the program's one sentence belongs.
    """
    position = len(_PNG_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise DataError(f"cannot read {path}: the PNG ends early")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise DataError(f"cannot read {path}: the PNG ends early")
        critical = kind[:1].isupper()
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if critical and zlib.crc32(memoryview(data)[position + 4 : end - 4]) != checksum:
            raise DataError(f"cannot read {path}: the PNG is damaged (checksum of {kind!r})")
        position = end


def _check_jpeg(path: PathLike, data: bytes) -> None:
    """Check that an end marker follows the first scan.

    Before version 5 OpenCV fills the missing part of a cut JPEG with grey and reports nothing.
    The segments are walked because a thumbnail in one of them has an end marker of its own.
    """
    position = 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker, length = struct.unpack_from(">BH", data, position + 1)
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        position += 2 + length
        if marker == 0xDA:
            if data.find(b"\xff\xd9", position) >= 0:
                return
            break
    raise DataError(f"cannot read {path}: the JPEG ends early or is damaged")


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's own messages off stderr; older versions have no such switch."""
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    if logging is None:
        yield
        return
    # The level is one per process: where two threads decode at once, the worst outcome is that
    # one of OpenCV's messages appears or that it stays quiet.
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
