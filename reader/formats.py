"""Pictures, masks and flow fields as files.

A picture is decoded by its content, not its name. Its EXIF orientation is applied, so that a
photograph is processed, and its result written, the way up in which viewers show it. What a decoder
remarks is an error; damage that leaves a valid picture (some JPEGs, BMP, PPM) nobody can know.

A flow is (H, W, 2) float32 in px, (u, v); beside it stands where it is valid, (H, W, 1) uint8, 255 =
valid. A value that is not finite or larger than 1e9 means unknown, as the Middlebury benchmark
defines it (Baker et al., IJCV 2011); the flow is 0 there, so that no sum meets it.
"""

import io
import os
import re
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import simplejpeg
from maskflownet.errors import UserError, imported
from maskflownet.reader.files import PathLike, atomic_path, check_file, check_pixels, read_bytes, write_bytes
from PIL import Image, ImageOps

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".gif")  # here, as reader/video.py needs PyAV
PICTURE_SUFFIXES = (*WRITABLE_SUFFIXES, ".pgm", ".pbm")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NETPBM_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_NETPBM_HEADER = re.compile(rb"P[2356]" + _NETPBM_GAP + rb"\d+" + _NETPBM_GAP + rb"\d+" + _NETPBM_GAP + rb"(\d+)")
_FLO_MAGIC = struct.pack("<f", 202021.25)  # reads "PIEH"
_PFM_HEADER = re.compile(rb"(PF|Pf)\s+(\d+)\s+(\d+)\s+([-+.\deE]+)(?:\r\n|\s)")
_FILTERS = threading.Lock()  # those of warnings are one per process, and threads read pictures
# x, y, steps of each pass
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_UNKNOWN_ABOVE = 1e9
_LARGEST_SIDE = 65535


def is_picture(path: PathLike) -> bool:
    """Whether the name is a picture's, and not hidden."""
    return Path(path).suffix.lower() in PICTURE_SUFFIXES and not Path(path).name.startswith(".")


def read_image(picture: Any) -> np.ndarray:
    """Turn one picture, whatever it is, into (H, W, 3) uint8 RGB; as `read_images`."""
    return read_images([picture])[0]


def read_images(pictures: Iterable, trusted: bool = False) -> list[np.ndarray]:
    """Turn pictures that belong together into (H, W, 3) uint8 RGB.

    A picture is a file that OpenCV decodes, PIL's, or an array or tensor (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4)
    RGBA, 8 or 16 bit; it may have four axes, (N, H, W, 1, 3 or 4), and so the result. Grey becomes three equal
    channels, alpha is dropped, 16 bit become 8 by `sample_range`. `trusted` leaves out a slow check of PNGs, without
    which libpng tells of some faults on stderr.

    UserError: A file is missing, empty, damaged, incomplete, too large, no picture or an animation, or an array has
    another shape or type.
    """
    samples = [read_samples(picture, trusted) for picture in pictures]
    among = sample_range(samples)
    return [to_8bit(s, among) for s in samples]


def read_samples(picture: Any, trusted: bool = False) -> np.ndarray:
    """Read one picture as `read_images` does, but leave 16 bit as stored: uint8 or uint16."""
    if isinstance(picture, str | os.PathLike):
        return cv2.cvtColor(_read_file(picture, cv2.IMREAD_COLOR, trusted), cv2.COLOR_BGR2RGB)
    if isinstance(picture, Image.Image):
        picture = ImageOps.exif_transpose(picture)
        if picture.mode not in ("L", "RGB", "RGBA", "F") and not picture.mode.startswith("I"):
            picture = picture.convert("RGB")
    elif hasattr(picture, "detach"):  # a tensor, on any device
        picture = picture.detach().cpu()
    elif hasattr(picture, "asnumpy"):
        picture = picture.asnumpy()
    samples = np.asarray(picture)
    if samples.dtype == np.int32 and isinstance(picture, Image.Image):  # 16 bit grey in Pillow's mode I
        samples = samples.clip(0, 65535).astype(np.uint16)
    if samples.ndim == 2:
        samples = samples[:, :, None]
    if samples.ndim not in (3, 4) or samples.shape[-1] not in (1, 3, 4) or samples.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"a picture is (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey, uint8 or uint16, "
            f"not {samples.dtype} of shape {samples.shape}"
        )
    if samples.size == 0:
        raise UserError(f"a picture is empty: its shape is {samples.shape}")
    return np.ascontiguousarray(np.broadcast_to(samples[..., :3], (*samples.shape[:-1], 3)))


def sample_range(pictures: Iterable[np.ndarray]) -> tuple[int, int]:
    """Return the 16-bit values that become 0 and 255 in pictures that belong together.

    Cameras store 10, 12 or 14 bit in 16, so the values tell: as many bits as the largest one has,
    or, where the values fill less than a quarter of those (thermal pictures), from the smallest to the
    largest. One in a thousand may lie outside, as hot pixels do.
    """
    ends = [np.percentile(p, (0.1, 99.9), method="nearest") for p in pictures if p.dtype == np.uint16]
    if not ends:
        return 0, 65535
    low, high = int(min(e[0] for e in ends)), int(max(e[1] for e in ends))
    bits = max(8, high.bit_length())
    full = 65535 if bits == 16 else 255 << (bits - 8)  # so that shifted 8 bit become what they were
    return (low, high) if low < high < low + full / 4 else (0, full)


def to_8bit(samples: np.ndarray, among: tuple[int, int]) -> np.ndarray:
    """Scale 16-bit samples so that `among` becomes 0 to 255; 8 bit stay as they are."""
    return samples if samples.dtype == np.uint8 else _scaled(samples, *among)


def _scaled(samples: np.ndarray, low: int, high: int) -> np.ndarray:
    scaled = (samples.astype(np.float32) - low) * np.float32(255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def read_mask(path: PathLike) -> np.ndarray:
    """Read a file in the role of a mask, whatever its channels: (H, W, 1) uint8, 255 where it is not black, else 0."""
    return (_read_file(path, cv2.IMREAD_GRAYSCALE)[:, :, None] > 0) * np.uint8(255)


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


def _read_file(path: PathLike, flags: int, trusted: bool = True) -> np.ndarray:
    data = read_bytes(path)
    if data.startswith(b"GIF8"):
        raise UserError(f"cannot read {path} as a picture: a GIF is read as a video")
    picture = _decode(path, data, flags | cv2.IMREAD_ANYDEPTH, trusted)
    if picture.dtype not in (np.uint8, np.uint16):
        raise UserError(f"cannot read {path}: its samples are {picture.dtype}, not 8 or 16 bit")
    # OpenCV hands out the samples of a PPM or PGM unscaled, whatever maximum its header states.
    header = _NETPBM_HEADER.match(data)
    if header and picture.dtype == np.uint8 and header.group(1) != b"255":
        return _scaled(picture, 0, int(header.group(1)))
    return picture


def _decode(path: PathLike, data: bytes, flags: int, trusted: bool = True) -> np.ndarray:
    """Decode the bytes of a picture file as OpenCV does, channels in BGR order."""
    chunks = _png_chunks(path, data) if data.startswith(_PNG_SIGNATURE) else []
    data = b"".join(chunks) or data
    check_header(path, data)
    if chunks and not trusted and not _is_whole(chunks):
        raise UserError(f"cannot read {path}: the PNG is damaged (its data do not fit its header)")
    if data.startswith(b"\xff\xd8"):
        check_jpeg(path, data)
    try:
        with _quiet_opencv():
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"cannot read {path}: OpenCV refuses its size or format") from error
    if picture is None:
        raise UserError(f"cannot read {path}: it is damaged, incomplete or no picture of 8 or 16 bit")
    return picture


def check_header(path: PathLike, data: bytes) -> None:
    """Refuse a picture too large for the memory, and an animation, before anything is decoded."""
    try:
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there shall be one sentence, ours
            with Image.open(io.BytesIO(data)) as header:
                pixels = header.width * header.height
                moves = header.format in ("WEBP", "PNG") and getattr(header, "is_animated", False)
    except Image.DecompressionBombError as error:  # "Image size (1024000000 pixels) exceeds ..."
        pixels, moves = int((re.search(r"\d+", str(error)) or [10**9])[0]), False
    except Exception as error:
        if data.startswith(_PNG_SIGNATURE):
            raise UserError(f"cannot read {path}: the PNG is damaged ({error})") from error
        return  # OpenCV knows more formats, and refuses what is no picture
    check_pixels(path, pixels)
    if moves:
        raise UserError(f"cannot read {path} as a picture: it is an animation; convert it to GIF, MP4 or pictures")


def _png_chunks(path: PathLike, data: bytes) -> list[bytes | memoryview]:
    """Return the chunks of a PNG that matter, each with a right checksum; before them the signature.

    libpng would notice, but says so on stderr, where the program's one sentence belongs.
    """
    kept: list[bytes | memoryview] = [_PNG_SIGNATURE]
    position, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position) if position + 12 <= len(data) else (len(data), b"")
        start, position = position, position + 12 + length
        if position > len(data):
            raise UserError(f"cannot read {path}: the PNG ends early")
        chunk = memoryview(data)[start:position]
        (checksum,) = struct.unpack_from(">I", data, position - 4)
        whole = zlib.crc32(chunk[4:-4]) == checksum
        if kind[:1].isupper() and not whole:
            raise UserError(f"cannot read {path}: the PNG is damaged (checksum of {kind!r})")
        if whole and (kind[:1].isupper() or kind in (b"tRNS", b"eXIf", b"acTL")):
            kept.append(chunk)
    return kept


def _is_whole(chunks: list[bytes | memoryview]) -> bool:
    """Whether a PNG's data unpack to rows of known filters, as many bytes as the header wants, and no more."""
    header, packed = bytes(chunks[1][8:-4]), b"".join(c[8:-4] for c in chunks[2:] if c[4:8] == b"IDAT")
    if len(header) != 13 or header[10:12] != bytes(2) or header[12] not in (0, 1):
        return False
    width, height, bits, colour = struct.unpack_from(">IIBB", header)
    bits *= {2: 3, 4: 2, 6: 4}.get(colour, 1)
    sizes = []  # of each pass: rows, and bytes of one with that for its filter
    for x, y, step_x, step_y in _ADAM7 if header[12] else ((0, 0, 1, 1),):
        rows, columns = -((y - height) // step_y), -((x - width) // step_x)
        if rows > 0 and columns > 0:
            sizes.append((rows, 1 - (-columns * bits // 8)))
    total = sum(rows * row for rows, row in sizes)
    unpacking = zlib.decompressobj()
    try:
        data = np.frombuffer(unpacking.decompress(packed, total + 1), np.uint8)
    except zlib.error:
        return False
    if len(data) != total or not unpacking.eof or unpacking.unused_data:
        return False
    position = 0
    for rows, row in sizes:
        if data[position : position + rows * row : row].max() > 4:
            return False
        position += rows * row
    return True


def check_jpeg(path: PathLike, data: bytes) -> None:
    """Refuse a JPEG about which libjpeg has remarks; OpenCV prints those and shows what is left."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        check_pixels(path, height * width)
        colours = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(data, colours, fastdct=True, fastupsample=True, strict=True)
    except ValueError as error:
        raise UserError(f"cannot read {path}: the JPEG is damaged or ends early ({error})") from error


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's own messages off stderr; its versions 4 and 5 have this switch in different places."""
    set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    # The level is one per process: where two threads decode at once, the worst outcome is that
    # one of OpenCV's messages appears or that it stays quiet.
    level = set_level(0)  # silent
    try:
        yield
    finally:
        set_level(level)


def read_flow(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a flow field in the format of the path's suffix; ``.png`` means KITTI's.

    Returns the flow, 0 where it is not valid, and where it is valid.

    UserError: The suffix is unknown, or the file is missing, empty, damaged or of another format.
    """
    read, _ = _format("read", path)
    return read(path)


def write_flow(path: PathLike, flow: np.ndarray) -> None:
    """Write a flow field (H, W, 2), px, (u, v), in the format of the path's suffix; ``.png`` means KITTI's.

    UserError: The suffix is unknown, or the file cannot be written.
    ValueError: The array has another shape, or a value does not fit the format.
    """
    _, write = _format("write", path)
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0:
        raise ValueError(f"a flow is (H, W, 2), not {flow.shape}")
    write(path, np.ascontiguousarray(flow, dtype=np.float32))


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


def write_flo(path: PathLike, flow: np.ndarray) -> None:
    """Write (H, W, 2) float32 as a Middlebury ``.flo`` file."""
    height, width = flow.shape[:2]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:  # a sum would copy it
        file.write(_FLO_MAGIC + struct.pack("<ii", width, height))
        file.write(np.ascontiguousarray(flow, "<f4"))


def read_pfm(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read (u, v) and an ignored third channel from a portable float map; returns and raises as `read_flow`.

    The header's lines are ``PF`` (three channels; ``Pf`` has one), width and height, and a scale
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
    if header.group(1) == b"Pf":
        raise UserError(f"cannot read {path}: it has one channel, where a flow has u and v")
    _check_size(path, height, width, 12, len(data) - header.end())
    pixels = np.frombuffer(data, "<f4" if scale < 0 else ">f4", offset=header.end())
    return _known(pixels.reshape(height, width, 3)[::-1, :, :2])


def write_pfm(path: PathLike, flow: np.ndarray) -> None:
    """Write (H, W, 2) float32 as a ``.pfm`` whose third channel is 0, as FlyingThings3D has it."""
    write_float_map(path, np.dstack([flow, np.zeros(flow.shape[:2], np.float32)]))


def read_flo5(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read the data set ``flow`` of an HDF5 file (Spring), not valid where it is no number; as `read_flow`."""
    data, h5py = read_bytes(path), imported("h5py", f"cannot read {path}: .flo5 needs h5py", "pip install h5py")
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            # Links, external and virtual data would read other files.
            hard = isinstance(file.get("flow", getlink=True), h5py.HardLink)
            flow = file["flow"] if hard else None
            if not isinstance(flow, h5py.Dataset) or flow.external or flow.is_virtual or flow.dtype.kind != "f":
                raise UserError(f"cannot read {path}: it holds no numbers named flow")
            if flow.ndim != 3 or flow.shape[2] != 2 or not flow.size:
                raise UserError(f"cannot read {path}: a flow is (H, W, 2), not {flow.shape}")
            check_pixels(path, flow.size // 2)
            return _known(flow[()])
    except UserError:
        raise
    except Exception as error:  # h5py has many kinds
        raise UserError(f"cannot read {path}: it is damaged or no HDF5 file") from error


def write_flo5(path: PathLike, flow: np.ndarray) -> None:
    """Write (H, W, 2) float32 as Spring's servers want it."""
    h5py = imported("h5py", f"cannot write {path}: .flo5 needs h5py", "pip install h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("flow", data=flow, compression="gzip", compression_opts=5)
    write_bytes(path, buffer.getvalue())


def write_float_map(path: PathLike, values: np.ndarray) -> None:
    """Write (H, W, 3) or (H, W, 1) as a ``.pfm`` of so many channels."""
    height, width, channels = values.shape
    header = b"%b\n%d %d\n-1.0\n" % (b"PF" if channels == 3 else b"Pf", width, height)  # -1: little-endian
    write_bytes(path, header + np.asarray(values, "<f4")[::-1].tobytes())


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


def write_kitti_png(path: PathLike, flow: np.ndarray) -> None:
    """Write (H, W, 2) as a KITTI flow PNG: finite values, rounded to 1/64 px and clipped to -512 .. 511.98 px."""
    if not np.isfinite(flow).all():
        raise ValueError(f"{path}: a KITTI flow holds finite values only")
    pixels = np.ones((*flow.shape[:2], 3), np.uint16)
    pixels[:, :, :0:-1] = np.clip(np.rint(flow.astype(np.float64) * 64 + 32768), 0, 65535)
    write_bytes(path, cv2.imencode(".png", pixels)[1].tobytes())


def _read_numpy(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    check_file(path)
    arrays = {}
    with open(path, "rb") as file:
        try:
            if file.read(2) != b"PK":
                file.seek(0)
                arrays["flow"] = _read_array(path, file, os.path.getsize(path))
            else:
                with zipfile.ZipFile(file) as archive:  # other members are not touched
                    for name in {"flow.npy", "mask.npy"}.intersection(archive.namelist()):
                        with archive.open(name) as member:
                            arrays[name[:-4]] = _read_array(path, member, archive.getinfo(name).file_size)
        except UserError:
            raise
        # A damaged file reaches NumPy's header parser, zipfile or zlib, each with errors of its own.
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


def _read_array(path: PathLike, file: BinaryIO, size: int) -> np.ndarray:
    """Read one array of `size` bytes, header included, in NumPy's format."""
    check_pixels(path, size // 16)  # before memory is taken: (u, v) have at most 16 bytes
    array = np.lib.format.read_array(file, allow_pickle=False)
    check_pixels(path, array.size // 2)
    if file.read(1) or array.dtype.kind not in "biufc":
        raise ValueError(array.dtype)
    return array


def write_numpy(path: PathLike, values: np.ndarray, name: str = "flow") -> None:
    """Write any array as a ``.npy``, or by its name into a ``.npz``."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        if temporary.suffix.lower() == ".npy":
            np.save(file, values)
        else:
            np.savez_compressed(file, **{name: values})


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


_FORMATS = {
    ".flo": (read_flo, write_flo),
    ".pfm": (read_pfm, write_pfm),
    ".png": (read_kitti_png, write_kitti_png),
    ".flo5": (read_flo5, write_flo5),
    ".npy": (_read_numpy, write_numpy),
    ".npz": (_read_numpy, write_numpy),
}
FLOW_SUFFIXES = tuple(_FORMATS)
