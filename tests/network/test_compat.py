"""MXNet imports on every NumPy, through one module."""

import re
import types
from pathlib import Path

import numpy as np
from maskflownet.network import compat
from maskflownet.settings.folders import ROOT

from tests.programs import python


def test_mxnet_is_imported_in_one_place():
    pattern = re.compile(r"^\s*(import mxnet|from mxnet)", re.MULTILINE)
    sources = (p for p in ROOT.rglob("*.py") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts))
    importing = [path.relative_to(ROOT) for path in sources if pattern.search(path.read_text())]
    assert importing == [Path("network/compat.py")]


def test_restore_adds_what_is_missing_and_leaves_the_rest(monkeypatch):
    """In a stand-in for NumPy's newest namespace: all that it has but the names that MXNet misses."""
    gone = {*compat.SCALARS, *compat.CONSTANTS, *compat.RENAMED, *compat.FINANCIAL}
    bare = types.SimpleNamespace(**{k: v for k, v in vars(np).items() if k not in gone})
    bare.trapezoid = getattr(np, "trapezoid", np.sum)  # absent before NumPy 2
    bare.pmt = "kept"
    monkeypatch.setattr(compat, "np", bare)
    compat.restore()
    assert bare.bool is bool
    assert np.inf == bare.PINF == -bare.NINF
    assert np.isnan(bare.NaN)
    assert bare.product([2, 3]) == 6
    assert bare.in1d([1, 5], [5]).tolist() == [False, True]
    assert bare.pmt == "kept"


def test_mxnet_computes_beside_the_numpy_that_is_installed():
    program = (
        "import warnings; warnings.simplefilter('error', FutureWarning)\n"
        "from maskflownet.network.compat import mx\n"
        "assert float(mx.nd.ones((2, 3)).sum().asscalar()) == 6\n"
        "assert mx.nd.array([1.5]).asnumpy().tolist() == [1.5]\n"
        "print(mx.__version__)"
    )
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1.")
