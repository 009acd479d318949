"""The checkpoint that comes with the repository: found by its run id or by itself, and as good as it was."""

import maskflownet
import pytest
from maskflownet.inference.metrics import means, measure
from maskflownet.reader.formats import read_flow, read_image
from maskflownet.settings.folders import ROOT

EXAMPLES = ROOT / "examples"
# px, of the example pair, whose motion is 8.56 px on average.
ERRORS = {"MaskFlownet": 1.354, "MaskFlownet_S": 1.410}


@pytest.mark.parametrize(
    ("engine", "network"), [("mxnet", "MaskFlownet"), ("torch", "MaskFlownet"), ("torch", "MaskFlownet_S")]
)
def test_the_example_pair(engine, network):
    """By the whole network, and by the first stage alone that it holds."""
    pytest.importorskip("maskflownet.network.compat" if engine == "mxnet" else "torch")
    found = maskflownet.load(network, engine=engine)(*(read_image(EXAMPLES / f"example_{i}.png") for i in (1, 2)))
    measures = means(measure(found.flow, *read_flow(EXAMPLES / "example_flow.png")))
    assert measures["epe"] == pytest.approx(ERRORS[network], abs=0.01)
