"""Names that MXNet 1.9.1 expects from NumPy and that newer releases removed.

MXNet's last release dates from 2022. Importing it fails on NumPy >= 1.24 (scalar aliases such as
``np.bool``), on NumPy >= 2 (constants, renamed and financial functions that ``mxnet.numpy`` copies
by name) and on Python >= 3.12 (``distutils``, which setuptools still carries).
SciPy 2 drops ``scipy.sparse.csr``, which every ``mx.nd.array`` looks up where SciPy is installed.
`restore` puts back exactly the missing names, and only where they are missing.
"""

from __future__ import annotations

import warnings

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
FINANCIAL = ("fv", "ipmt", "irr", "mirr", "nper", "npv", "pmt", "ppmt", "pv", "rate")


def _absent(name: str):
    def removed(*_args, **_kwargs):
        raise AttributeError(f"numpy.{name} was removed from NumPy and has no replacement here")

    removed.__name__ = name
    return removed


def restore() -> None:
    """Give NumPy the names that MXNet 1.9.1 looks up while it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hasattr(np, "bool") warns on NumPy 1.20 to 1.23
        for name, value in {**SCALARS, **CONSTANTS}.items():
            if not hasattr(np, name):
                setattr(np, name, value)
        for name, replacement in RENAMED.items():
            if not hasattr(np, name) and hasattr(np, replacement):
                setattr(np, name, getattr(np, replacement))
        for name in FINANCIAL:
            if not hasattr(np, name):
                setattr(np, name, _absent(name))
        if scipy is not None and not hasattr(scipy.sparse, "csr"):
            scipy.sparse.csr = scipy.sparse
