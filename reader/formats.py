"""Pictures, masks and flow fields as files.

A picture is decoded by its content, not its name. Its EXIF orientation is applied, so that a
photograph is processed, and its result written, the way up in which viewers show it.

A flow is (H, W, 2) float32 in px, (u, v); beside it stands where it is valid, (H, W, 1) uint8, 255 =
valid. A value that is not finite or larger than 1e9 means unknown, as the Middlebury benchmark
defines it (Baker et al., IJCV 2011); the flow is 0 there, so that no sum meets it.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.files import PathLike, read_bytes, write_bytes

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".tif", ".tiff", ".webp")
PICTURE_SUFFIXES = (*WRITABLE_SUFFIXES, ".pgm", ".pbm")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NETPBM_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_NETPBM_HEADER = re.compile(rb"P[2356]" + _NETPBM_GAP + rb"\d+" + _NETPBM_GAP + rb"\d+" + _NETPBM_GAP + rb"(\d+)")
_FLO_MAGIC = struct.pack("<f", 202021.25)  # reads "PIEH"
_PFM_HEADER = re.compile(rb"(PF|Pf)\s+(\d+)\s+(\d+)\s+([-+.\deE]+)(?:\r\n|\s)")
_UNKNOWN_ABOVE = 1e9
_UNKNOWN = 1e10  # what .flo and .pfm hold at an unknown pixel
_LARGEST_SIDE = 65535


def read_image(picture: PathLike | np.ndarray) -> np.ndarray:
    """Turn a picture, whatever it is, into (H, W, 3) uint8 RGB.

    Parameters
    ----------
    picture : path or np.ndarray
        A file that OpenCV decodes, or (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, 8 or 16
        bit. Grey becomes three equal channels, alpha is dropped, 16 bit are scaled to 8.

    Raises
    ------
    UserError
        The file is missing, empty, damaged, incomplete or no picture (a GIF is read as a video), or
        the array has another shape or type.
    """
    if not isinstance(picture, np.ndarray):
        return cv2.cvtColor(_read_8bit(picture, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    channels = 1 if picture.ndim == 2 else picture.shape[2] if picture.ndim == 3 else 0
    if channels not in (1, 3, 4) or picture.size == 0 or picture.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"a picture is (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey, uint8 or uint16, "
            f"not {picture.shape} {picture.dtype}"
        )
    picture = picture.reshape(*picture.shape[:2], channels)[..., :3]
    return np.ascontiguousarray(np.broadcast_to(_to_8bit(picture), (*picture.shape[:2], 3)))


def read_mask(path: PathLike) -> np.ndarray:
    """Read a file in the role of a mask, whatever its channels: its luminance, (H, W, 1) uint8."""
    return _read_8bit(path, cv2.IMREAD_GRAYSCALE)[:, :, None]


def write_image(path: PathLike, image: np.ndarray) -> None:
    """Write (H, W, 3) RGB, or (H, W) or (H, W, 1) grey, uint8, in the format of the path's suffix.

    Raises a UserError where that cannot be done, a ValueError for another shape or type.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise UserError(f"cannot write {path}: a picture's suffix is one of {', '.join(WRITABLE_SUFFIXES)}")
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
    except cv2.error:
        done = False
    if not done:
        raise UserError(f"cannot write {path}: OpenCV cannot encode {image.shape} as {suffix}")
    write_bytes(path, data.tobytes())


def _read_8bit(path: PathLike, flags: int) -> np.ndarray:
    data = read_bytes(path)
    if data.startswith(b"GIF8"):
        raise UserError(f"cannot read {path} as a picture: a GIF is read as a video")
    picture = _decode(path, data, flags | cv2.IMREAD_ANYDEPTH)
    if picture.dtype not in (np.uint8, np.uint16):
        raise UserError(f"cannot read {path}: its samples are {picture.dtype}, not 8 or 16 bit")
    # OpenCV hands out the samples of a PPM or PGM unscaled, whatever maximum its header states.
    header = _NETPBM_HEADER.match(data)
    return _to_8bit(picture, int(header.group(1)) if header else None)


def _to_8bit(picture: np.ndarray, largest: int | None = None) -> np.ndarray:
    largest = largest or np.iinfo(picture.dtype).max
    if largest == 255:
        return picture
    return np.clip(np.rint(picture * np.float32(255.0 / largest)), 0, 255).astype(np.uint8)


def _decode(path: PathLike, data: bytes, flags: int) -> np.ndarray:
    """Decode the bytes of a picture file as OpenCV does, channels in BGR order."""
    if data.startswith(_PNG_SIGNATURE):
        _check_png(path, data)
    elif data.startswith(b"\xff\xd8"):
        _check_jpeg(path, data)
    try:
        with _quiet_opencv():
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"cannot read {path}: OpenCV refuses its size or format") from error
    if picture is None:
        raise UserError(f"cannot read {path}: it is damaged, incomplete or not a picture")
    return picture


def _check_png(path: PathLike, data: bytes) -> None:
    """Check that every critical chunk is there and has its checksum.

    libpng would notice, but says so on stderr, where the program's one sentence belongs.
    """
    position = len(_PNG_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position) if position + 12 <= len(data) else (len(data), b"")
        start, position = position, position + 12 + length
        if position > len(data):
            raise UserError(f"cannot read {path}: the PNG ends early")
        critical = kind[:1].isupper()
        (checksum,) = struct.unpack_from(">I", data, position - 4)
        if critical and zlib.crc32(memoryview(data)[start + 4 : position - 4]) != checksum:
            raise UserError(f"cannot read {path}: the PNG is damaged (checksum of {kind!r})")


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
    raise UserError(f"cannot read {path}: the JPEG ends early or is damaged")


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


def read_flow(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a flow field in the format of the path's suffix; ``.png`` means KITTI's.

    Returns the flow, 0 where it is not valid, and where it is valid.

    Raises
    ------
    UserError
        The suffix is unknown, or the file is missing, empty, damaged or of another format.
    """
    return _format("read", path)[0](path)


def write_flow(path: PathLike, flow: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Write a flow field in the format of the path's suffix; ``.png`` means KITTI's.

    Parameters
    ----------
    path : path
    flow : np.ndarray
        (H, W, 2), px, (u, v).
    valid : np.ndarray, optional
        (H, W) or (H, W, 1), nonzero = valid; default: valid everywhere. Other pixels become 1e10 in
        ``.flo`` and ``.pfm``, not a number in ``.npy``, and 0 with a mask in ``.png`` and ``.npz``.

    Raises
    ------
    UserError
        The suffix is unknown, or the file cannot be written.
    ValueError
        An array has another shape, or a valid value does not fit the format.
    """
    _format("write", path)[1](path, flow, valid)


def _format(verb: str, path: PathLike) -> tuple[Callable, Callable]:
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise UserError(f"cannot {verb} {path}: a flow's suffix is one of {', '.join(FLOW_SUFFIXES)}")
    return _FORMATS[suffix]


def read_flo(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a Middlebury ``.flo`` file; returns and raises as `read_flow`.

    Little-endian: the float 202021.25, int32 width, int32 height, then rows of (u, v) float32.
    """
    data = read_bytes(path)
    if data[:4] != _FLO_MAGIC:
        raise UserError(f"cannot read {path}: it does not start with the .flo magic 202021.25")
    if len(data) < 12:
        raise UserError(f"cannot read {path}: it ends inside the header")
    width, height = struct.unpack_from("<ii", data, 4)
    _check_size(path, height, width, 8, len(data) - 12)
    return _known(np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2))


def write_flo(path: PathLike, flow: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Write a Middlebury ``.flo`` file; parameters and errors as `write_flow`."""
    flow, known = _checked(flow, valid)
    height, width = known.shape
    flow[~known] = _UNKNOWN
    write_bytes(path, _FLO_MAGIC + struct.pack("<ii", width, height) + flow.astype("<f4").tobytes())


def read_pfm(path: PathLike) -> np.ndarray:
    """Read a portable float map: (H, W, 3) or (H, W) float32 as stored, top row first; raises as `read_flow`.

    The header's lines are ``PF`` (three channels) or ``Pf`` (one), width and height, and a scale
    whose sign is negative for little-endian; then rows from the bottom to the top.
    """
    data = read_bytes(path)
    header = _PFM_HEADER.match(data[:256])
    try:
        scale = float(header.group(4)) if header else 0.0
    except ValueError:
        scale = 0.0
    if header is None or scale == 0:
        raise UserError(f"cannot read {path}: it does not start with the header of a .pfm file")
    width, height = int(header.group(2)), int(header.group(3))
    channels = (3,) if header.group(1) == b"PF" else ()
    _check_size(path, height, width, 12 if channels else 4, len(data) - header.end())
    pixels = np.frombuffer(data, "<f4" if scale < 0 else ">f4", offset=header.end())
    return np.ascontiguousarray(pixels.reshape(height, width, *channels)[::-1], dtype=np.float32)


def _read_pfm_flow(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    pixels = read_pfm(path)
    if pixels.ndim != 3:
        raise UserError(f"cannot read {path}: it has one channel, where a flow has u and v")
    return _known(pixels[:, :, :2])


def write_pfm(path: PathLike, flow: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Write a flow as a ``.pfm`` whose third channel is 0, as FlyingThings3D has it; as `write_flow`."""
    flow, known = _checked(flow, valid)
    flow[~known] = _UNKNOWN
    _write_pfm(path, b"PF", np.dstack([flow, np.zeros(known.shape, np.float32)]))


def write_float_map(path: PathLike, values: np.ndarray) -> None:
    """Write (H, W) or (H, W, 1) as a ``.pfm`` of one channel, which `read_pfm` returns as (H, W)."""
    if values.ndim not in (2, 3) or values.shape[2:] not in ((), (1,)) or values.size == 0:
        raise ValueError(f"a map of one channel is (H, W), not {values.shape}")
    _write_pfm(path, b"Pf", values)


def _write_pfm(path: PathLike, magic: bytes, pixels: np.ndarray) -> None:
    height, width = pixels.shape[:2]
    header = b"%b\n%d %d\n-1.0\n" % (magic, width, height)  # -1: little-endian
    write_bytes(path, header + np.asarray(pixels, "<f4")[::-1].tobytes())


def read_kitti_png(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a KITTI flow PNG; returns and raises as `read_flow`.

    16 bit, in OpenCV's channel order (valid, v, u), flow = (x - 32768) / 64 px
    (Geiger et al., CVPR 2012, development kit).
    """
    pixels = _decode(path, read_bytes(path), cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UserError(f"cannot read {path}: a KITTI flow is a PNG of three 16-bit channels")
    flow = (pixels[:, :, :0:-1].astype(np.float32) - 32768) / 64
    return _known(flow, pixels[:, :, 0])


def write_kitti_png(path: PathLike, flow: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Write a KITTI flow PNG: rounded to 1/64 px and clipped to -512 .. 511.98 px.

    Parameters and errors as `write_flow`; a valid value that is not finite does not fit.
    """
    flow, known = _checked(flow, valid)
    if not np.isfinite(flow[known]).all():
        raise ValueError(f"{path}: a KITTI flow holds finite values only")
    flow[~known] = 0
    pixels = np.zeros((*known.shape, 3), np.uint16)
    pixels[:, :, :0:-1] = np.clip(np.rint(flow.astype(np.float64) * 64 + 32768), 0, 65535)
    pixels[:, :, 0] = 1
    pixels[~known] = 0
    write_bytes(path, cv2.imencode(".png", pixels)[1].tobytes())


def _read_numpy(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    data = read_bytes(path)
    try:
        content = np.load(io.BytesIO(data), allow_pickle=False)
        arrays = {"flow": content} if isinstance(content, np.ndarray) else dict(content)
    # A damaged file reaches NumPy's header parser, zipfile or zlib, each with errors of its own, or
    # states a size that does not fit into memory.
    except Exception as error:
        raise UserError(f"cannot read {path}: it is damaged or no NumPy file of numbers") from error
    if "flow" not in arrays:
        raise UserError(f"cannot read {path}: it holds no array named flow")
    flow, valid = arrays["flow"], arrays.get("mask")
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0 or flow.dtype.kind not in "fiu":
        raise UserError(f"cannot read {path}: a flow is (H, W, 2) numbers, not {flow.shape} {flow.dtype}")
    if valid is not None and valid.shape not in (flow.shape[:2], (*flow.shape[:2], 1)):
        raise UserError(f"cannot read {path}: its mask {valid.shape} does not fit {flow.shape}")
    return _known(flow, valid)


def _write_numpy(path: PathLike, flow: np.ndarray, valid: np.ndarray | None) -> None:
    flow, known = _checked(flow, valid)
    buffer = io.BytesIO()
    if Path(path).suffix.lower() == ".npy":
        flow[~known] = np.nan
        np.save(buffer, flow)
    elif valid is None:
        np.savez_compressed(buffer, flow=flow)
    else:
        flow[~known] = 0
        np.savez_compressed(buffer, flow=flow, mask=known[:, :, None] * np.uint8(255))
    write_bytes(path, buffer.getvalue())


def _check_size(path: PathLike, height: int, width: int, pixel_bytes: int, held: int) -> None:
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        raise UserError(f"cannot read {path}: its header states the absurd size {height}x{width}")
    needed = height * width * pixel_bytes
    if held != needed:
        fault = "cut short" if held < needed else "followed by something else"
        raise UserError(
            f"cannot read {path}: {height}x{width} pixels need {needed} bytes after the header, "
            f"there are {held}: it is {fault}"
        )


def _known(flow: np.ndarray, valid: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return what `read_flow` does, from stored values and a file's own mask."""
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which is unknown
        flow = np.array(flow, dtype=np.float32, order="C")
    within = np.abs(flow) <= _UNKNOWN_ABOVE  # false for NaN, too
    known = within[..., 0] & within[..., 1]  # many times faster than all(axis=2)
    if valid is not None:
        known &= valid.reshape(known.shape) != 0
    flow[~known] = 0
    return flow, known[:, :, None] * np.uint8(255)


def _checked(flow: np.ndarray, valid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a float32 copy of the flow, and where it is valid as (H, W) bool."""
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0:
        raise ValueError(f"a flow is (H, W, 2), not {flow.shape}")
    if valid is None:
        known = np.ones(flow.shape[:2], bool)
    elif valid.shape in (flow.shape[:2], (*flow.shape[:2], 1)):
        known = valid.reshape(flow.shape[:2]) != 0
    else:
        raise ValueError(f"the mask {valid.shape} does not fit the flow {flow.shape}")
    return np.array(flow, dtype=np.float32, order="C"), known


_FORMATS = {
    ".flo": (read_flo, write_flo),
    ".pfm": (_read_pfm_flow, write_pfm),
    ".png": (read_kitti_png, write_kitti_png),
    ".npy": (_read_numpy, _write_numpy),
    ".npz": (_read_numpy, _write_numpy),
}
FLOW_SUFFIXES = tuple(_FORMATS)
