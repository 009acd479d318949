"""CUDA's libraries for the wheel mxnet-cu117, out of NVIDIA's own `-cu11` wheels.

MXNet's library looks for CUDA only on the system's paths. A library that is already loaded under
the wanted name satisfies it, too, so the ones in site-packages are loaded before MXNet is imported.
"""

from __future__ import annotations

import ctypes
import importlib.util
from importlib import metadata
from pathlib import Path

WHEEL = "mxnet-cu117"
# What libmxnet.so asks for (readelf -d), each after those that it needs itself.
LIBRARIES = (
    "libcudart.so.11.0",
    "libnvToolsExt.so.1",
    "libnvrtc.so.11.2",
    "libcublasLt.so.11",
    "libcublas.so.11",
    "libcufft.so.10",
    "libcurand.so.10",
    "libcusparse.so.11",
    "libcusolver.so.11",
    "libcudnn.so.8",
    "libnccl.so.2",
)


def preload() -> list[str]:
    """Load CUDA's libraries where mxnet-cu117 is installed; the names of those that were found.

    What NVIDIA's wheels do not hold is left to the system's paths; MXNet's import names what is
    missing there.
    """
    try:
        metadata.version(WHEEL)
    except metadata.PackageNotFoundError:
        return []
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in spec.submodule_search_locations] if spec else []
    loaded = []
    for name in LIBRARIES:
        path = next((p for folder in folders for p in sorted(folder.glob(f"*/lib/{name}"))), None)
        if path is not None:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            loaded.append(name)
    return loaded
