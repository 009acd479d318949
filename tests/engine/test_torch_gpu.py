"""The torch engine on GPUs: the CPU's numbers, captured graphs, several GPUs.

MXNet is not needed: sizes are those whose graphs are in `network/graphs/`.
"""

# ruff: noqa: E402 - nothing of PyTorch is imported where the tests are skipped

import os
import re
import signal

import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet.checkpoints.checkpoint import read_checkpoint
from maskflownet.engine.contract import NotFinite, Sizing
from maskflownet.engine.torch.engine import GRAPHS, TorchEngine
from maskflownet.engine.torch.training import Inputs
from maskflownet.errors import UserError
from maskflownet.inference.predictor import Predictor
from maskflownet.reader.pool import Slots
from maskflownet.settings.configs import load_network_config

from tests.engine.test_torch_training import batch_of, settings_of
from tests.torch_runs import RUN, arrays_of, start
from tests.training.test_torch_distributed import LONG, end_of, log_of, wait_for_step
from tests.training_runs import AUGMENTATION, NETWORK, write_configs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU for PyTorch")]
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
NETWORKS = ("MaskFlownet_S", "MaskFlownet")
SIZES = {
    "synthetic": {"length": 12, "validation_length": 2, "size": [400, 520]},
    "orig_shape": [384, 512],
    "target_shape": [320, 448],
}


def images_of(*shape):
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for _ in range(2)]


def engines(network, precision="float32"):
    """The same network on the CPU and on a GPU, flows of some pixels."""
    config = load_network_config(network)
    made = [TorchEngine(config, [device], 1, precision) for device in (CPU, GPU)]
    rng = np.random.default_rng(0)
    parameters = {
        name: array if array.ndim > 1 else rng.normal(size=array.shape) * 0.05
        for name, array in made[0].parameters().items()
    }
    for engine in made:
        engine.assign(parameters)
    return made


@pytest.mark.parametrize("sizing", [Sizing(), Sizing((192, 256)), Sizing(pad=True)])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_gpu_predicts_what_the_cpu_does(network, sizing):
    cpu, gpu = engines(network)
    images = images_of(2, 150, 200)
    expected = cpu.predict(*images, sizing)
    assert np.abs(expected.flow).max() > 0.1
    for _ in range(3):  # operation by operation, captured, replayed
        for ours, theirs in zip(gpu.predict(*images, sizing), expected):
            assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_captured_sizes_are_bounded_and_do_not_mix():
    cpu, gpu = engines("MaskFlownet_S")
    sizes = [(64, 64 * (i + 1)) for i in range(GRAPHS + 2)]
    pairs = {size: images_of(1, *size) for size in sizes}
    expected = {size: cpu.predict(*pair).flow for size, pair in pairs.items()}
    for _ in range(3):
        for size in (*sizes, *sizes[::-1]):
            assert_allclose(gpu.predict(*pairs[size]).flow, expected[size], rtol=0, atol=1e-3)
    (runner,) = gpu._runners
    assert len(runner.graphs) == GRAPHS


def test_a_stream_overlaps_and_keeps_its_order():
    cpu, gpu = engines("MaskFlownet_S")
    rng = np.random.default_rng(0)
    pairs = [tuple(rng.integers(0, 256, (2, 128, 128, 3), np.uint8)) for _ in range(12)]
    for pair, prediction in zip(pairs, Predictor(gpu).stream(pairs)):
        assert_allclose(prediction.flow, Predictor(cpu)(*pair).flow, rtol=0, atol=1e-3)


def test_new_parameters_reach_captured_predictions():
    _, gpu = engines("MaskFlownet_S")
    images = images_of(1, 64, 128)
    for _ in range(3):
        assert np.abs(gpu.predict(*images).flow).max() > 0
    gpu.assign({name: 0 * array for name, array in gpu.parameters().items()})
    assert (gpu.predict(*images).flow == 0).all()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_lower_precisions_stay_near(precision):
    cpu, gpu = engines("MaskFlownet_S", precision)
    images = images_of(1, 128, 192)
    expected = cpu.predict(*images).flow
    for _ in range(3):
        flow = gpu.predict(*images).flow
        assert 0 < np.abs(flow - expected).mean() < 0.1 * np.abs(expected).mean()


def test_a_batch_beyond_the_memory_is_one_sentence():
    _, gpu = engines("MaskFlownet_S")
    torch.cuda.set_per_process_memory_fraction(0.02, GPU)
    try:
        with pytest.raises(UserError, match="cannot predict 2 pairs of 64x64: the memory does not"):
            gpu.predict(*images_of(2, 64, 64), Sizing((3072, 3072)))
        assert gpu.predict(*images_of(2, 64, 64)).flow.shape == (2, 64, 64, 2)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)


def trainings(tmp_path, network, **data):
    write_configs(tmp_path, {**NETWORK, "network": {"class": network}}, **{**SIZES, **data})
    config, settings = settings_of(tmp_path)
    made = []
    for device in (CPU, GPU):
        engine = TorchEngine(config, [device], 1)
        made.append((engine, engine.training(settings)))
    return settings, made


@pytest.mark.parametrize("network", NETWORKS)
def test_captured_steps_train_as_the_cpu_does(tmp_path, network):
    settings, made = trainings(tmp_path, network, augmentation={**AUGMENTATION, "noise": 0})
    for step in range(3):
        batch = batch_of(settings, 2, seed=step)
        (loss, epe), other = (training.step(batch, step, 1e-4) for _, training in made)
        assert (loss, epe) == pytest.approx(tuple(other), rel=1e-3)
    cpu, gpu = ({**e.parameters(), **t.state()} for e, t in made)
    for name in cpu:
        size, bound = np.linalg.norm(cpu[name]), 5e-2
        if not name.startswith(("mean.", "var.")):
            # Measured by how far Adam can have moved it: where a gradient is all but zero, its
            # rounding decides the direction.
            size, bound = 3 * 1e-4 * cpu[name].size ** 0.5, 0.1
        assert np.linalg.norm(cpu[name] - gpu[name]) <= bound * size, name


def test_a_captured_step_is_the_uncaptured_one(tmp_path):
    """With the noise that the GPU draws; the gradients of both from equal parameters."""
    settings, (_, (engine, training)) = trainings(tmp_path, "MaskFlownet_S")
    batch = batch_of(settings, 2)
    step = training.start(batch, 0)
    torch.cuda.synchronize()
    captured, losses = training.adam.summed.clone(), step.losses.clone()
    inputs = Inputs(*(field.clone() for field in training._captured._inputs))
    assert inputs.noise.std().item() == pytest.approx(1, abs=0.01)
    assert (inputs.noise[0] != inputs.noise[1]).any()
    assert torch.allclose(training.gradients(inputs), losses, rtol=1e-5)
    error = (training.adam.summed - captured).norm() / captured.norm()
    assert error < 1e-4
    noise = training.start(batch, 0)  # the same step draws the same noise
    torch.cuda.synchronize()
    assert torch.equal(training._captured._inputs.noise, inputs.noise)
    noise.finish(1e-4)
    assert np.isfinite(noise.result().loss)
    assert (engine.parameters()["conv1a.0.bias"] != 0).any()


def test_a_batch_in_page_locked_memory_is_sent_as_it_is(tmp_path):
    settings, (_, (_, training)) = trainings(tmp_path, "MaskFlownet_S")
    slots = Slots(1, 2, *settings.original, shared=False)
    for step in range(2):
        batch = batch_of(settings, 2, seed=step)
        for place, array in zip(slots.arrays(0), batch[:4]):
            place[...] = array
        placed = slots.take(0, batch.names, training.host_memory(slots.stride))
        assert all(torch.from_numpy(array).is_pinned() for array in placed[:4])
        training.step(placed, step, 0.0)
        for inputs, array in zip(training._captured._inputs[:4], batch[:4]):
            assert (inputs.cpu().numpy() == array).all()


def test_a_captured_step_that_fails_leaves_everything_as_it_was(tmp_path):
    settings, (_, (engine, training)) = trainings(tmp_path, "MaskFlownet_S")
    training.step(batch_of(settings, 2), 0, 1e-4)
    before = {**engine.parameters(), **training.state()}
    batch = batch_of(settings, 2)
    batch.flow[1] = np.nan
    with pytest.raises(NotFinite, match="for the samples sample 1$"):
        training.step(batch, 1, 1e-4)
    after = {**engine.parameters(), **training.state()}
    assert all((after[name] == before[name]).all() for name in before)


def train_on_gpus(folder, gpus, **changes):
    """As `main.py --engine torch -g` does."""
    from maskflownet.settings.datasets import load_data_config  # noqa: PLC0415
    from maskflownet.training.launch import train_on  # noqa: PLC0415

    from tests.training_runs import options  # noqa: PLC0415

    config = load_network_config(folder / "network.yaml")
    data = load_data_config(folder / "data.yaml")
    chosen = options(folder, run=RUN, **changes)
    return train_on(config, data, None, chosen, gpus, "torch", "float32")


@two_gpus
def test_two_gpus_train_as_one(tmp_path):
    paths = []
    for gpus in ("0", "0,1"):
        write_configs(tmp_path / gpus, validation=["synthetic"], validation_steps=2, **SIZES)
        paths.append(train_on_gpus(tmp_path / gpus, gpus, steps=3))
    a, b = (arrays_of(path) for path in paths)
    for name in a:
        size, bound = np.linalg.norm(a[name]), 5e-2
        if not name.startswith(("mean.", "var.")):
            # Measured by how far Adam can have moved it: where a gradient is all but zero, its
            # rounding decides the direction.
            size, bound = 3 * 1e-4 * a[name].size ** 0.5, 2e-2
        assert np.linalg.norm(a[name] - b[name]) <= bound * size, name


@two_gpus
@pytest.mark.parametrize("rank", [0, 1])
def test_a_gpu_process_that_is_killed_ends_the_run(tmp_path, rank):
    write_configs(tmp_path, checkpoint_steps=2, **SIZES)
    arguments = (tmp_path / "network.yaml", "--dataset_cfg", tmp_path / "data.yaml")
    program = start(
        *arguments, *("--output_root", tmp_path, "--engine", "torch", "-g", "0,1", "--steps", LONG), module="main"
    )
    while not list((tmp_path / "logs").glob("*.log")):
        assert program.poll() is None, program.communicate()
    (log,) = (tmp_path / "logs").glob("*.log")
    os.kill(wait_for_step(program, tmp_path, 3, log.stem)[rank], signal.SIGKILL)
    code, _, errors = end_of(program, within=40)
    assert code == 2
    assert f"number {rank}) was ended by SIGKILL" in errors
    checkpoint = read_checkpoint(log.stem, tmp_path / "weights")
    assert checkpoint.record.step >= 2
    if rank:
        assert re.search(rf"-c {log.stem} goes on from step {checkpoint.record.step}$", errors.splitlines()[0])
        assert "another process ended" in log_of(tmp_path, log.stem)
