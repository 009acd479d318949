"""Small training runs with the torch engine, in this process or in others.

    python -m tests.torch_runs FOLDER RANKS STEPS [KILL_AFTER]

trains FOLDER/network.yaml on FOLDER/data.yaml up to step STEPS with RANKS processes (0 = in this
one), going on from FOLDER/weights if a checkpoint is there. Without further processes it kills
itself after KILL_AFTER steps. As one of torchrun's processes it also writes the parameters that it
ends with to FOLDER/rank_N.params.
"""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from maskflownet.checkpoints.params import params_bytes
from maskflownet.engine import graphs
from maskflownet.engine.contract import under_torchrun
from maskflownet.engine.load import make_engine
from maskflownet.engine.torch.distributed import run_in_processes
from maskflownet.engine.torch.engine import TorchEngine
from maskflownet.engine.torch.training import TorchTraining
from maskflownet.settings.cli import run
from maskflownet.settings.folders import ROOT
from maskflownet.training.launch import EngineChoice, train_on
from maskflownet.training.loop import train

from tests.training_runs import RUN, configs_of, die_after, newest, options

# Of `write_configs`, by kind of device. GPUs often have no MXNet, which traces the graphs of other sizes.
SIZES = {
    "cpu": {},
    "gpu": {
        "synthetic": {"length": 12, "validation_length": 2, "size": [400, 520]},
        "orig_shape": [384, 512],
        "target_shape": [320, 448],
    },
}


def train_torch_in(folder: Path, ranks: int = 0, checkpoint=None, kind: str = "cpu", **changes) -> Path | None:
    """Train with the configs of a folder in so many processes, 0 = in the calling one, with a device each."""
    config, data = configs_of(folder)
    chosen = options(folder, **changes)
    devices = [torch.device("cuda", i) if kind == "gpu" else torch.device("cpu") for i in range(max(1, ranks))]
    if ranks:
        gpus = ",".join(str(device.index) for device in devices if device.type == "cuda")
        choice = EngineChoice(gpus, engine="torch", precision="float32")
        return Path(run_in_processes(devices, train_on, (choice, config, data, checkpoint, chosen)))
    engine = TorchEngine(config, devices)
    return train(engine, config, data, checkpoint, chosen)


def trace_for_programs(folder: Path, monkeypatch) -> None:
    """Let programs that the test starts read the graph of our size, for which each would import MXNet."""
    shutil.copytree(graphs.GRAPHS, folder)
    text = graphs.graph_text("geometry", target=(64, 64))
    graphs.graph_path("geometry", folder, target=(64, 64)).write_text(text, encoding="utf-8")
    monkeypatch.setenv("TEST_GRAPHS", str(folder))


def start(*arguments, module="tests.torch_runs", **environment) -> subprocess.Popen:
    """Start a program of ours in a session of its own."""
    command, pipe = [sys.executable, "-m", module, *map(str, arguments)], subprocess.PIPE
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def main(arguments) -> None:
    folder = Path(arguments[0])
    graphs.graph_path = partial(graphs.graph_path, folder=Path(os.environ.get("TEST_GRAPHS", graphs.GRAPHS)))
    ranks, steps, *rest = map(int, arguments[1:])
    die_after(*(rest or [0]), TorchTraining)
    if under_torchrun():
        train_as_rank(folder, steps)
        return
    train_torch_in(folder, ranks, newest(folder), steps=steps, run=RUN)


def train_as_rank(folder: Path, steps: int) -> None:
    config, data = configs_of(folder)
    seed = int(os.environ["RANK"])  # of the first process is what counts
    engine = make_engine(config, "", seed, distributed=True, engine="torch")
    train(engine, config, data, None, options(folder, steps=steps, run=RUN))
    (folder / f"rank_{os.environ['RANK']}.params").write_bytes(params_bytes(engine.parameters(), ""))
    engine.processes.close()


if __name__ == "__main__":
    sys.exit(run(main))
