"""MXNet's `.params` files without MXNet: a dictionary of arrays, little-endian.

u64 0x112, u64 0, u64 count; per array u32 0xF993FAC9, i32 storage type 0, u32 dimensions, i64 each,
i32 device type, i32 device id, i32 data type, the data; then u64 count and per name u64 length and
the bytes. Arrays come back in the type that they are stored in.
"""

import math
import struct
from pathlib import Path

import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.files import write_bytes

LIST_MAGIC = 0x112
ARRAY_MAGIC = 0xF993FAC9  # of MXNet 1.x
OLD_MAGIC, NUMPY_MAGIC = 0xF993FAC8, 0xF993FACA  # of MXNet 0.11 and 2; before them it was the number of dimensions
DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
MAX_DIMENSIONS = 32
CPU = 1


class _Cursor:
    """Reads a buffer front to back and never past its end."""

    def __init__(self, path, data):
        self.path, self.data, self.at = path, memoryview(data), 0

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.at:
            raise UserError(f"{self.path} is truncated or damaged: it ends inside an array or name")
        self.at += size
        return self.data[self.at - size : self.at]

    def unpack(self, layout: str):
        values = struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))
        return values[0] if len(values) == 1 else values


def read_params(path) -> dict[str, np.ndarray]:
    """Read the arrays of a `.params` file, all of them finite, by name.

    Raises
    ------
    UserError
        The file is missing, foreign, truncated or damaged.
    """
    path = Path(path)
    try:
        cursor = _Cursor(path, path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    if len(cursor.data) == 0:
        raise UserError(f"{path} is empty, so it is no checkpoint")
    if len(cursor.data) < 8 or cursor.unpack("Q") != LIST_MAGIC:
        raise UserError(f"{path} is no MXNet .params file: it does not begin with its magic number")
    cursor.unpack("Q")
    arrays = [_read_array(cursor) for _ in range(cursor.unpack("Q"))]
    names = [_read_name(cursor) for _ in range(cursor.unpack("Q"))]
    if len(names) != len(arrays) or len(set(names)) != len(names):
        raise UserError(f"{path} is no checkpoint: its arrays have no names of their own")
    if cursor.at != len(cursor.data):
        raise UserError(f"{path} is damaged: bytes follow after its last name")
    found = dict(zip(names, arrays))
    check_finite(found, f"{path} is damaged")
    return found


def check_finite(arrays: dict[str, np.ndarray], what: str) -> None:
    """Raise a UserError, `what` and the array's name, if a value is NaN or infinite."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{what}: {name} holds values that are not finite")


def _read_array(cursor) -> np.ndarray:
    magic, storage, size = cursor.unpack("I"), 0, "q"
    if magic in {ARRAY_MAGIC, NUMPY_MAGIC}:
        storage, dimensions = cursor.unpack("iI")
    elif magic == OLD_MAGIC:
        dimensions = cursor.unpack("I")
    elif 0 < magic <= MAX_DIMENSIONS:
        dimensions, size = magic, "I"
    else:
        raise UserError(f"{cursor.path} is damaged: an array does not begin with its magic number")
    if storage != 0 or dimensions > MAX_DIMENSIONS:
        raise UserError(f"{cursor.path} holds an array that is sparse or has absurd dimensions")
    shape = [cursor.unpack(size) for _ in range(dimensions)]
    if dimensions == 0:
        raise UserError(f"{cursor.path} holds an array without dimensions")
    _device_type, _device_id, code = cursor.unpack("iii")
    if code not in DTYPES or min(shape) < 1:
        raise UserError(f"{cursor.path} is damaged: an array has an impossible shape or type")
    dtype = np.dtype(DTYPES[code])
    return np.frombuffer(cursor.take(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


def _read_name(cursor) -> str:
    try:
        return str(cursor.take(cursor.unpack("Q")), "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{cursor.path} is damaged: a name is not text") from error


def params_bytes(arrays: dict[str, np.ndarray], path) -> bytes:
    """The content of a `.params` file, which MXNet reads as its own.

    Raises
    ------
    ValueError
        An array has a type that the layout does not know, or no values.
    UserError
        A value is NaN or infinite; the message says that `path` is not written.
    """
    check_finite(arrays, f"{path} is not written")
    chunks = [struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays))]
    for name, array in arrays.items():
        if array.dtype not in CODES or array.ndim == 0 or array.size == 0:
            raise ValueError(f"{name}: {array.dtype} of shape {array.shape} cannot be stored")
        chunks.append(struct.pack("<IiI", ARRAY_MAGIC, 0, array.ndim))
        chunks.append(struct.pack(f"<{array.ndim}q", *array.shape))
        chunks.append(struct.pack("<iii", CPU, 0, CODES[array.dtype]))
        chunks.append(np.ascontiguousarray(array).data.cast("B"))
    chunks.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        text = name.encode()
        chunks.append(struct.pack("<Q", len(text)) + text)
    return b"".join(chunks)


def write_params(path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name; errors as in `params_bytes`."""
    write_bytes(path, params_bytes(arrays, path))
