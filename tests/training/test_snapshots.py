"""Checkpoints of a run on disk: kills while saving, pruning, the best one."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import Record, beside, find_checkpoint, load_checkpoint
from maskflownet.errors import UserError
from maskflownet.settings.folders import ROOT
from maskflownet.training.snapshots import MEAN_EPE, Snapshots, read_state, reserve_run

from tests.programs import python

RUN = "abcJan01-0000"
KILLS = 15
SAVER = """
import os, sys
import numpy as np
from maskflownet.checkpoints.checkpoint import Record
from maskflownet.training.snapshots import Snapshots

while sys.stdin.readline() and (pid := os.fork()):  # a process for each line
    os.waitpid(pid, 0)
    print("ended", flush=True)
if pid:
    sys.exit()
snapshots = Snapshots(sys.argv[1], "abcJan01-0000")
step = max(snapshots.steps(), default=0)
weights = np.zeros((64, 64, 16, 16), "f4")  # 4 MiB
print(os.getpid(), flush=True)
while True:
    step += 1
    state = {"mean.conv6a.0.weight": weights + step}
    metrics = {"mean_epe": abs(step % 7 - 3) + 1.0} if step % 2 else {}
    record = Record("MaskFlownet_S", run="abcJan01-0000", step=step, metrics=metrics)
    snapshots.save(step, {"conv6a.0.weight": weights + step}, state, record)
"""

RESERVE = """
import os, secrets, sys
from pathlib import Path
from maskflownet.training.snapshots import reserve_run

reader, writer = os.pipe()
for number in range(64):
    if not os.fork():
        secrets.randbelow = lambda limit: number % 8
        os.close(writer)
        os.read(reader, 1)  # returns when the parent closes it
        os.write(1, (reserve_run(Path(sys.argv[1]), Path(sys.argv[1])) + "\\n").encode())
        os._exit(0)
os.close(writer)
for _ in range(64):
    os.wait()
"""


def test_after_every_kill_the_newest_checkpoint_loads(tmp_path):
    rng = np.random.default_rng(0)
    reached = 0
    command, pipe = [sys.executable, "-c", SAVER, str(tmp_path)], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as program:
        for _ in range(KILLS):
            print(file=program.stdin, flush=True)
            saver = int(program.stdout.readline())
            time.sleep(rng.uniform(0.02, 0.3))
            os.kill(saver, signal.SIGKILL)
            assert program.stdout.readline() == "ended\n"
            if not list(tmp_path.glob(f"{RUN}_*.params")):
                continue
            path = find_checkpoint("abc", tmp_path)
            checkpoint = load_checkpoint(path)  # compares the sha256, too
            step = checkpoint.record.step
            assert path.stem == f"{RUN}_{step}"
            assert checkpoint.record.found
            assert (checkpoint.parameters["conv6a.0.weight"] == step).all()
            assert (read_state(path)["mean.conv6a.0.weight"] == step).all()
            assert step >= reached
            reached = step
    assert reached > KILLS / 3  # it really saved between the kills


def test_all_files_are_on_the_disk_before_they_get_their_names(tmp_path, monkeypatch):
    """So that a power cut leaves no empty one."""
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *values, name=name, call=call: done.append(name) or call(*values))
    save(Snapshots(tmp_path, RUN), 1)
    assert done == ["fsync", "replace"] * 3


def save(snapshots, step, epe=None):
    metrics = {} if epe is None else {MEAN_EPE: epe}
    record = Record("MaskFlownet_S", run=RUN, step=step, metrics=metrics)
    arrays = {"conv6a.0.weight": np.ones((1, 1, 1, 1), "f4")}
    return snapshots.save(step, arrays, {}, record)


def test_the_newest_three_and_the_best_are_kept_with_their_pictures(tmp_path):
    pictures = tmp_path / "logs"
    pictures.mkdir()
    snapshots, other = Snapshots(tmp_path, RUN, pictures), Snapshots(tmp_path, "abdJan01-0000")
    save(other, 1)
    for step, epe in ((1, float("nan")), (2, 1.0), (3, 2.0), (4, None), (5, None), (6, 4.0)):
        for name in (f"chairs.val_0000_{step:07d}", "mine"):
            (pictures / f"{name}.jpg").touch()
        save(snapshots, step, epe)
    assert snapshots.steps() == [2, 4, 5, 6] and other.steps() == [1]  # runs do not prune each other
    assert snapshots.best() == (2, 1.0)
    assert sorted(path.stem[-1] for path in pictures.iterdir()) == ["2", "4", "5", "6", "e"]
    names = {path.name for path in tmp_path.glob(f"{RUN}*")}
    ends = (".params", ".states", ".yaml")
    assert names == {f"{RUN}_{step}{end}" for step in (2, 4, 5, 6) for end in ends}


def test_what_cannot_be_removed_does_not_fail_the_run(tmp_path, monkeypatch):
    snapshots = Snapshots(tmp_path, RUN)
    for step in (1, 2, 3):
        save(snapshots, step)

    def refuse(self):
        raise PermissionError(13, "not yours", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    save(snapshots, 4)
    assert snapshots.steps() == [1, 2, 3, 4]


def test_a_record_that_someone_wrote_into_ends_no_run(tmp_path):
    snapshots = Snapshots(tmp_path, RUN)
    path = save(snapshots, 1, 1.0)
    with open(path.with_suffix(".yaml"), "a") as file:
        file.write("note: mine\n")
    for step in range(2, 7):
        save(snapshots, step)
    assert snapshots.steps() == [1, 4, 5, 6]  # nor is it removed
    assert snapshots.best() is None


def test_what_a_killed_process_left_is_swept(tmp_path):
    snapshots = Snapshots(tmp_path, RUN)
    save(snapshots, 1)
    before = {path.name for path in tmp_path.iterdir()}
    other, old = (f".{run}_2.0123456789ab.tmp.params" for run in ("abdJan01-0000", "abeJan01-0000"))
    nested = f"..{RUN}_2.0123456789ab.tmp.0123456789ab.tmp.params"  # of earlier versions
    for name in (f".{RUN}_2.0123456789ab.tmp.yaml", nested, f"{RUN}_2.states", f"{RUN}_2.yaml", other, old):
        (tmp_path / name).write_bytes(b"half")
    os.utime(tmp_path / old, (0, 0))
    with closing(snapshots.lock()):
        assert {path.name for path in tmp_path.iterdir()} == before | {other, f".{RUN}.lock"}


HOLDER = """
import sys
from maskflownet.training.snapshots import Snapshots
lock = Snapshots(sys.argv[1], "abcJan01-0000").lock()
print("ready", flush=True)
sys.stdin.read()
"""


def test_one_process_has_a_run_and_the_next_one_gets_it_after_a_kill(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as holder:
        holder.stdout.readline()
        for _ in range(2):
            with pytest.raises(UserError, match=f"^the run {RUN} is in the hands of process {holder.pid} on .* since"):
                Snapshots(tmp_path, RUN).lock()
        with closing(Snapshots(tmp_path, "abdJan01-0000").lock()):
            pass
        holder.kill()
    with closing(Snapshots(tmp_path, RUN).lock()), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        Snapshots(tmp_path, RUN).lock()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path):
    (tmp_path / "weights").touch()
    with pytest.raises(UserError, match=f"^cannot write into {tmp_path}/weights: "):
        Snapshots(tmp_path / "weights", RUN).lock()
    with pytest.raises(UserError, match=f"^cannot write into {tmp_path}/weights: "):
        reserve_run(tmp_path / "weights", tmp_path)


def test_ids_of_new_runs_are_never_given_twice(tmp_path):
    """Of each length only eight ids are drawn by the 64 processes, which begin together."""
    runs = python("-c", RESERVE, tmp_path).stdout.split()
    assert len(set(runs)) == len(runs) == 64
    assert {len(run) - len("Jan01-0000") for run in runs} == set(range(3, 11))
    (tmp_path / f".{runs[0]}.lock").rename(tmp_path / f"{runs[0]}.log")  # a run that ended before a checkpoint
    assert reserve_run(tmp_path, tmp_path) not in runs


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_a_state_that_was_changed_is_not_resumed(tmp_path, value):
    snapshots = Snapshots(tmp_path, RUN)
    record, arrays = Record("MaskFlownet_S", run=RUN), {"conv6a.0.weight": np.ones((1, 1, 1, 1), "f4")}
    state = {f"{kind}.conv6a.0.weight": np.ones((1, 1, 1, 1), "f4") for kind in ("mean", "var")}
    path = snapshots.save(1, arrays, state, record)
    assert read_state(path).keys() == state.keys()
    states = beside(path, ".states")
    states.write_bytes(states.read_bytes().replace(np.float32(1).tobytes(), np.float32(value).tobytes()))
    with pytest.raises(UserError, match=r"_1\.states is damaged"):
        read_state(path)
    state["var.conv6a.0.weight"] = np.full((1, 1, 1, 1), np.nan, "f4")
    with pytest.raises(UserError, match=r"_2\.states is not written: var\.conv6a\.0\.weight holds values that are not"):
        snapshots.save(2, arrays, state, record)
    assert snapshots.steps() == [1]
