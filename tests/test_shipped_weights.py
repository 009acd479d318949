"""The checkpoint that comes with the repository: found by its run id or by itself, and as good as it was."""

import maskflownet
import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import read_checkpoint
from maskflownet.checkpoints.params import read_params
from maskflownet.errors import UserError
from maskflownet.inference.metrics import means, measure
from maskflownet.reader.formats import read_flow, read_image
from maskflownet.settings.folders import ROOT
from maskflownet.tools.halve import main as halve

RUN, EXAMPLES = "d43", ROOT / "examples"
# px, of the example pair, whose motion is 8.56 px on average.
ERRORS = {"MaskFlownet": 1.94, "MaskFlownet_S": 2.10}


@pytest.mark.parametrize("network", ERRORS)
@pytest.mark.parametrize("engine", ["mxnet", "torch"])
def test_the_example_pair(engine, network):
    """By the whole network, and by the first stage alone that it holds."""
    pytest.importorskip("maskflownet.network.compat" if engine == "mxnet" else "torch")
    found = maskflownet.load(network, engine=engine)(*(read_image(EXAMPLES / f"example_{i}.png") for i in (1, 2)))
    measures = means(measure(found.flow, *read_flow(EXAMPLES / "example_flow.png")))
    assert measures["epe"] == pytest.approx(ERRORS[network], abs=0.01)


def test_a_halved_checkpoint_is_the_same_to_float16(tmp_path):
    checkpoint = read_checkpoint(RUN)
    halve(["-c", str(checkpoint.path), "--folder", str(tmp_path)])
    copy = read_checkpoint(tmp_path / checkpoint.path.name)
    assert copy.record.run == checkpoint.record.run and copy.record.step == checkpoint.record.step
    arrays = read_params(copy.path)
    assert arrays.keys() == checkpoint.parameters.keys()
    for name, array in arrays.items():
        assert array.dtype == np.float16
        np.testing.assert_array_equal(array, checkpoint.parameters[name].astype(np.float16))


def test_halving_overwrites_nothing():
    with pytest.raises(UserError, match="exists already"):
        halve(["-c", RUN])
