"""examples/: the shipped pair is what its script renders, and shows what its README says."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from maskflownet.reader.formats import read_image, read_kitti_png, read_mask

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_script_renders_the_shipped_files(tmp_path):
    script = str(EXAMPLES / "make_example.py")
    subprocess.run([sys.executable, script, str(tmp_path)], check=True, cwd=tmp_path)
    for name in ("example_1.png", "example_2.png"):
        found = read_image(tmp_path / name).astype(int)
        shipped = read_image(EXAMPLES / name).astype(int)
        assert found.shape == (384, 512, 3)
        assert np.abs(found - shipped).mean() < 0.5  # OpenCV 4 and 5 round differently
    found, shipped = (read_kitti_png(f / "example_flow.png") for f in (tmp_path, EXAMPLES))
    assert (found[0] == shipped[0]).all(axis=-1).mean() > 0.999
    occlusions = [read_mask(f / "example_occlusion.png") for f in (tmp_path, EXAMPLES)]
    assert (occlusions[0] == occlusions[1]).mean() > 0.999


def test_example_is_as_its_readme_says():
    flow, mask = read_kitti_png(EXAMPLES / "example_flow.png")
    size = np.hypot(flow[..., 0], flow[..., 1])
    assert (mask == 255).all()
    assert (size.min(), np.median(size), size.max()) == pytest.approx((2.7, 6.0, 25.0), abs=0.05)
    assert read_mask(EXAMPLES / "example_occlusion.png").mean() / 255 == pytest.approx(0.090, abs=1e-3)
