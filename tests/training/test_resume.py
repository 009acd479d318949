"""Training runs that must agree: resumed, on several devices, in several processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import cache

import pytest
from maskflownet.checkpoints.checkpoint import beside, load_checkpoint, read_checkpoint
from maskflownet.errors import UserError
from maskflownet.settings.folders import ROOT

from tests.known_engine import make
from tests.training_runs import NETWORK, RUN, largest_difference, newest, train_in, training_differences, write_configs


def prepare(folder, interval):
    """Configs whose step 4 begins a new pass over the data, at a lower rate."""
    network = {**NETWORK, "optimizer": {"learning_rate": [[3, 1.0e-4], [100, 5.0e-5]]}}
    few = {"length": 6, "validation_length": 2, "size": [72, 80]}
    write_configs(folder, network, checkpoint_steps=interval, synthetic=few)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The checkpoint of four steps in one go, beside the one of three."""
    return cache(lambda train, devices: train(prepare(tmp_path_factory.mktemp("whole"), 3), devices, steps=4, run=RUN))


@pytest.mark.parametrize(("engine", "devices"), [("mxnet", 2), ("torch", 0)])
def test_a_killed_run_goes_on_bit_for_bit(request, tmp_path, capsys, monkeypatch, whole, engine, devices):
    """It is another process, and goes on in this one."""
    program, train = "tests.training_runs", train_in
    if engine == "torch":
        pytest.importorskip("torch")
        from tests import torch_runs  # noqa: PLC0415

        torch_runs.trace_for_programs(tmp_path / "graphs", monkeypatch)
        program, train = "tests.torch_runs", torch_runs.train_torch_in
        request.getfixturevalue("torch_threads")(1)  # how many there are decides the order of sums
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
    line = [sys.executable, "-m", program, prepare(tmp_path, 2), devices, 4, 3]
    with subprocess.Popen(map(str, line), cwd=ROOT, stdout=subprocess.DEVNULL) as killed:
        results = [whole(train, devices)]
    assert killed.returncode == -signal.SIGKILL
    assert sorted(p.name for p in tmp_path.glob("weights/*.params")) == [f"{RUN}_2.params"]
    results += [train(tmp_path, devices, newest(tmp_path), steps=4)]
    assert "goes on at step 2 of 4" in capsys.readouterr().out
    assert largest_difference(*results) == 0
    records = [load_checkpoint(path).record for path in results]
    assert records[0].sha256 == records[1].sha256
    assert (records[0].run, records[0].step, records[0].seed) == (RUN, 4, 0)


def test_two_devices_train_as_one(whole, tmp_path):
    one = train_in(prepare(tmp_path, 3), steps=3, run=RUN)
    assert 0 < largest_difference(one, whole(train_in, 2).with_name(one.name)) < 1e-5


def test_seeds_make_runs_equal_and_different_and_readers_change_nothing(tmp_path):
    write_configs(tmp_path)
    changes = {"seed": 1}, {"seed": 1, "readers": 1}, {"seed": 2}
    paths = [train_in(tmp_path, steps=2, **change) for change in changes]
    assert len(set(paths)) == 3
    assert largest_difference(paths[0], paths[1]) == 0
    assert largest_difference(paths[0], paths[2]) > 0


def test_a_run_goes_on_only_from_its_whole_end_under_its_own_settings(tmp_path, random_checkpoints):
    write_configs(tmp_path, checkpoint_steps=1)
    path = train_in(tmp_path, steps=2, seed=3)
    engine = make("mxnet", read_checkpoint(path))  # what is refused leaves it as it is
    first = path.with_name(path.name.replace("_2.", "_1."))
    for name, changes, said in (
        (random_checkpoints["MaskFlownet_S"], {"steps": 1}, "no record of a run to go on with: --clear_steps"),
        (path, {"steps": 2}, "has ended: it is at step 2 of 2"),
        (path, {"steps": 3, "seed": 4}, "trained with seed 3"),
        (path, {"steps": 3, "shard": 2}, r"other values of shard \(options\)"),
        (first, {"steps": 2}, "goes on to step 2"),
    ):
        with pytest.raises(UserError, match=said):
            train_in(tmp_path, checkpoint=read_checkpoint(name), engine=engine, **changes)
    full = {**NETWORK, "network": {"class": "MaskFlownet"}}
    for folder, changes, said in (
        ("other", {"batch_size": 3}, r"other values of batch_size \(dataset\)"),
        ("full", {"network": full}, "give --clear_steps to start a new run from it"),
    ):
        write_configs(tmp_path / folder, **{"checkpoint_steps": 1, **changes})
        with pytest.raises(UserError, match=said):
            train_in(tmp_path / folder, checkpoint=read_checkpoint(path), engine=engine, steps=3)
    beside(path, ".states").rename(tmp_path / "state")
    with pytest.raises(UserError, match="--clear_steps starts a new run"):
        train_in(tmp_path, checkpoint=read_checkpoint(path), engine=engine, steps=3)
    new = train_in(tmp_path, checkpoint=read_checkpoint(path), steps=1, clear_steps=True)
    record = load_checkpoint(new).record
    assert record.run != load_checkpoint(path).record.run
    assert (record.step, record.parent) == (1, path.stem)


# main.py, which gives the others less time to save.
PROGRAM = "import sys; from maskflownet import main, processes; processes.GRACE = 3.0; sys.exit(main.command())"


@contextmanager
def parameter_server(folder, steps):
    """Scheduler, server and two workers on loopback, each worker with a batch of its own."""
    shared = {"DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    shared |= {"DMLC_NUM_WORKER": "2", "DMLC_NUM_SERVER": "1"}
    command = [sys.executable, "-c", PROGRAM, str(folder / "network.yaml")]
    command += ["--dataset_cfg", str(folder / "data.yaml"), "--steps", str(steps)]
    started = []
    try:
        for i, role in enumerate(("scheduler", "server", "worker", "worker")):
            line, env = [*command, "--output_root", str(folder / str(i))], {**os.environ, **shared, "DMLC_ROLE": role}
            outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            started.append(subprocess.Popen(line, env=env, text=True, **outputs))
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_workers_on_a_parameter_server_train_as_one_process(tmp_path):
    write_configs(tmp_path / "one", NETWORK, batch_size=4)
    write_configs(tmp_path / "two", NETWORK, batch_size=2)
    alone = train_in(tmp_path / "one", steps=2, run="abcJan01-0000")
    with parameter_server(tmp_path / "two", 2) as started:
        outputs = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started[2:]] == [0, 0], outputs
    written = list((tmp_path / "two").glob("*/weights/*_2.params"))
    assert len(written) == 1, outputs  # only the first worker writes
    assert training_differences(alone, written[0])["parameters"] < 1e-4


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_ends_early_does_not_leave_the_others_waiting(tmp_path, ending):
    write_configs(tmp_path, batch_size=2)
    with parameter_server(tmp_path, 90) as started:
        end = time.monotonic() + 240
        while not any("steps=2," in log.read_text() for log in tmp_path.glob("*/logs/*.log")):
            assert time.monotonic() < end
            time.sleep(0.1)
        (log,) = tmp_path.glob("*/logs/*.log")  # only the first worker, by its rank, writes
        first = started[int(log.parts[-3])]
        second = next(process for process in started[2:] if process is not first)
        second.send_signal(ending)
        outputs = [process.communicate(timeout=240)[0] for process in started]
    if ending == signal.SIGTERM:
        assert [process.returncode for process in started[2:]] == [130, 130], outputs
        assert len(list(tmp_path.glob("*/weights/*.params"))) == 1
    else:
        assert first.returncode == 2, outputs
        assert "another process of this training ended" in outputs[started.index(first)]
