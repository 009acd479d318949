"""MXNet imports on every NumPy, through one module."""

import re
import types
from pathlib import Path

import numpy as np
import pytest
from maskflownet.network import compat
from maskflownet.settings.folders import ROOT

from tests.programs import python


def test_mxnet_is_imported_in_one_place():
    pattern = re.compile(r"^\s*(import mxnet|from mxnet)", re.MULTILINE)
    sources = (p for p in ROOT.rglob("*.py") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts))
    importing = [path.relative_to(ROOT) for path in sources if pattern.search(path.read_text())]
    assert importing == [Path("network/compat.py")]


@pytest.fixture
def bare_numpy(monkeypatch):
    """A stand-in for NumPy's newest namespace: all that it has but the names that MXNet misses."""
    gone = {*compat.SCALARS, *compat.CONSTANTS, *compat.RENAMED, *compat.FINANCIAL}
    bare = types.SimpleNamespace(**{k: v for k, v in vars(np).items() if k not in gone})
    bare.trapezoid = getattr(np, "trapezoid", np.sum)  # absent before NumPy 2
    monkeypatch.setattr(compat, "np", bare)
    return bare


def test_restore_adds_what_is_missing_and_leaves_the_rest(bare_numpy):
    bare_numpy.pmt = "kept"
    compat.restore()
    assert bare_numpy.bool is bool
    assert np.inf == bare_numpy.PINF == -bare_numpy.NINF
    assert np.isnan(bare_numpy.NaN)
    assert bare_numpy.product([2, 3]) == 6
    assert bare_numpy.in1d([1, 5], [5]).tolist() == [False, True]
    assert bare_numpy.pmt == "kept"


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
