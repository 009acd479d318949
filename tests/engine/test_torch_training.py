"""Training with the torch engine: equal to MXNet's, resumed exactly, moved between the engines."""

# ruff: noqa: E402 - nothing of PyTorch is imported where the tests are skipped

import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet.checkpoints.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from maskflownet.checkpoints.params import read_params
from maskflownet.checkpoints.records import Record
from maskflownet.engine.contract import NotFinite, TrainingSettings
from maskflownet.engine.torch.engine import TorchEngine
from maskflownet.engine.torch.training import ALIGNMENT, FlatAdam, corrected_rate
from maskflownet.errors import UserError
from maskflownet.network.architecture import HEAD
from maskflownet.network.draws import draw_noise, draw_step
from maskflownet.reader.pool import Batch
from maskflownet.settings.configs import load_network_config
from maskflownet.settings.datasets import load_data_config
from maskflownet.training.snapshots import state_path

from tests.torch_runs import RUN, largest_difference, start, train_torch_in, training_differences
from tests.training_runs import NETWORK, train_in, write_configs

CPU = torch.device("cpu")


def assert_same_training(path_a, path_b, parameters, moments):
    """Equal but for the order of sums. A step at this rate moves the parameters by some 3e-3."""
    found = training_differences(path_a, path_b)
    assert found["parameters"] < parameters
    assert max(found["mean"], found["var"]) < moments


def test_both_engines_train_the_same_and_go_on_with_each_other(tmp_path, random_checkpoints):
    """Four steps of MXNet, of torch, and one of each with three of the other."""
    pytest.importorskip("mxnet")
    write_configs(tmp_path)
    source = read_checkpoint(random_checkpoints["MaskFlownet_S"])
    trainers = {"aaa": train_in, "bbb": train_torch_in}
    paths, ones = {}, []
    for name, train in trainers.items():
        begin = {"checkpoint": source, "clear_steps": True, "run": f"{name}Jan01-0000"}
        ones.append(train(tmp_path, steps=1, **begin))
        other = trainers["bbb" if name == "aaa" else "aaa"]
        paths[f"{name} and then the other"] = other(tmp_path, checkpoint=read_checkpoint(ones[-1]), steps=4)
        paths[name] = train(tmp_path, steps=4, **{**begin, "run": f"{name}Jan02-0000"})
    records = [load_checkpoint(path).record for path in paths.values()]
    assert [record.engine for record in records] == ["torch", "mxnet", "mxnet", "torch"]
    assert_same_training(*ones, parameters=1e-5, moments=1e-3)
    reference = paths.pop("aaa")
    for path in paths.values():
        assert_same_training(path, reference, parameters=1e-4, moments=2e-2)


def test_ten_torch_steps_are_five_a_kill_and_five_bit_for_bit(tmp_path):
    programs = {}
    for name, kill_after in (("whole", []), ("killed", [7])):
        write_configs(tmp_path / name)
        programs[name] = start(tmp_path / name, 0, 10, *kill_after)
    for name, code in (("whole", 0), ("killed", -signal.SIGKILL)):
        _, errors = programs[name].communicate(timeout=120)
        assert programs[name].returncode == code, errors
    folder = tmp_path / "killed/weights"
    assert sorted(p.name for p in folder.glob("*.params")) == [f"{RUN}_5.params"]
    again = start(tmp_path / "killed", 0, 10)
    output, errors = again.communicate(timeout=120)
    assert "goes on at step 5 of 10" in output, errors
    results = [tmp_path / name / f"weights/{RUN}_10.params" for name in ("whole", "killed")]
    assert largest_difference(*results) == 0


def test_the_head_stays_frozen_with_torch(tmp_path, random_checkpoints):
    write_configs(tmp_path, {**NETWORK, "network": {"class": "MaskFlownet"}})
    head = read_checkpoint(random_checkpoints["MaskFlownet_S"])
    path = train_torch_in(tmp_path, checkpoint=head, steps=2, clear_steps=True)
    trained = load_checkpoint(path)
    for name, array in head.parameters.items():
        assert (trained.parameters[HEAD + name] == array).all(), name
    state = read_params(state_path(path))
    assert not [name for name in state if HEAD in name]
    assert len(state) == 2 * 128


def test_a_loss_that_is_not_finite_stops_a_torch_run(tmp_path):
    write_configs(tmp_path, checkpoint_steps=1)
    path = train_torch_in(tmp_path, steps=1)
    parameters = {k: v.copy() for k, v in read_params(path).items()}
    parameters["conv1a.0.weight"][:] = np.nan
    bad = tmp_path / "bad_5.params"
    save_checkpoint(bad, parameters, Record("MaskFlownet_S"))
    before = sorted((tmp_path / "weights").iterdir())
    with pytest.raises(NotFinite, match=r"not finite at step 1, for the samples .*\d"):
        train_torch_in(tmp_path, checkpoint=read_checkpoint(bad), clear_steps=True, steps=3)
    assert sorted((tmp_path / "weights").iterdir()) == before


def settings_of(folder, **changes) -> tuple:
    config = load_network_config(folder / "network.yaml")
    data = load_data_config(folder / "data.yaml")
    settings = TrainingSettings(
        config.optimizer, config.network.mw, data.orig_shape, data.target_shape, data.augmentation, seed=3
    )
    return config, settings._replace(**changes)


def batch_of(settings, count, seed=0):
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (count, *settings.original, 3), np.uint8) for _ in range(2)]
    flow = rng.normal(size=(count, *settings.original, 2)).astype("f4")
    mask = np.full((count, *settings.original, 1), 255, np.uint8)
    return Batch(*images, flow, mask, tuple(f"sample {i}" for i in range(count)))


def test_a_step_that_fails_leaves_everything_as_it_was(tmp_path):
    write_configs(tmp_path)
    config, settings = settings_of(tmp_path)
    engine = TorchEngine(config, [CPU])
    training = engine.training(settings)
    assert np.isfinite(training.train_batch(batch_of(settings, 2), 0, 1e-4).loss)
    before = {**engine.parameters(), **training.state()}
    batch = batch_of(settings, 2)
    batch.flow[1, 20:40] = np.nan
    with pytest.raises(NotFinite, match="for the samples sample 1$"):
        _ = training.train_batch(batch, 1, 1e-4).loss
    training.train_batch(batch_of(settings, 2), 1, 1e-4)
    after = {**engine.parameters(), **training.state()}
    assert all((after[name] == before[name]).all() for name in before)


def test_processes_draw_their_rows_of_one_batch(tmp_path):
    write_configs(tmp_path)
    _, settings = settings_of(tmp_path)
    whole = draw_step(settings, 8, step=5)
    assert len(np.unique(whole.geometry[:, 0])) == 8
    rows = [draw_step(settings, 2, 5, rank, 4) for rank in range(4)]
    for ours, theirs in zip(whole, zip(*rows)):
        assert np.array_equal(ours, np.concatenate(theirs))
    noise = draw_noise(whole.noise_seeds, settings.target)
    assert noise.shape == (8, 2, 3, *settings.target)
    assert len(np.unique(noise[:, :, :, 0, 0])) == 8 * 6
    assert abs(noise.std() - 1) < 0.01


@pytest.mark.parametrize(("epsilon", "size"), [(1e-8, 1.0), (1e-12, 1e-8)])
def test_flat_adam_is_the_written_formula(epsilon, size):
    """With gradients of common size, and so small that epsilon decides what becomes of them."""
    rng = np.random.default_rng(0)
    shapes = {"b.bias": (5,), "a.weight": (5, 3, 3, 3), "c.weight": (ALIGNMENT,)}
    values = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    parameters = {name: torch.nn.Parameter(torch.tensor(array, dtype=torch.float32)) for name, array in values.items()}
    adam = FlatAdam(parameters, decay=0.1 * size, extra=2, epsilon=epsilon)
    means, variances = (dict.fromkeys(shapes, 0.0) for _ in range(2))
    for step in range(3):
        gradients = {name: size * rng.normal(size=shape) for name, shape in shapes.items()}
        adam.set_gradients([torch.tensor(gradients[n], dtype=torch.float32) for n in adam.parameters])
        rate = torch.tensor(corrected_rate(0.01, step))
        adam.update(rate, torch.tensor(True))
        for name in shapes:
            g = gradients[name] + (0.1 * size * values[name] if name.endswith("weight") else 0)
            means[name] = 0.9 * means[name] + 0.1 * g
            variances[name] = 0.999 * variances[name] + 0.001 * g * g
            factor = np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            values[name] -= 0.01 * factor * means[name] / (np.sqrt(variances[name]) + epsilon)
            assert np.allclose(parameters[name].detach().numpy(), values[name], atol=1e-6), name
        assert parameters["a.weight"].data_ptr() % 64 == 0
    state = adam.state()
    assert np.allclose(state["mean.b.bias"], means["b.bias"], atol=1e-6 * size)
    with pytest.raises(KeyError):
        adam.load_state({})


def test_the_state_of_another_network_is_refused(tmp_path):
    write_configs(tmp_path)
    config, settings = settings_of(tmp_path)
    training = TorchEngine(config, [CPU]).training(settings)
    state = training.state()
    state.pop("mean.conv1a.0.weight")
    with pytest.raises(UserError, match="belongs to another checkpoint"):
        training.load_state(state, 1)
