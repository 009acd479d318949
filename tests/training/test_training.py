"""Training runs: logs, records, stops, decay, the frozen head, damaged data."""

import io
import os
import re
import signal
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import Record, load_checkpoint, read_checkpoint, save_checkpoint
from maskflownet.checkpoints.params import read_params
from maskflownet.engine.contract import NotFinite
from maskflownet.engine.mxnet import MXNetTraining
from maskflownet.errors import UserError
from maskflownet.reader.formats import write_flo
from maskflownet.scenes.synthetic import Synthetic
from maskflownet.settings.configs import Optimizer, load_network_config
from maskflownet.settings.datasets import Roots
from maskflownet.settings.schema import parse
from maskflownet.training.loop import RunLog
from maskflownet.training.plan import rate_at, scaled
from maskflownet.training.snapshots import Snapshots

from tests.training_runs import NETWORK, at_step, train_in, write_configs
from tests.trees import make_chairs


@pytest.fixture(scope="module")
def one_step(tmp_path_factory):
    """The checkpoint of one step from new parameters, all of which are trained."""
    folder = tmp_path_factory.mktemp("one")
    write_configs(folder, NETWORK)
    return train_in(folder, steps=1)


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
    assert record.config["dataset"]["augmentation"]["zoom"] == [0.8, 1.1]
    assert (record.engine, record.precision, record.pyramid) == ("mxnet", "float32", "paper")
    events = list((tmp_path / f"logs/{run}.tensorboard").iterdir())
    assert events[0].stat().st_size > 0


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, random_checkpoints):
    write_configs(tmp_path, checkpoint_steps=1)
    parameters = {k: v.copy() for k, v in read_params(random_checkpoints["MaskFlownet_S"]).items()}
    parameters["conv1a.0.weight"][:] = 1e38  # finite, as checkpoints are
    bad = tmp_path / "bad_5.params"
    save_checkpoint(bad, parameters, Record("MaskFlownet_S"))
    with pytest.raises(NotFinite, match=r"not finite at step 1, for the samples .*\d"):
        train_in(tmp_path, checkpoint=read_checkpoint(bad), clear_steps=True, steps=3)
    assert not [*tmp_path.glob("weights/*")]


def test_decay_moves_weights_and_not_biases_and_epsilon_bounds_the_steps_of_adam(tmp_path, one_step):
    """The first step of a weight is rate x g / (|g| + epsilon / sqrt(1 - beta2)): none for 1e6."""
    trained = [read_params(one_step)]
    for change in ({"wd": 0.1}, {"epsilon": 1e6}):
        folder = tmp_path / "".join(change)
        write_configs(folder, {**NETWORK, "optimizer": {**NETWORK["optimizer"], **change}})
        trained.append(read_params(train_in(folder, steps=1)))
    plain, decayed, bounded = trained
    for name, array in plain.items():
        assert (array == decayed[name]).all() == name.endswith("bias"), name
    change = max(np.abs(array - bounded[name]).max() for name, array in plain.items())
    rate = NETWORK["optimizer"]["learning_rate"][0][1]
    assert 0.9 * rate < change < 1.1 * rate


def test_ctrl_c_twice_at_once_counts_once_until_all_is_saved(tmp_path, monkeypatch):
    """As a hurried hand presses it, or torchrun repeats the terminal's."""
    write_configs(tmp_path)
    write = Snapshots.save

    def press(self, *args):
        os.kill(os.getpid(), signal.SIGINT)  # the second one, while the first one's is saved
        return write(self, *args)

    monkeypatch.setattr(Snapshots, "save", press)
    monkeypatch.setattr("maskflownet.processes.ONE_PRESS", 60.0)  # s, a step on a busy machine is slow
    thread = at_step(tmp_path, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="interrupted at step"):
        train_in(tmp_path, steps=90, run="abcJan01-0000")
    thread.join()
    assert read_checkpoint("abc", tmp_path / "weights").record.step >= 1


@pytest.mark.parametrize("kind", ["sample", "pair", "engine"])
def test_what_was_reached_before_an_error_is_saved(tmp_path, monkeypatch, kind):
    """A sample or a pair of the validation that cannot be read, what nobody expects."""
    log, shown, trained = tmp_path / "logs/abcJan01-0000.log", Synthetic.labelled, MXNetTraining.train_batch
    write_configs(tmp_path, validation=["synthetic"] if kind == "pair" else [], validation_steps=2)

    def damaged(self, index):
        reached = log.exists() and "steps=2," in log.read_text()
        if (kind == "pair" and index < 2) or (kind == "sample" and reached):  # the held-out pairs come first
            raise UserError("the pair cannot be read")
        return shown(self, index)

    def fail(self, batch, step, rate):
        if kind == "engine" and step == 2:
            raise RuntimeError("nobody expected this")
        return trained(self, batch, step, rate)

    monkeypatch.setattr(Synthetic, "labelled", damaged)
    monkeypatch.setattr(MXNetTraining, "train_batch", fail)
    with pytest.raises((UserError, RuntimeError), match="pair cannot be read|nobody expected"):
        train_in(tmp_path, steps=90, run="abcJan01-0000")
    said = re.search(r"ended at step (\d+): -c (\S+) goes on from step \1", log.read_text())
    step = load_checkpoint(tmp_path / f"weights/{said[2]}_{said[1]}.params").record.step
    assert step >= 2 if kind == "sample" else step == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_what_cannot_be_logged_is_told_once_and_training_goes_on(tmp_path, monkeypatch):
    """A full disk for the log, files where folders would be, and a pipe whose reader has gone."""
    write_configs(tmp_path, validation=["synthetic"], validation_steps=1)
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "abc.log").symlink_to("/dev/full")
    for name in ("abc.samples", "abc.tensorboard"):
        (logs / name).touch()
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb", buffering=0) as pipe, pytest.warns(UserWarning) as told:
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(pipe, write_through=True))
        path = train_in(tmp_path, steps=3, run="abc")
    assert load_checkpoint(path).record.step == 3
    reasons = {
        logs / "abc.log": "No space left on device",
        logs / "abc.samples": "File exists",
        logs / "abc.tensorboard": "File exists",
        "standard output": "Broken pipe",
    }
    said = sorted(f"cannot write {what}: {why}; the training goes on without it" for what, why in reasons.items())
    assert sorted(str(warning.message) for warning in told if warning.category is UserWarning) == said


def test_an_event_that_cannot_be_written_is_the_last_one(tmp_path):
    with closing(RunLog(tmp_path, "abc", 0, 9)) as log:
        log.scalars({"epe": 1.0}, 1)
        with open("/dev/full", "wb", buffering=0) as log._events._py_recordio_writer._writer:
            with pytest.warns(UserWarning, match=r"abc\.tensorboard: No space left on device; the training goes on"):
                log.scalars({"epe": 1.0}, 2)
            log.scalars({"epe": 1.0}, 3)


def test_intervals_are_independent_and_the_best_is_kept(tmp_path):
    write_configs(tmp_path, validation=["synthetic"], validation_steps=3, checkpoint_steps=2, batch_size=1)
    path = train_in(tmp_path, steps=9)
    snapshots = Snapshots(tmp_path / "weights", load_checkpoint(path).record.run)
    best, _ = snapshots.best()
    assert best in {3, 6, 9}  # validated there, whatever the checkpoints' interval
    validated = {step: load_checkpoint(snapshots.path(step)).record.metrics for step in snapshots.steps()}
    assert set(snapshots.steps()) >= {8, 9, best}
    assert len(snapshots.steps()) <= 4
    assert not validated[8]
    assert validated[9]["mean_epe"] >= validated[best]["mean_epe"]


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 1e-4), (399_999, 1e-4), (400_000, 5e-5), (1_199_999, 6.25e-6), (1_200_000, 6.25e-6)]
)
def test_rates_follow_the_schedule(step, rate):
    optimizer = load_network_config("MaskFlownet_S").optimizer
    assert rate_at(optimizer, step) == rate
    assert rate_at(optimizer, step // 1000, scale=0.001) == rate
    assert (scaled(2500, 1e-9), scaled(2500, 0.001)) == (1, 2)


@pytest.mark.parametrize(("step", "rate"), [(0, 1e-5), (9, 1e-4), (19, 9e-5), (109, 1e-7), (500, 1e-7)])
def test_a_linear_schedule_warms_up_and_falls(step, rate):
    optimizer = parse(Optimizer, {"learning_rate": [[10, 1e-4], [110, 1e-7]], "schedule": "linear"}, "x.yaml")
    assert rate_at(optimizer, step) == pytest.approx(rate, rel=0.01)


def test_unknown_labels_do_no_harm_and_damage_is_an_error_or_skipped_and_named(tmp_path):
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
    roots = Roots({"chairs": root})
    with pytest.raises(UserError, match=broken.name):
        train_in(tmp_path, steps=3, roots=roots)
    path = train_in(tmp_path, steps=3, roots=roots, skip_damaged=True)  # every sample at least once
    assert all(np.isfinite(array).all() for array in read_params(path).values())
    log = (tmp_path / f"logs/{load_checkpoint(path).record.run}.log").read_text()
    assert re.search(rf"skipped a damaged sample: .*{broken.name}", log)
    losses = re.findall(r"loss=([\d.]+),", log)
    assert len(losses) == 3 and max(map(float, losses)) > 0
