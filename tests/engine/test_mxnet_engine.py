"""The MXNet engine: the names that Gluon gives the parameters; see test_contract.py for the rest."""

import pytest
from maskflownet.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from maskflownet.engine.mxnet import build_network

from tests.known_engine import make


@pytest.mark.parametrize("network", ["MaskFlownet_S", "MaskFlownet"])
def test_gluon_itself_loads_a_saved_file_by_the_same_names(random_checkpoints, tmp_path, network):
    engine = make("mxnet", load_checkpoint(random_checkpoints[network]))
    save_checkpoint(tmp_path / "x.params", engine.parameters(), engine.record)
    fresh = build_network(network, 1.0, "paper")
    fresh.load_parameters(str(tmp_path / "x.params"))
    fresh.save_parameters(str(tmp_path / "y.params"))
    theirs = load_checkpoint(tmp_path / "y.params").parameters
    for name, array in engine.parameters().items():
        assert (theirs[name] == array).all(), name
