"""Files that hold a flow field: .flo, .pfm, KITTI .png, .npy and .npz.

Every reader returns the flow, (H, W, 2) float32 in px, (u, v), and its mask, (H, W, 1) uint8 with
255 = known. A value that is not finite or larger than 1e9 means unknown, as the Middlebury
benchmark defines it (Baker et al., IJCV 2011); the flow is 0 there, so that no sum meets it.
"""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import cv2
import numpy as np
from maskflownet.errors import DataError
from maskflownet.reader.files import PathLike, read_bytes, write_bytes
from maskflownet.reader.pictures import decode

FLOW_SUFFIXES = (".flo", ".pfm", ".png", ".npy", ".npz")

_UNKNOWN_ABOVE = 1e9
_UNKNOWN = 1e10  # what a file without a mask of its own holds at an unknown pixel
_FLO_MAGIC = struct.pack("<f", 202021.25)  # reads "PIEH"
_PFM_HEADER = re.compile(rb"(PF|Pf)\s+(\d+)\s+(\d+)\s+([-+.\deE]+)(?:\r\n|\s)")
_LARGEST_SIDE = 65535


def read_flow(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a flow field in the format of the path's suffix.

    Returns
    -------
    flow : np.ndarray
        (H, W, 2) float32, px, (u, v); 0 where unknown.
    mask : np.ndarray
        (H, W, 1) uint8, 255 = known, 0 = unknown.

    Raises
    ------
    DataError
        The suffix is unknown, or the file is missing, empty, damaged or of another format.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".flo":
        return read_flo(path)
    if suffix == ".pfm":
        pixels = read_pfm(path)
        if pixels.ndim != 3:
            raise DataError(f"cannot read {path}: it has one channel, where a flow has u and v")
        return _known(pixels[:, :, :2])
    if suffix == ".png":
        return read_kitti_png(path)
    if suffix in (".npy", ".npz"):
        return _read_numpy(path)
    raise DataError(f"cannot read {path}: a flow's suffix is one of {', '.join(FLOW_SUFFIXES)}")


def write_flow(path: PathLike, flow: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Write a flow field in the format of the path's suffix; ``.png`` means KITTI's.

    Parameters
    ----------
    path : str or os.PathLike
    flow : np.ndarray
        (H, W, 2), px, (u, v).
    mask : np.ndarray, optional
        (H, W) or (H, W, 1), nonzero = known; default: all known. An unknown pixel is 1e10 in
        ``.flo`` and ``.pfm``, not a number in ``.npy``, and 0 with a mask in ``.png`` and ``.npz``.

    Raises
    ------
    DataError
        The suffix is unknown, or the file cannot be written.
    ValueError
        An array has another shape, or a known value does not fit the format.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".flo":
        write_flo(path, flow, mask)
    elif suffix == ".pfm":
        write_pfm(path, flow, mask)
    elif suffix == ".png":
        write_kitti_png(path, flow, mask)
    elif suffix in (".npy", ".npz"):
        _write_numpy(path, flow, mask)
    else:
        raise DataError(f"cannot write {path}: a flow's suffix is one of {', '.join(FLOW_SUFFIXES)}")


def read_flo(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a Middlebury ``.flo`` file; returns and raises as `read_flow`.

    Little-endian: the float 202021.25, int32 width, int32 height, then rows of (u, v) float32.
    """
    data = read_bytes(path)
    if data[:4] != _FLO_MAGIC:
        raise DataError(f"cannot read {path}: it does not start with the .flo magic 202021.25")
    if len(data) < 12:
        raise DataError(f"cannot read {path}: it ends inside the header")
    width, height = struct.unpack_from("<ii", data, 4)
    _check_size(path, height, width, 8, len(data) - 12)
    return _known(np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2))


def write_flo(path: PathLike, flow: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Write a Middlebury ``.flo`` file; parameters and errors as `write_flow`."""
    flow, known = _checked(flow, mask)
    height, width = known.shape
    flow[~known] = _UNKNOWN
    write_bytes(path, _FLO_MAGIC + struct.pack("<ii", width, height) + flow.astype("<f4").tobytes())


def read_pfm(path: PathLike) -> np.ndarray:
    """Read a portable float map of either byte order.

    The header's lines are ``PF`` (three channels) or ``Pf`` (one), width and height, and a scale
    whose sign is negative for little-endian; then rows from the bottom to the top.

    Returns
    -------
    np.ndarray
        (H, W, 3) or (H, W) float32, the first row at the top, values as stored.

    Raises
    ------
    DataError
        As `read_flow`.
    """
    data = read_bytes(path)
    header = _PFM_HEADER.match(data[:256])
    try:
        scale = float(header.group(4)) if header else 0.0
    except ValueError:
        scale = 0.0
    if header is None or scale == 0:
        raise DataError(f"cannot read {path}: it does not start with the header of a .pfm file")
    channels = 3 if header.group(1) == b"PF" else 1
    width, height = int(header.group(2)), int(header.group(3))
    _check_size(path, height, width, 4 * channels, len(data) - header.end())
    pixels = np.frombuffer(data, "<f4" if scale < 0 else ">f4", offset=header.end())
    shape = (height, width, 3) if channels == 3 else (height, width)
    return np.ascontiguousarray(pixels.reshape(shape)[::-1], dtype=np.float32)


def write_pfm(path: PathLike, flow: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Write a flow as a little-endian ``.pfm`` whose third channel is 0, as FlyingThings3D has it.

    Parameters and errors as `write_flow`.
    """
    flow, known = _checked(flow, mask)
    height, width = known.shape
    flow[~known] = _UNKNOWN
    pixels = np.zeros((height, width, 3), "<f4")
    pixels[:, :, :2] = flow[::-1]
    write_bytes(path, b"PF\n%d %d\n-1.0\n" % (width, height) + pixels.tobytes())


def write_float_map(path: PathLike, values: np.ndarray) -> None:
    """Write one channel as a little-endian ``.pfm``; `read_pfm` returns it as (H, W).

    Parameters
    ----------
    path : str or os.PathLike
    values : np.ndarray
        (H, W) or (H, W, 1), stored as float32.

    Raises
    ------
    DataError
        The file cannot be written.
    ValueError
        The array has another shape.
    """
    if values.ndim not in (2, 3) or values.shape[2:] not in ((), (1,)) or values.size == 0:
        raise ValueError(f"a map of one channel is (H, W), not {values.shape}")
    height, width = values.shape[:2]
    pixels = np.asarray(values, "<f4")[::-1]
    write_bytes(path, b"Pf\n%d %d\n-1.0\n" % (width, height) + pixels.tobytes())


def read_kitti_png(path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a KITTI flow PNG; returns and raises as `read_flow`.

    16 bit, in OpenCV's channel order (valid, v, u), flow = (x - 32768) / 64 px
    (Geiger et al., CVPR 2012, development kit).
    """
    pixels = decode(path, read_bytes(path), cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(f"cannot read {path}: a KITTI flow is a PNG of three 16-bit channels")
    flow = (pixels[:, :, :0:-1].astype(np.float32) - 32768) / 64
    return _known(flow, pixels[:, :, 0])


def write_kitti_png(path: PathLike, flow: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Write a KITTI flow PNG: rounded to 1/64 px and clipped to -512 .. 511.98 px.

    Parameters and errors as `write_flow`; a known value that is not finite does not fit.
    """
    flow, known = _checked(flow, mask)
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
        raise DataError(f"cannot read {path}: it is damaged or no NumPy file of numbers") from error
    if "flow" not in arrays:
        raise DataError(f"cannot read {path}: it holds no array named flow")
    flow, mask = arrays["flow"], arrays.get("mask")
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0 or flow.dtype.kind not in "fiu":
        raise DataError(f"cannot read {path}: a flow is (H, W, 2) numbers, not {flow.shape} {flow.dtype}")
    if mask is not None and mask.shape not in (flow.shape[:2], (*flow.shape[:2], 1)):
        raise DataError(f"cannot read {path}: its mask {mask.shape} does not fit {flow.shape}")
    return _known(flow, mask)


def _write_numpy(path: PathLike, flow: np.ndarray, mask: np.ndarray | None) -> None:
    flow, known = _checked(flow, mask)
    buffer = io.BytesIO()
    if Path(path).suffix.lower() == ".npy":
        flow[~known] = np.nan
        np.save(buffer, flow)
    elif mask is None:
        np.savez_compressed(buffer, flow=flow)
    else:
        flow[~known] = 0
        np.savez_compressed(buffer, flow=flow, mask=known[:, :, None] * np.uint8(255))
    write_bytes(path, buffer.getvalue())


def _check_size(path: PathLike, height: int, width: int, pixel_bytes: int, held: int) -> None:
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        raise DataError(f"cannot read {path}: its header states the absurd size {height}x{width}")
    needed = height * width * pixel_bytes
    if held != needed:
        fault = "cut short" if held < needed else "followed by something else"
        raise DataError(
            f"cannot read {path}: {height}x{width} pixels need {needed} bytes after the header, "
            f"there are {held}: it is {fault}"
        )


def _known(flow: np.ndarray, valid: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return flow and mask as every reader does, from stored values and a file's own mask."""
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which is unknown
        flow = np.array(flow, dtype=np.float32, order="C")
    within = np.abs(flow) <= _UNKNOWN_ABOVE  # false for NaN, too
    known = within[..., 0] & within[..., 1]  # many times faster than all(axis=2)
    if valid is not None:
        known &= valid.reshape(known.shape) != 0
    flow[~known] = 0
    return flow, known[:, :, None] * np.uint8(255)


def _checked(flow: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a float32 copy of the flow, and the mask as (H, W) bool."""
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0:
        raise ValueError(f"a flow is (H, W, 2), not {flow.shape}")
    if mask is None:
        known = np.ones(flow.shape[:2], bool)
    elif mask.shape in (flow.shape[:2], (*flow.shape[:2], 1)):
        known = mask.reshape(flow.shape[:2]) != 0
    else:
        raise ValueError(f"the mask {mask.shape} does not fit the flow {flow.shape}")
    return np.array(flow, dtype=np.float32, order="C"), known
