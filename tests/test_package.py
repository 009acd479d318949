"""The package as others install it: what is in the wheel, and both commands and the API away from the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from maskflownet.inference.predictor import load
from maskflownet.settings.folders import ROOT, SHIPPED

BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the checkout, so that nothing is left in it; holds a run of the user's, too."""
    pytest.importorskip("setuptools", minversion="77")
    source, out = tmp_path_factory.mktemp("source") / "checkout", tmp_path_factory.mktemp("wheel")
    private = (".*", "__pycache__", "logs", "flows", "docs", "weights", "build", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*private))
    (source / "weights").mkdir()
    for path in (SHIPPED, SHIPPED.with_suffix(".yaml")):
        shutil.copy(path, source / "weights")
    (source / "weights" / "abcJan01-0000_5.params").write_bytes(b"the user's own")
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=source, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a command with the wheel installed, in an empty folder away from the checkout."""
    site, home = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("home")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)

    def command(program, *arguments):
        script = program.startswith("maskflownet")
        line = [str(site / "bin" / program)] if script else [sys.executable, "-c", program]
        line += map(str, arguments)
        environment = {**os.environ, "PYTHONPATH": str(site)}
        return subprocess.run(line, cwd=home, env=environment, capture_output=True, text=True, check=False)

    command.home = home
    return command


def test_the_wheel_holds_the_package_and_nothing_of_the_users(wheel):
    names = {name.removeprefix("maskflownet/") for name in zipfile.ZipFile(wheel).namelist()}
    packages = {str(path.parent.relative_to(ROOT)) for path in ROOT.rglob("__init__.py")} - {"."}
    packages = {path for path in packages if not path.startswith(("tests", ".", "build"))}
    assert packages <= {os.path.dirname(name) for name in names}
    for folder, pattern in (("config_folder", "*.yaml"), ("network/graphs", "*"), ("report/page", "*")):
        there = {f"{folder}/{path.name}" for path in (ROOT / folder).glob(pattern)}
        assert there and there <= names
    assert {name for name in names if name.startswith("weights")} == {
        f"weights/{SHIPPED.name}", f"weights/{SHIPPED.stem}.yaml"
    }  # fmt: skip
    assert not [name for name in names if name.startswith(("tests", "logs", "flows", "docs"))]


def test_maskflownet_predict_away_from_the_checkout(installed):
    """Without -c the shipped weights compute, though there is no folder of weights."""
    pair = [ROOT / "examples" / f"example_{i}.png" for i in (1, 2)]
    given = [f"--image_{i}={path}" for i, path in enumerate(pair, 1)]
    done = installed("maskflownet-predict", "flow.npy", "MaskFlownet_S", *given)
    assert done.returncode == 0, done.stderr
    expected = load("MaskFlownet_S", str(SHIPPED))(*pair).flow
    np.testing.assert_allclose(np.load(installed.home / "flow.npy"), expected, atol=1e-3)


def test_maskflownet_trains_into_the_working_folder(installed):
    scene = "dataset: synthetic\nsynthetic: {length: 4, validation_length: 1, size: [64, 64]}\nbatch_size: 1\n"
    shape = "orig_shape: [64, 64]\ntarget_shape: [64, 64]\naugmentation: null\n"
    (installed.home / "data.yaml").write_text(scene + shape)
    line = ["MaskFlownet_S", "--dataset_cfg", "data.yaml", "--steps", "1", "-c", "97f", "--clear_steps"]
    done = installed("maskflownet", *line, "--output_root", "elsewhere")
    assert done.returncode == 0, done.stderr
    assert len(list(installed.home.glob("elsewhere/weights/*_1.params"))) == 1
    unknown = installed("maskflownet", "MaskFlownet_S", "-c", "fff", "--valid")
    assert unknown.stderr == "error: no checkpoint fff in weights: there are 97fNov30-0847\n"


def test_the_api_away_from_the_checkout(installed):
    program = (
        "import sys, numpy as np, maskflownet\n"
        "assert 'mxnet' not in sys.modules and 'cv2' not in sys.modules\n"
        "image = np.zeros((64, 64, 3), np.uint8)\n"
        "for network in ('MaskFlownet', 'MaskFlownet_S'):\n"
        "    predictor = maskflownet.load(network)\n"
        "    assert isinstance(predictor, maskflownet.Predictor)\n"
        "    flow, mask, warped = predictor(image, image)\n"
        "    print(flow.shape, maskflownet.flow_to_colour(flow).shape)\n"
        "print(maskflownet.__version__, maskflownet.__file__)\n"
    )
    done = installed(program)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["(64, 64, 2) (64, 64, 3)"] * 2
    assert lines[2].startswith("0.2.0 ") and str(ROOT) not in lines[2]
