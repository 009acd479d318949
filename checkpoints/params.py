"""Files of parameters: MXNet's `.params` without MXNet, safetensors, and PyTorch's; other programs' names and scales.

A `.params` file is little-endian: u64 0x112, u64 0, u64 count; per array u32 0xF993FAC9, i32 storage type 0, u32
dimensions, i64 each, i32 device type, i32 device id, i32 data type, the data; then u64 count and per name u64 length
and the bytes. Arrays come back in the type that they are stored in.
"""

import io
import math
import re
import struct
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.errors import UserError, imported
from maskflownet.network.architecture import DENSE_CHANNELS, LEVELS, PYRAMID_CHANNELS
from maskflownet.reader.files import read_bytes
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

LIST_MAGIC = 0x112
ARRAY_MAGIC, NUMPY_MAGIC = 0xF993FAC9, 0xF993FACA  # of MXNet 1.x and 2
DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
MAX_DIMENSIONS = 32
MATCHES = 81  # channels of MaskFlownet_S's cost volumes
CPU = 1
SUFFIXES = (".params", ".safetensors", ".pth", ".ckpt")  # that `file_bytes` writes
_METADATA = "maskflownet"  # key of the record
_MMFLOW_HEAD = "maskflownetS."
_PORTS, _GLUONS = re.compile(r"(\bupfeat\d)\.(weight|bias)$"), re.compile(r"(\bupfeat\d)\.0\.(weight|bias)$")


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


def read_params(path, data: bytes | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of a `.params` file by name, or of its `data`.

    UserError: The file is missing, foreign, truncated or damaged.
    """
    cursor = _Cursor(path, read_bytes(path) if data is None else data)
    if len(cursor.data) < 8 or cursor.unpack("Q") != LIST_MAGIC:
        raise UserError(
            f"{path} is no MXNet .params file: it does not begin with its magic number, nor with that of PyTorch or "
            "safetensors"
        )
    cursor.unpack("Q")
    arrays = [_read_array(cursor) for _ in range(cursor.unpack("Q"))]
    names = [_read_name(cursor) for _ in range(cursor.unpack("Q"))]
    if len(names) != len(arrays) or len(set(names)) != len(names):
        raise UserError(f"{path} is no checkpoint: its arrays have no names of their own")
    if cursor.at != len(cursor.data):
        raise UserError(f"{path} is damaged: bytes follow after its last name")
    return dict(zip(names, arrays))


def check_finite(arrays: dict[str, np.ndarray], what: str) -> None:
    """Raise a UserError, `what` and the array's name, if a value is NaN or infinite."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{what}: {name} holds values that are not finite")


def _read_array(cursor) -> np.ndarray:
    if cursor.unpack("I") not in {ARRAY_MAGIC, NUMPY_MAGIC}:
        raise UserError(f"{cursor.path} is damaged: an array does not begin with its magic number")
    storage, dimensions = cursor.unpack("iI")
    if storage != 0 or not 0 < dimensions <= MAX_DIMENSIONS:
        raise UserError(f"{cursor.path} holds an array that is sparse or has absurd dimensions")
    shape = [cursor.unpack("q") for _ in range(dimensions)]
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

    ValueError: An array has a type that the layout does not know, or no values.
    UserError: A value is NaN or infinite; the message says that `path` is not written.
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


class Parameters(NamedTuple):
    """What a checkpoint file of any program holds."""

    arrays: dict[str, np.ndarray]  # by structural name
    record: str | None = None  # JSON: safetensors' metadata, as `file_bytes` writes it
    colour: str = "RGB"  # order of the channels that the program feeds
    note: str = ""  # what the user should know of the program's files


def read_parameters(path) -> Parameters:
    """Read a checkpoint: its content, not its suffix, tells MXNet's, PyTorch's and safetensors' files apart.

    It may be cattaneod's and ptlflow's MaskFlownet or mmflow's MaskFlowNetS: names and scales become those of MXNet.

    UserError: The file is missing, foreign or damaged, needs code to be read, or is PyTorch's and PyTorch is not
    installed.
    """
    data, record = read_bytes(path), None
    if data[8:9] == b"{":
        arrays, record = _read_safetensors(path)
    elif data[:2] == b"PK" or data[:1] == b"\x80":  # since PyTorch 1.6, and before: pickles
        arrays = _read_torch(path)
    else:
        arrays = read_params(path, data)
        # Files that were exported with a symbol carry these marks before the names.
        arrays = {re.sub("^(arg|aux):", "", name): array for name, array in arrays.items()}
    head = {name[len(_MMFLOW_HEAD) :]: array for name, array in arrays.items() if name.startswith(_MMFLOW_HEAD)}
    if head:
        note = "mmflow's full network swaps the flow's axes and the mask's scale before its second stage: only its "
        return Parameters(_of_mmflow(head), None, "BGR", f"{note}{_MMFLOW_HEAD} part, a MaskFlownet_S, is taken")
    if any(name.startswith("encoder.layers.") for name in arrays):
        return Parameters(_of_mmflow(arrays), None, "BGR", "it is mmflow's MaskFlowNetS")
    return Parameters({_PORTS.sub(r"\1.0.\2", name): array for name, array in arrays.items()}, record)


def _read_safetensors(path) -> tuple[dict[str, np.ndarray], str | None]:
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(_METADATA)  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is a damaged safetensors file: {error}") from error
    except TypeError as error:
        raise UserError(f"{path} holds arrays that NumPy cannot read: {error}") from error


def _import_torch(path):
    advice = "pip install torch, or convert it elsewhere to .safetensors with python -m maskflownet.tools.convert"
    return imported("torch", f"{path} is a file for PyTorch, which cannot be imported", advice)


def _read_torch(path) -> dict[str, np.ndarray]:
    torch = _import_torch(path)
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise UserError(f"{path} could run code in PyTorch before 2.6 (CVE-2025-32434), this is {torch.__version__}")
    try:
        with warnings.catch_warnings():  # of pickles that are refused anyway
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = content.get("state_dict", content)
        for name, tensor in tensors.items():
            if not isinstance(name, str) or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                raise ValueError(f"{name} is larger than its values")
        return {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in tensors.items()}
    except MemoryError:
        raise
    except Exception as error:  # PyTorch and what it calls have no one class
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = f"it needs {code[1]}, and no code of a file is run" if code else "it is damaged or holds no state_dict"
        raise UserError(f"{path} is not read by PyTorch: {why}; save the state_dict alone") from error


# Names of arrays in mmflow, up to "weight" or "bias", and in MXNet.
_LEVEL, _WARP = (rf"decoder\.{block}\.level(\d)\." for block in ("decoders", "corr_block"))
_MMFLOW = {
    r"encoder\.layers\.(\d)\.layers\.([012])\.conv": lambda m: f"conv{int(m[1]) + 1}{'abc'[int(m[2])]}.0",
    _LEVEL + r"dense_net\.layers\.(\d)\.layers\.conv": r"conv\1_\2.0",
    _LEVEL + r"predict_(flow|mask)": r"pred_\2\1",
    _LEVEL + r"upfeat_layer\.0": lambda m: f"upfeat{int(m[1]) - 1}.0",
    _WARP + r"warp\.deconv": r"deform\1",
    _WARP + r"warp\.deconv_bias": r"deform\1.bias",
    _WARP + r"warp\.tradeoff_conv": r"conv\1f.0",
    r"decoder\.post_processor\.layers\.([0-5])\.conv": lambda m: f"dc_conv{int(m[1]) + 1}.0",
    r"decoder\.post_processor\.layers\.6": "dc_conv7",
}


def _of_mmflow(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of mmflow's MaskFlowNetS by MXNet's names and in its scale; unknown ones keep their names.

    mmflow's cost volume is a sum over the C channels of a level, MXNet's the mean: the weights that read it are
    multiplied by C. That is exact, as LeakyReLU is positively homogeneous.
    """
    found = {}
    for theirs, array in arrays.items():
        fitting = (re.sub(f"^{old}(?=\\.|$)", new, theirs) for old, new in _MMFLOW.items())
        name = next((name for name in fitting if name != theirs), theirs)
        found[name] = array.reshape(-1) if name.startswith("deform") and name.endswith("bias") else array
    *starts, end = np.cumsum([0, *DENSE_CHANNELS])  # where the cost volume begins in the inputs of a dense block
    for level in LEVELS:
        readers = [(f"conv{level}_{i}.0", start, 1) for i, start in enumerate(starts)]
        readers += [(f"pred_flow{level}", end, 1), (f"pred_mask{level}", end, 1), (f"upfeat{level - 1}.0", end, 0)]
        readers += [("dc_conv1.0", end, 1)] if level == min(LEVELS) else []
        for stem, start, axis in readers:
            array = found.get(f"{stem}.weight", np.empty(0))
            if array.ndim == 4:
                found[f"{stem}.weight"] = array = array.astype(np.float32)
                np.moveaxis(array, axis, 0)[start : start + MATCHES] *= PYRAMID_CHANNELS[level]
    return found


def file_bytes(path, arrays: dict[str, np.ndarray], record: str) -> bytes:
    """The content of a checkpoint file, whose suffix chooses its program; `record` is for safetensors' metadata.

    `.params`: MXNet. `.safetensors`: any. `.pth`, `.ckpt`: PyTorch, with the names of cattaneod's and ptlflow's ports,
    the latter as ptlflow loads it.
    """
    suffix = Path(path).suffix
    if suffix == ".params":
        return params_bytes(arrays, path)
    check_finite(arrays, f"{path} is not written")
    if suffix == ".safetensors":
        return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, {_METADATA: record})
    torch = _import_torch(path)
    tensors = {_GLUONS.sub(r"\1.\2", name): torch.tensor(array) for name, array in arrays.items()}
    stream = io.BytesIO()
    torch.save({"state_dict": tensors} if suffix == ".ckpt" else tensors, stream)
    return stream.getvalue()
