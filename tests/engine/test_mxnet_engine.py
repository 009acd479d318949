"""The MXNet engine: its contexts, and the names that Gluon gives the parameters; see test_contract.py for the rest."""

import pytest
from maskflownet.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from maskflownet.engine.mxnet import build_network, contexts
from maskflownet.errors import UserError
from maskflownet.network.compat import mx

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


def test_no_gpu_means_the_cpu():
    assert contexts("") == [mx.cpu()]


@pytest.mark.skipif(mx.runtime.Features().is_enabled("CUDA"), reason="this MXNet has CUDA")
def test_gpu_without_cuda_says_what_to_install():
    with pytest.raises(UserError, match="this MXNet was not built: install one that was"):
        contexts("0")
