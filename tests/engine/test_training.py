"""Training runs: resume, devices, stops, decay, logs."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.config import load_network_config
from engine.datasets import Roots
from engine.errors import UserError
from engine.interface import NotFinite
from engine.loading import read_checkpoint
from engine.params_file import read_params
from engine.records import Record
from engine.run_plan import Options, rate_at, scaled
from engine.snapshots import Snapshots, state_path
from reader.errors import DataError
from reader.formats import write_flo
from tests.training_runs import NETWORK, train_in, write_configs
from tests.trees import make_chairs

ROOT = Path(__file__).resolve().parents[2]


def process(folder, devices, steps, kill_after=0):
    line = [sys.executable, "-m", "tests.training_runs", str(folder)]
    line += [str(devices), str(steps), str(kill_after)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def arrays_of(path):
    return {**read_params(path), **read_params(state_path(path))}


def differences(path_a, path_b):
    a, b = arrays_of(path_a), arrays_of(path_b)
    assert set(a) == set(b)
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


@pytest.mark.parametrize("devices", [1, 2])
def test_lesson_19_ten_steps_are_five_a_kill_and_five_bit_for_bit(tmp_path, devices):
    for name in ("whole", "killed"):
        write_configs(tmp_path / name)
    whole = process(tmp_path / "whole", devices, 10)
    assert whole.returncode == 0, whole.stderr
    killed = process(tmp_path / "killed", devices, 10, kill_after=7)
    assert killed.returncode == -signal.SIGKILL
    folder = tmp_path / "killed/weights"
    assert sorted(p.name for p in folder.glob("*.params")) == ["abcJan01-0000_5.params"]
    again = process(tmp_path / "killed", devices, 10)
    assert again.returncode == 0, again.stderr
    assert "goes on at step 5 of 10" in again.stdout
    results = [tmp_path / name / "weights/abcJan01-0000_10.params" for name in ("whole", "killed")]
    assert differences(*results) == 0
    records = [load_checkpoint(path).record for path in results]
    assert records[0].sha256 == records[1].sha256
    assert (records[0].run, records[0].step, records[0].seed) == ("abcJan01-0000", 10, 0)


def test_two_devices_train_as_one(tmp_path):
    paths = []
    for devices in (1, 2):
        write_configs(tmp_path / str(devices))
        paths.append(train_in(tmp_path / str(devices), devices, steps=3))
    assert 0 < differences(*paths) < 1e-5


def test_lesson_22_seeds_make_runs_equal_and_different(tmp_path):
    write_configs(tmp_path)
    paths = [train_in(tmp_path, steps=1, seed=seed) for seed in (1, 1, 2)]
    assert len(set(paths)) == 3
    assert differences(paths[0], paths[1]) == 0
    assert differences(paths[0], paths[2]) > 0


def test_the_number_of_worker_processes_changes_nothing(tmp_path):
    write_configs(tmp_path)
    paths = [train_in(tmp_path, steps=2, workers=workers) for workers in (0, 2)]
    assert differences(*paths) == 0


def test_log_record_and_scalars(tmp_path):
    write_configs(tmp_path, validation=["synthetic"], validation_steps=2)
    path = train_in(tmp_path, steps=3)
    record = load_checkpoint(path).record
    run = record.run
    assert re.fullmatch(r"[0-9a-f]{3}[A-Z][a-z]{2}\d{2}-\d{4}", run)
    text = (tmp_path / f"logs/{run}.log").read_text()
    form = r"^\[[\d: -]+\] steps=(\d+), loss=[\d.]+, epe=[\d.]+, lr=0\.0001, total_time=[\d.]+$"
    assert re.findall(form, text, re.MULTILINE) == ["1", "2", "3"]
    assert re.findall(r"steps=(\d), synthetic\.val:epe=[\d.]+", text) == ["2", "3"]
    assert record.metrics["mean_epe"] == record.metrics["synthetic.val"] > 0
    assert record.config["network"] == NETWORK
    assert record.config["dataset"]["batch_size"] == 2
    assert (record.engine, record.precision, record.pyramid) == ("mxnet", "float32", "paper")
    events = list((tmp_path / f"logs/{run}.tensorboard").iterdir())
    assert events[0].stat().st_size > 0


def test_a_run_that_has_ended_says_so(tmp_path):
    write_configs(tmp_path)
    path = train_in(tmp_path, steps=1)
    with pytest.raises(UserError, match="has ended: it is at step 1 of 1"):
        train_in(tmp_path, checkpoint=read_checkpoint(path), steps=1)


def test_a_run_without_its_optimiser_state_is_not_resumed(tmp_path):
    write_configs(tmp_path)
    path = train_in(tmp_path, steps=1)
    state_path(path).unlink()
    with pytest.raises(UserError, match="--clear_steps starts a new run"):
        train_in(tmp_path, checkpoint=read_checkpoint(path), steps=2)
    new = train_in(tmp_path, checkpoint=read_checkpoint(path), steps=1, clear_steps=True)
    record = load_checkpoint(new).record
    assert record.run != load_checkpoint(path).record.run
    assert (record.step, record.parent) == (1, path.stem)


def test_a_resumed_run_keeps_its_seed(tmp_path):
    write_configs(tmp_path)
    path = train_in(tmp_path, steps=1, seed=3)
    with pytest.raises(UserError, match="trained with seed 3"):
        train_in(tmp_path, checkpoint=read_checkpoint(path), steps=2, seed=4)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    write_configs(tmp_path, checkpoint_steps=1)
    path = train_in(tmp_path, steps=1)
    parameters = {k: v.copy() for k, v in read_params(path).items()}
    parameters["conv1a.0.weight"][:] = np.nan
    bad = tmp_path / "bad_5.params"
    save_checkpoint(bad, parameters, Record("MaskFlownet_S"))
    before = sorted((tmp_path / "weights").iterdir())
    with pytest.raises(NotFinite, match=r"not finite at step 1, for the samples .*\d"):
        train_in(tmp_path, checkpoint=read_checkpoint(bad), clear_steps=True, steps=3)
    assert sorted((tmp_path / "weights").iterdir()) == before


def test_lesson_16_weight_decay_moves_weights_and_not_biases(tmp_path):
    trained = []
    for wd in (0.0, 0.1):
        folder = tmp_path / str(wd)
        network = {**NETWORK, "optimizer": {**NETWORK["optimizer"], "wd": wd}}
        write_configs(folder, network)
        trained.append(read_params(train_in(folder, steps=1)))
    for name in trained[0]:
        same = (trained[0][name] == trained[1][name]).all()
        assert same == name.endswith("bias"), name


def test_ctrl_c_saves_and_ends(tmp_path):
    write_configs(tmp_path)
    before = signal.getsignal(signal.SIGINT)

    def interrupt():
        log = tmp_path / "logs/abcJan01-0000.log"
        while not log.exists() or "steps=1," not in log.read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    path = train_in(tmp_path, steps=90, run="abcJan01-0000")
    thread.join()
    step = load_checkpoint(path).record.step
    assert 1 <= step < 90
    log = (tmp_path / "logs/abcJan01-0000.log").read_text()
    assert f"interrupted at step {step}; -c abcJan01-0000 goes on" in log
    assert signal.getsignal(signal.SIGINT) == before


def test_lesson_20_intervals_are_independent_and_the_best_is_kept(tmp_path):
    write_configs(
        tmp_path, validation=["synthetic"], validation_steps=3, checkpoint_steps=2, batch_size=1
    )
    path = train_in(tmp_path, steps=9)
    snapshots = Snapshots(tmp_path / "weights", load_checkpoint(path).record.run)
    best, _ = snapshots.best()
    assert best in {3, 6, 9}  # validated there, whatever the checkpoints' interval
    validated = {
        step: load_checkpoint(snapshots.path(step)).record.metrics for step in snapshots.steps()
    }
    assert set(snapshots.steps()) >= {8, 9, best}
    assert len(snapshots.steps()) <= 4
    assert not validated[8]
    assert validated[9]["mean_epe"] >= validated[best]["mean_epe"]


def test_the_head_stays_frozen_and_comes_from_its_own_checkpoint(tmp_path, random_checkpoints):
    network = {**NETWORK, "network": {"class": "MaskFlownet"}}
    write_configs(tmp_path, network)
    head = read_checkpoint(random_checkpoints["MaskFlownet_S"])
    with pytest.raises(UserError, match="give --clear_steps to start a new run from it"):
        train_in(tmp_path, checkpoint=head, steps=1)
    path = train_in(tmp_path, checkpoint=head, steps=2, clear_steps=True)
    trained = load_checkpoint(path)
    for name, array in head.parameters.items():
        assert (trained.parameters[f"MaskFlownet_S.{name}"] == array).all(), name
    state = read_params(state_path(path))
    assert not [name for name in state if "MaskFlownet_S" in name]
    assert len(state) == 2 * 128
    # The full checkpoint goes on by itself, as the S network by its head.
    going_on = train_in(tmp_path, checkpoint=read_checkpoint(path), steps=3)
    assert load_checkpoint(going_on).record.step == 3


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 1e-4), (399_999, 1e-4), (400_000, 5e-5), (1_199_999, 6.25e-6), (1_200_000, 6.25e-6)],
)
def test_rates_follow_the_schedule(step, rate):
    schedule = load_network_config("MaskFlownet_S").optimizer.learning_rate
    assert rate_at(schedule, step) == rate
    assert rate_at(schedule, step // 1000, scale=0.001) == rate


def test_scaled_steps_are_at_least_one():
    assert scaled(2500, 1e-9) == 1
    assert scaled(2500, 0.001) == 2


def test_devices_that_cannot_share_a_batch(tmp_path):
    write_configs(tmp_path)
    with pytest.raises(UserError, match="3 devices cannot share a batch of 2"):
        train_in(tmp_path, devices=3, steps=1)


def test_defaults_write_into_the_checkout():
    assert Options().weights == ROOT / "weights"
    assert Options().logs == ROOT / "logs"


def test_workers_on_a_parameter_server_train_as_one_process(tmp_path):
    """Two workers, a server and a scheduler on loopback; each worker has half of the batch."""
    write_configs(tmp_path / "one", batch_size=4)
    write_configs(tmp_path / "two", batch_size=2)
    alone = train_in(tmp_path / "one", steps=2, run="abcJan01-0000")
    port = str(20_000 + os.getpid() % 10_000)
    shared = {
        "DMLC_PS_ROOT_URI": "127.0.0.1",
        "DMLC_PS_ROOT_PORT": port,
        "DMLC_NUM_WORKER": "2",
        "DMLC_NUM_SERVER": "1",
        "OMP_NUM_THREADS": "1",
    }
    folder = tmp_path / "two"
    command = [sys.executable, str(ROOT / "main.py"), str(folder / "network.yaml")]
    command += ["--dataset_cfg", str(folder / "data.yaml"), "--steps", "2"]
    started = []
    try:
        for i, role in enumerate(("scheduler", "server", "worker", "worker")):
            started.append(
                subprocess.Popen(
                    [*command, "--output_root", str(folder / str(i))],
                    env={**os.environ, **shared, "DMLC_ROLE": role},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        outputs = [worker.communicate(timeout=120)[0] for worker in started]
    finally:
        for worker in started:
            worker.kill()
    assert [worker.returncode for worker in started[2:]] == [0, 0], outputs
    written = list(folder.glob("*/weights/*_2.params"))
    assert len(written) == 1, outputs  # only the first worker writes
    assert differences(alone, written[0]) < 1e-5


def test_configs_are_kept_readable_in_the_record(tmp_path):
    write_configs(tmp_path)
    path = train_in(tmp_path, steps=1)
    record = yaml.safe_load(path.with_suffix(".yaml").read_text())
    assert record["config"]["dataset"]["augmentation"]["zoom"] == [0.8, 1.1]


@pytest.fixture
def damaged_chairs(tmp_path):
    """A FlyingChairs tree with a NaN label, one without a known pixel, and a truncated image."""
    root = make_chairs(tmp_path / "chairs", train=4, val=1, size=(72, 80))
    flows = sorted((root / "data").glob("*_flow.flo"))
    for path, value in zip(flows, (np.nan, 1e10)):
        path.unlink()  # the trees share equal files
        write_flo(path, np.zeros((72, 80, 2), np.float32))
        data = bytearray(path.read_bytes())
        data[12:] = np.full(72 * 80 * 2, value, "<f4").tobytes()
        path.write_bytes(data)
    broken = sorted((root / "data").glob("*_img1.ppm"))[2]
    content = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(content[:100])
    write_configs(tmp_path, dataset="chairs")
    return tmp_path, Roots({"chairs": root}), broken


def test_unknown_labels_do_no_harm_and_damage_is_an_error(damaged_chairs):
    folder, roots, broken = damaged_chairs
    with pytest.raises(DataError, match=broken.name):
        train_in(folder, steps=3, roots=roots)


def test_damaged_samples_are_skipped_and_named_where_that_is_wanted(damaged_chairs):
    folder, roots, broken = damaged_chairs
    path = train_in(folder, steps=3, roots=roots, skip_damaged=True)  # every sample at least once
    assert all(np.isfinite(array).all() for array in read_params(path).values())
    log = (folder / f"logs/{load_checkpoint(path).record.run}.log").read_text()
    assert re.search(rf"skipped a damaged sample: .*{broken.name}", log)
    losses = [float(loss) for loss in re.findall(r"loss=([\d.]+),", log)]
    assert len(losses) == 3
    assert max(losses) > 0


def test_a_run_goes_on_only_under_its_own_settings(tmp_path):
    write_configs(tmp_path)
    path = train_in(tmp_path, steps=1)
    write_configs(tmp_path, batch_size=3)
    with pytest.raises(UserError, match=r"trained with another dataset \(batch_size differ\)"):
        train_in(tmp_path, checkpoint=read_checkpoint(path), steps=2)
    write_configs(tmp_path)
    with pytest.raises(UserError, match=r"another options \(shard differ\)"):
        train_in(tmp_path, checkpoint=read_checkpoint(path), steps=2, shard=2)
    assert train_in(tmp_path, checkpoint=read_checkpoint(path), steps=2) is not None


def test_a_run_goes_on_only_from_its_end(tmp_path):
    write_configs(tmp_path, checkpoint_steps=1)
    path = train_in(tmp_path, steps=2)
    first = path.with_name(path.name.replace("_2.", "_1."))
    with pytest.raises(UserError, match="goes on to step 2"):
        train_in(tmp_path, checkpoint=read_checkpoint(first), steps=2)


def test_a_checkpoint_without_a_run_starts_a_new_one(tmp_path, random_checkpoints):
    write_configs(tmp_path)
    foreign = read_checkpoint(random_checkpoints["MaskFlownet_S"])
    with pytest.raises(UserError, match="no record of a run to go on with: --clear_steps"):
        train_in(tmp_path, checkpoint=foreign, steps=1)
    path = train_in(tmp_path, checkpoint=foreign, steps=1, clear_steps=True)
    assert load_checkpoint(path).record.parent == "MaskFlownet_S"
