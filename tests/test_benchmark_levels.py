"""The table of the decoder's levels: its last line is the network's own flow."""

import re

import numpy as np
import pytest

from engine.errors import UserError
from engine.metrics import end_point_error
from reader.scene_options import SceneOptions
from reader.synthetic import Synthetic

pytest.importorskip("torch", reason="PyTorch is not installed: requirements-torch.txt")


def test_the_last_level_is_the_flow_of_the_network(capsys):
    from benchmarks import levels  # noqa: PLC0415
    from engine.predictor import Predictor  # noqa: PLC0415

    levels.main(["MaskFlownet_S", "-c", "d43", "--count", "1"])
    rows = re.findall(r"^\| (\d) \(\d+\) \| (.*) \|$", capsys.readouterr().out, re.M)
    assert [row[0] for row in rows] == ["6", "5", "4", "3", "2"]
    zero, true, found = np.array([[float(v) for v in row[1].split("|")] for row in rows]).T
    scenes = Synthetic(1, *levels.SIZE, levels.SEED, options=SceneOptions(motion_scale=2.0))
    scene = scenes.scene(0)
    assert zero == pytest.approx(end_point_error(0 * scene.flow, scene.flow).mean(), abs=0.01)
    assert (np.diff(true) < 0).all()
    flow = Predictor.load("MaskFlownet_S", "d43", engine="torch")(scene.img1, scene.img2).flow
    assert found[-1] == pytest.approx(end_point_error(flow, scene.flow).mean(), abs=0.006)


def test_a_checkpoint_of_the_other_network_is_refused(random_checkpoints):
    from benchmarks import levels  # noqa: PLC0415

    with pytest.raises(UserError, match=r"no checkpoint of MaskFlownet: it has no \S+"):
        levels.main(["MaskFlownet", "-c", str(random_checkpoints["MaskFlownet_S"]), "--count", "1"])
