"""Training with the torch engine: equal to MXNet's and on a GPU to the CPU's, moved between engines.

MXNet is not needed on a GPU: its sizes are those whose graphs are in `network/graphs/`.
"""

import numpy as np
import pytest
import torch
from maskflownet.checkpoints.checkpoint import beside, load_checkpoint, read_checkpoint
from maskflownet.engine.contract import NotFinite, TrainingSettings
from maskflownet.engine.torch.engine import TorchEngine
from maskflownet.engine.torch.training import ALIGNMENT, FlatAdam, corrected_rate
from maskflownet.errors import UserError
from maskflownet.network.draws import draw_noise, draw_step
from maskflownet.reader.loader import Batch
from maskflownet.training import loop

from tests.known_engine import on_gpu
from tests.torch_runs import SIZES, train_torch_in
from tests.training_runs import (
    AUGMENTATION,
    NETWORK,
    RUN,
    arrays_of,
    configs_of,
    train_in,
    training_differences,
    write_configs,
)

KINDS = ["cpu", on_gpu("gpu")]
CLIP = 40.0  # of the four steps below, the first one's norm is below it
DEVICES = {"cpu": "cpu", "gpu": "cuda:0"}


def assert_same_training(path_a, path_b, parameters, moments):
    """Equal but for the order of sums. A step at this rate moves the parameters by some 3e-3."""
    found = training_differences(path_a, path_b)
    assert found["parameters"] < parameters
    assert max(found["mean"], found["var"]) < moments


def test_both_engines_train_the_same_and_go_on_with_each_other(tmp_path, random_checkpoints):
    """Four steps of MXNet, and one of each engine with three of the other."""
    pytest.importorskip("maskflownet.network.compat")
    write_configs(tmp_path, {**NETWORK, "optimizer": {**NETWORK["optimizer"], "clip": CLIP}})
    begin = {"checkpoint": read_checkpoint(random_checkpoints["MaskFlownet_S"]), "clear_steps": True}
    trainers, runs = (train_in, train_torch_in), ("aaaJan01-0000", "bbbJan01-0000")
    ones = [train(tmp_path, steps=1, run=run, **begin) for train, run in zip(trainers, runs)]
    mixed = [train(tmp_path, checkpoint=read_checkpoint(path), steps=4) for train, path in zip(trainers[::-1], ones)]
    assert [load_checkpoint(path).record.engine for path in mixed] == ["torch", "mxnet"]
    assert "so far trained with mxnet, which rounds differently" in (tmp_path / "logs/aaaJan01-0000.log").read_text()
    assert_same_training(*ones, parameters=1e-5, moments=2e-3)
    reference = train_in(tmp_path, steps=4, run="cccJan01-0000", **begin)
    for path in mixed:
        assert_same_training(path, reference, parameters=1e-4, moments=2e-2)
    first, four = (sum(a.sum() for name, a in arrays_of(p).items() if name[:4] == "var.") for p in (ones[0], reference))
    assert 0.5 * CLIP**2 < first / 0.001 < CLIP**2  # var is 0.001 g^2, then 0.999 of it and that of the next step
    assert four / 0.001 == pytest.approx(0.999**3 * first / 0.001 + CLIP**2 * (1 + 0.999 + 0.999**2), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_made_on_the_device_are_the_same_in_a_resumed_run(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(loop, "renders_scenes", lambda engine: True)  # as on a GPU
    monkeypatch.setattr(loop, "TrainLoader", None)
    write_configs(tmp_path, NETWORK, checkpoint_steps=2, **SIZES[kind])
    whole = train_torch_in(tmp_path, kind=kind, steps=4, run=RUN).rename(tmp_path / "whole_4.params")
    beside(tmp_path / f"weights/{RUN}_4.params", ".states").rename(beside(whole, ".states"))
    checkpoint = load_checkpoint(tmp_path / f"weights/{RUN}_2.params")
    assert_same_training(train_torch_in(tmp_path, checkpoint=checkpoint, kind=kind, steps=4), whole, 1e-4, 2e-2)


def settings_of(folder) -> tuple:
    config, data = configs_of(folder)
    sizes = data.orig_shape, data.target_shape
    return config, TrainingSettings(config.optimizer, config.network.mw, *sizes, data.augmentation, seed=3)


def training_on(folder, kind, network="MaskFlownet_S", sizes=None, **data):
    write_configs(folder, {**NETWORK, "network": {"class": network}}, **{**SIZES[sizes or kind], **data})
    config, settings = settings_of(folder)
    engine = TorchEngine(config, [torch.device(DEVICES[kind])], 1)
    return settings, engine, engine.training(settings)


def batch_of(settings, count=2, seed=0):
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (count, *settings.original, 3), np.uint8) for _ in range(2)]
    flow = rng.normal(size=(count, *settings.original, 2)).astype("f4")
    mask = np.full((count, *settings.original, 1), 255, np.uint8)
    return Batch(*images, flow, mask, tuple(f"sample {i}" for i in range(count)))


def everything(engine, training) -> dict[str, np.ndarray]:
    return {**engine.parameters(), **training.state()}


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_loss_that_is_not_finite_nothing_changes(tmp_path, kind):
    settings, engine, training = training_on(tmp_path, kind)
    assert np.isfinite(training.train_batch(batch_of(settings), 0, 1e-4)().loss)
    before = everything(engine, training)
    batch = batch_of(settings)
    batch.flow[1] = np.nan
    bad, good = training.train_batch(batch, 1, 1e-4), training.train_batch(batch_of(settings), 2, 1e-4)
    with pytest.raises(NotFinite, match="not finite at step 2, for the samples sample 1$"):
        bad()
    assert np.isfinite(good().loss)
    after = everything(engine, training)
    assert all((after[name] == before[name]).all() for name in before)


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("cpu", "MaskFlownet_S"),
        *(pytest.param("gpu", name, marks=KINDS[1].marks) for name in ("MaskFlownet_S", "MaskFlownet")),
    ],
)
def test_every_device_trains_as_the_cpu_does(tmp_path, kind, network):
    """Losses that are read late, of batches that are overwritten at once, against those of step after step."""
    quiet = {"augmentation": {**AUGMENTATION, "noise": 0}}  # the GPU draws other noise
    settings, *cpu = training_on(tmp_path, "cpu", network, sizes=kind, **quiet)
    _, *other = training_on(tmp_path, kind, network, **quiet)
    expected, late = [], []
    for step in range(3):
        batch = batch_of(settings, seed=step)
        expected.append(cpu[1].train_batch(batch, step, 1e-4)())
        late.append(other[1].train_batch(batch, step, 1e-4))
        for array in batch[:4]:
            array[...] = 0
    for read, losses in zip(late, expected):
        assert read() == pytest.approx(losses, rel=1e-3)
    a, b = everything(*cpu), everything(*other)
    for name in a:
        size, bound = np.linalg.norm(a[name]), 5e-2
        if not name.startswith(("mean.", "var.")):
            # Measured by how far Adam can have moved it: where a gradient is all but zero, its
            # rounding decides the direction.
            size, bound = 3 * 1e-4 * a[name].size ** 0.5, 0.1
        assert np.linalg.norm(a[name] - b[name]) <= bound * size, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_may_be_on_the_device_already(tmp_path, kind):
    """As a scene generator on the GPU makes it, which goes on with the same memory."""
    settings, engine, training = training_on(
        tmp_path, kind, augmentation=None, orig_shape=[64, 64], target_shape=[64, 64]
    )
    start, batch, results = everything(engine, training), batch_of(settings), []
    names = engine.parameters()
    for on_device in (False, True):
        engine.assign({name: start[name] for name in names})
        training.load_state({name: array for name, array in start.items() if name not in names}, 0)
        arrays = [torch.tensor(array, device=DEVICES[kind]) for array in batch[:4]] if on_device else batch[:4]
        read = training.train_batch(Batch(*arrays, batch.names), 0, 1e-4)
        if on_device:
            for array in arrays:
                array.zero_()
        results.append((read(), engine.parameters()))
    (losses, parameters), other = results
    assert losses == pytest.approx(other[0], rel=1e-5)
    for name in parameters:
        assert np.linalg.norm(parameters[name] - other[1][name]) <= 1e-5 * parameters[name].size ** 0.5, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_steps_gradients_are_those_of_its_inputs_and_its_noise(tmp_path, kind, monkeypatch):
    """On a GPU: what was captured is what is computed operation by operation."""
    settings, _, training = training_on(tmp_path, kind)
    given, compute, batch = [], training.gradients, batch_of(settings)
    monkeypatch.setattr(training, "gradients", lambda inputs: given.append(inputs) or compute(inputs))
    loss = training.train_batch(batch, 0, 0.0)().loss
    captured = training.adam.summed.clone()
    inputs = type(given[-1])(*(field.clone() for field in given[-1]))
    assert (inputs.img1.cpu().numpy() == batch.img1).all()
    assert inputs.noise.std().item() == pytest.approx(1, abs=0.02)
    assert (inputs.noise[0] != inputs.noise[1]).any()
    assert compute(inputs).mean().item() == pytest.approx(loss, rel=1e-5)
    assert (training.adam.summed - captured).norm() < 1e-4 * captured.norm()
    assert training.train_batch(batch, 0, 0.0)().loss == pytest.approx(loss, rel=1e-5)  # the same step, the same noise
    assert torch.equal(given[-1].noise, inputs.noise)


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


@pytest.mark.parametrize(("epsilon", "size", "clip"), [(1e-8, 1.0, None), (1e-12, 1e-8, None), (1e-8, 1.0, 14.5)])
def test_flat_adam_is_the_written_formula(epsilon, size, clip):
    """With gradients of common size, so small that epsilon decides what becomes of them, and some of them clipped."""
    rng = np.random.default_rng(0)
    shapes = {"b.bias": (5,), "a.weight": (5, 3, 3, 3), "c.weight": (ALIGNMENT,)}
    values = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    parameters = {name: torch.nn.Parameter(torch.tensor(array, dtype=torch.float32)) for name, array in values.items()}
    adam = FlatAdam(parameters, 0.1 * size, extra=2, epsilon=epsilon, clip=clip)
    norms = []
    means, variances = (dict.fromkeys(shapes, 0.0) for _ in range(2))
    for step in range(3):
        gradients = {name: size * rng.normal(size=shape) for name, shape in shapes.items()}
        adam.set_gradients([torch.tensor(gradients[n], dtype=torch.float32) for n in adam.parameters])
        rate = torch.tensor(corrected_rate(0.01, step))
        adam.update(rate, torch.tensor(True))
        norms.append(np.sqrt(sum((g**2).sum() for g in gradients.values())))
        shrink = min(1, clip / norms[-1]) if clip else 1
        for name in shapes:
            g = shrink * gradients[name] + (0.1 * size * values[name] if name.endswith("weight") else 0)
            means[name] = 0.9 * means[name] + 0.1 * g
            variances[name] = 0.999 * variances[name] + 0.001 * g * g
            factor = np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            values[name] -= 0.01 * factor * means[name] / (np.sqrt(variances[name]) + epsilon)
            assert np.allclose(parameters[name].detach().numpy(), values[name], atol=1e-6), name
        assert parameters["a.weight"].data_ptr() % 64 == 0
    assert clip is None or min(norms) < clip < max(norms)
    state = adam.state()
    assert np.allclose(state["mean.b.bias"], means["b.bias"], atol=1e-6 * size)
    with pytest.raises(KeyError):
        adam.load_state({})


def test_the_state_of_another_network_is_refused(tmp_path):
    _, _, training = training_on(tmp_path, "cpu")
    name = "var.conv1a.0.weight"
    state = training.state()
    without = {key: array for key, array in state.items() if key != name}
    for wrong in (without, {**state, name: state[name][:1]}):
        with pytest.raises(UserError, match="belongs to another checkpoint"):
            training.load_state(wrong, 1)
    for wrong in (state[name] - 1, state[name] + np.inf, state[name].astype("f2")):
        with pytest.raises(UserError, match=f"the optimiser's state is damaged: {name}"):
            training.load_state({**state, name: wrong}, 1)
