"""MXNet's `.params` files without MXNet: a dictionary of arrays, little-endian.

u64 0x112, u64 0, u64 count; per array u32 0xF993FAC9, i32 storage type 0, u32 dimensions, i64 each,
i32 device type, i32 device id, i32 data type, the data; then u64 count and per name u64 length and
the bytes. Arrays come back in the type that they are stored in.
"""

import struct
from pathlib import Path

import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.files import atomic_path

LIST_MAGIC = 0x112
ARRAY_MAGIC = 0xF993FAC9
OLDER_ARRAY_MAGICS = (0xF993FAC8, 0xF993FACA)
DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
MAX_DIMENSIONS = 32
CPU = 1


class OtherLayout(UserError):
    """A `.params` file in another of MXNet's layouts, which MXNet itself may still read."""


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
    """Read the arrays of a `.params` file by name.

    Raises
    ------
    OtherLayout
        The file has one of MXNet's older layouts.
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
    return dict(zip(names, arrays))


def _read_array(cursor) -> np.ndarray:
    magic = cursor.unpack("I")
    if magic != ARRAY_MAGIC:
        if magic in OLDER_ARRAY_MAGICS or 0 < magic <= MAX_DIMENSIONS:
            raise OtherLayout(f"{cursor.path} has an older or newer layout than MXNet 1.x writes")
        raise UserError(f"{cursor.path} is damaged: an array does not begin with its magic number")
    storage, dimensions = cursor.unpack("iI")
    if storage != 0 or dimensions > MAX_DIMENSIONS:
        raise UserError(f"{cursor.path} holds an array that is sparse or has absurd dimensions")
    shape = [cursor.unpack("q") for _ in range(dimensions)]
    if dimensions == 0:
        raise UserError(f"{cursor.path} holds an array without dimensions")
    _device_type, _device_id, code = cursor.unpack("iii")
    if code not in DTYPES or min(shape) < 0:
        raise UserError(f"{cursor.path} is damaged: an array has an impossible shape or type")
    count = 1
    for size in shape:
        count *= size
    dtype = np.dtype(DTYPES[code])
    return np.frombuffer(cursor.take(count * dtype.itemsize), dtype).reshape(shape)


def _read_name(cursor) -> str:
    try:
        return str(cursor.take(cursor.unpack("Q")), "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{cursor.path} is damaged: a name is not text") from error


def write_params(path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name, under a temporary name first; MXNet reads the file as its own.

    Raises
    ------
    ValueError
        An array has a type that the layout does not know, or no dimensions.
    """
    chunks = [struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays))]
    for name, array in arrays.items():
        if array.dtype not in CODES or array.ndim == 0:
            raise ValueError(f"{name}: {array.dtype} of shape {array.shape} cannot be stored")
        chunks.append(struct.pack("<IiI", ARRAY_MAGIC, 0, array.ndim))
        chunks.append(struct.pack(f"<{array.ndim}q", *array.shape))
        chunks.append(struct.pack("<iii", CPU, 0, CODES[array.dtype]))
        chunks.append(np.ascontiguousarray(array).data.cast("B"))
    chunks.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        text = name.encode()
        chunks.append(struct.pack("<Q", len(text)) + text)
    with atomic_path(path) as temporary:
        Path(temporary).write_bytes(b"".join(chunks))
