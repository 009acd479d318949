"""Several processes that train together: equal to one, and what becomes of them when one dies."""

# ruff: noqa: E402 - nothing of PyTorch is imported where the tests are skipped

import multiprocessing
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet.checkpoints.checkpoint import load_checkpoint, read_checkpoint
from maskflownet.checkpoints.params import read_params
from maskflownet.errors import UserError
from maskflownet.settings.cli import run

from tests.known_engine import on_gpu
from tests.torch_runs import SIZES, start, trace_for_programs, train_torch_in
from tests.training_runs import NETWORK, RUN, arrays_of, at_step, training_differences, write_configs

ENGINE = "engine: torch on the CPU (no -g), float32\n"
LONG = 10_000  # steps, more than a test waits for
KINDS = ["cpu", on_gpu("gpu", gpus=2)]
# Without augmentation, whose graph of this size each process would trace with MXNet.
FAST = {**SIZES, "cpu": {"augmentation": None, "orig_shape": [64, 64]}}


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def log_of(folder) -> str:
    path = folder / f"logs/{RUN}.log"
    return path.read_text() if path.exists() else ""


def children_of(program) -> list[int]:
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    return sorted(map(int, children))


def listeners(pid) -> list[str]:
    """The addresses of a process's listening sockets, as /proc has them: 0100007F is 127.0.0.1."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table.splitlines()]
    return [line[1].split(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in links]


def end_of(program):
    """Wait for a program, which is ended if it hangs; exit code and both outputs."""
    try:
        output, errors = program.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        program.kill()  # and with it those that it has started
        raise
    return program.returncode, output, errors


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(tmp_path, kind):
    paths = []
    validation = {"validation": ["synthetic"], "validation_steps": 2, "validation_samples": 0}
    for name, ranks in (("one", 0), ("two", 2)):
        write_configs(tmp_path / name, NETWORK, **validation, **FAST[kind])
        paths.append(train_torch_in(tmp_path / name, ranks, kind=kind, steps=3, run=RUN))
    found = training_differences(*paths)
    assert 0 < found["parameters"] < 1e-4 and max(found["mean"], found["var"]) < 0.05, found
    one, two = (re.findall(r"loss=(.*), lr", log_of(tmp_path / name)) for name in ("one", "two"))
    assert len(one) == 3
    assert not [*tmp_path.glob("*/logs/*.samples")]  # no pictures, as of no sample any is wanted
    for a, b in zip(one, two):  # loss and EPE are means over both
        numbers = [[float(x) for x in re.findall(r"[\d.]+", line)] for line in (a, b)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=2e-4)


def test_two_machines_train_as_one_with_the_double_batch(tmp_path, monkeypatch):
    """As torchrun starts them: each has a batch and an augmentation of its own, and all end with equal parameters."""
    write_configs(tmp_path / "one", NETWORK, batch_size=4)
    write_configs(tmp_path / "two", NETWORK, batch_size=2)
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(20_000 + os.getpid() % 10_000),
    }
    trace_for_programs(tmp_path / "graphs", monkeypatch)
    programs = [start(tmp_path / "two", 0, 2, RANK=str(rank), **shared) for rank in range(2)]
    for program in programs:
        code, _, errors = end_of(program)
        assert code == 0, errors
    alone = train_torch_in(tmp_path / "one", steps=2, run=RUN)
    (written,) = (tmp_path / "two/weights").glob("*_2.params")
    found = training_differences(alone, written)
    assert found["parameters"] < 1e-4 and max(found["mean"], found["var"]) < 2e-2, found
    ranks = [read_params(tmp_path / f"two/rank_{rank}.params") for rank in range(2)]
    for name, array in read_params(written).items():
        assert (ranks[0][name] == array).all(), name
        assert (ranks[1][name] == array).all(), name


def test_torchrun_on_one_machine(tmp_path):
    write_configs(tmp_path, **FAST["cpu"])
    program = start(
        *("--nproc_per_node", 2, "--master_port", 30_000 + os.getpid() % 10_000, "main.py"),
        *(tmp_path / "network.yaml", "--dataset_cfg", tmp_path / "data.yaml", "--steps", 2),
        *("--output_root", tmp_path, "--engine", "torch"),
        module="torch.distributed.run",
    )
    code, output, errors = end_of(program)
    assert code == 0, errors
    assert len(re.findall(r"^wrote ", output, re.MULTILINE)) == 1
    (path,) = (tmp_path / "weights").glob("*_2.params")
    assert load_checkpoint(path).record.engine == "torch"


def of_a_run_that_is_killed(folder, kind, interval, rank, capfd) -> str:
    """The error of a run, one of whose processes is killed after three steps."""
    write_configs(folder, checkpoint_steps=interval, **FAST[kind])
    others = multiprocessing.active_children()

    def kill():
        ranks = sorted(child.pid for child in multiprocessing.active_children() if child not in others)
        os.kill(ranks[rank], signal.SIGKILL)

    thread = at_step(folder, 3, kill)
    with pytest.raises(UserError) as error:
        train_torch_in(folder, 2, kind=kind, steps=300, run=RUN)  # so that it ends if nobody notices
    thread.join()
    assert capfd.readouterr().err.count("\n") == 1  # the engine's line
    return str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_that_is_killed_ends_the_run_with_a_checkpoint(tmp_path, kind, capfd):
    sentence = of_a_run_that_is_killed(tmp_path, kind, LONG, 1, capfd)
    said = re.search(rf"number 1\) was ended by SIGKILL: .*-c {RUN} goes on from step (\d+)$", sentence)
    assert said, sentence
    step = int(said[1])
    assert step >= 3
    checkpoint = read_checkpoint(tmp_path / f"weights/{RUN}_{step}.params")
    # It is the run as it would have been: one process goes on with it.
    path = train_torch_in(tmp_path, checkpoint=checkpoint, kind=kind, steps=step + 1)
    write_configs(tmp_path / "whole", checkpoint_steps=LONG, **FAST[kind])
    whole = train_torch_in(tmp_path / "whole", kind=kind, steps=step + 1, run=RUN)
    assert training_differences(path, whole)["parameters"] < 3e-4


@pytest.mark.parametrize("interval", [2, LONG])
@pytest.mark.parametrize("kind", KINDS)
def test_when_the_first_process_is_killed_its_newest_checkpoint_stays(tmp_path, kind, interval, capfd):
    sentence = of_a_run_that_is_killed(tmp_path, kind, interval, 0, capfd)
    said = re.search(
        rf"number 0\) was ended by SIGKILL: (-c {RUN} goes on from step (\d+)|nothing was saved)$", sentence
    )
    assert said and bool(said[2]) == (interval == 2), sentence
    if said[2]:
        path = read_checkpoint("abc", tmp_path / "weights").path
        assert path.name == f"{RUN}_{said[2]}.params" and arrays_of(path)


@pytest.mark.parametrize("to_all", [True, False])
def test_a_signal_saves_and_ends_all(tmp_path, capfd, to_all):
    """As a terminal sends it to all, SLURM to all or to the first. They listen to nobody outside this machine."""
    write_configs(tmp_path, checkpoint_steps=LONG, **FAST["cpu"])
    if to_all:
        program = start(tmp_path, 2, LONG)
        while "steps=2," not in log_of(tmp_path):
            assert program.poll() is None, program.communicate()
            time.sleep(0.02)
        listening = [address for pid in (program.pid, *children_of(program)) for address in listeners(pid)]
        assert listening and set(listening) <= {"0100007F", "00000000000000000000000001000000"}
        program.stdout.close()  # as `| tee`, which the same Ctrl-C ends
        os.killpg(program.pid, signal.SIGINT)
        code, _, errors = end_of(program)
    else:
        at_step(tmp_path, 2, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        code, errors = run(lambda _: train_torch_in(tmp_path, 2, steps=LONG, run=RUN), []), capfd.readouterr().err
    (step,) = re.findall(r"interrupted at step (\d+)", log_of(tmp_path))
    assert (code, errors) == (130, f"{ENGINE}interrupted at step {step}: -c {RUN} goes on from step {step}\n")
    assert read_checkpoint("abc", tmp_path / "weights").record.step == int(step) >= 2


def test_ctrl_c_while_the_processes_start_ends_all_at_once(tmp_path):
    write_configs(tmp_path, **FAST["cpu"])
    program = start(tmp_path, 2, LONG)
    while len(children_of(program)) < 3:  # both and multiprocessing's own
        assert program.poll() is None, program.communicate()
        time.sleep(0.001)
    time.sleep(0.1)  # the second one has just been started
    os.killpg(program.pid, signal.SIGINT)
    code, _, errors = end_of(program)
    # On a busy machine they may be training already when the signal is sent.
    assert code == 130
    assert errors.startswith("interrupted") and errors.count("\n") == 1


def test_what_is_wrong_is_told_once(tmp_path, capfd):
    write_configs(tmp_path, batch_size=3, **FAST["cpu"])
    with pytest.raises(UserError, match="2 devices cannot share a batch of 3 samples evenly$"):
        train_torch_in(tmp_path, 2, steps=1)
    assert "Traceback" not in capfd.readouterr().err
