"""The one place that imports MXNet: ``from maskflownet.network.compat import mx``.

MXNet's last release dates from 2022. Importing it fails on NumPy >= 1.24 (scalar aliases such as
``np.bool``), on NumPy >= 2 (constants, renamed and financial functions that ``mxnet.numpy`` copies
by name) and on Python >= 3.12 (``distutils``, which setuptools still carries).
SciPy 2 drops ``scipy.sparse.csr``, which every ``mx.nd.array`` looks up where SciPy is installed.
`restore` puts back exactly the missing names, and only where they are missing.

The wheel mxnet-cu117 looks for CUDA's libraries only on the system's paths. A library that is already loaded under
the wanted name satisfies it, too. So `preload` loads those of NVIDIA's own `-cu11` wheels before MXNet is imported.
"""

import ctypes
import importlib.util
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np

try:
    import scipy.sparse
except ImportError:
    scipy = None  # MXNet works without it

SCALARS = {"bool": bool, "int": int, "float": float, "complex": complex, "object": object}
CONSTANTS = {
    "PZERO": 0.0,
    "NZERO": -0.0,
    "NINF": -np.inf,
    "PINF": np.inf,
    "NAN": np.nan,
    "NaN": np.nan,
    "Inf": np.inf,
    "Infinity": np.inf,
    "infty": np.inf,
}
RENAMED = {
    "alltrue": "all",
    "sometrue": "any",
    "in1d": "isin",
    "msort": "sort",
    "round_": "round",
    "product": "prod",
    "cumproduct": "cumprod",
    "trapz": "trapezoid",
}
# mxnet.numpy falls back to these by name when it is imported; nothing here calls them.
FINANCIAL = dict.fromkeys(("fv", "ipmt", "irr", "mirr", "nper", "npv", "pmt", "ppmt", "pv", "rate"))


def restore() -> None:
    """Give NumPy the names that MXNet 1.9.1 looks up while it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hasattr(np, "bool") warns on NumPy 1.20 to 1.23
        for name, value in {**SCALARS, **CONSTANTS, **FINANCIAL}.items():
            if not hasattr(np, name):
                setattr(np, name, value)
        for name, replacement in RENAMED.items():
            if not hasattr(np, name) and hasattr(np, replacement):
                setattr(np, name, getattr(np, replacement))
        if scipy is not None and not hasattr(scipy.sparse, "csr"):
            scipy.sparse.csr = scipy.sparse


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


restore()
preload()

import mxnet as mx  # noqa: E402

__all__ = ["mx"]
