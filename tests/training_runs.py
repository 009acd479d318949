"""Small training runs for tests: configs, and a program that trains and may kill itself.

    python -m tests.training_runs FOLDER DEVICES STEPS KILL_AFTER

trains FOLDER/network.yaml on FOLDER/data.yaml with DEVICES CPU contexts up to step STEPS, going on
from FOLDER/weights if a checkpoint is there; after KILL_AFTER steps (0 = never) it kills itself.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import yaml
from maskflownet.checkpoints.checkpoint import Checkpoint, beside, read_checkpoint
from maskflownet.checkpoints.params import read_params
from maskflownet.settings.configs import DataConfig, NetworkConfig, load_network_config
from maskflownet.settings.datasets import load_data_config
from maskflownet.training.loop import train
from maskflownet.training.plan import Options

RUN = "abcJan01-0000"
NETWORK = {"network": {"class": "MaskFlownet_S"}, "optimizer": {"learning_rate": [[7, 1.0e-4], [100, 5.0e-5]]}}
AUGMENTATION = {
    "rotation": 17, "zoom": [0.8, 1.1], "aspect": [0.9, 1.1], "translation": 0.1,
    "relative_rotation": 4, "relative_translation": 0.02, "relative_scale": [0.96, 1.04],
    "contrast": [-0.4, 0.8], "brightness": 0.1, "gain": [0.8, 1.4], "noise": 0.04,
    "saturation": 0.5, "hue": 0.5,
}  # fmt: skip
DATA = {
    "dataset": "synthetic",
    "synthetic": {"length": 12, "validation_length": 2, "size": [72, 80]},
    "batch_size": 2,
    "orig_shape": [68, 76],
    "target_shape": [64, 64],
    "augmentation": AUGMENTATION,
    "validation": [],
    "validation_steps": 4,
    "checkpoint_steps": 5,
}


def write_configs(folder: Path, network=None, **data) -> None:
    """Write network.yaml and data.yaml, with changed keys of the data config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network.yaml").write_text(yaml.safe_dump(network or NETWORK))
    (folder / "data.yaml").write_text(yaml.safe_dump({**DATA, **data}))


def configs_of(folder: Path) -> tuple[NetworkConfig, DataConfig]:
    return load_network_config(folder / "network.yaml"), load_data_config(folder / "data.yaml")


def options(folder: Path, **changes) -> Options:
    return Options(weights=folder / "weights", logs=folder / "logs", **changes)


def train_in(folder: Path, devices: int = 1, checkpoint=None, engine=None, **changes) -> Path | None:
    """Train with the configs of a folder on so many CPU contexts."""
    from maskflownet.engine.mxnet import MXNetEngine  # noqa: PLC0415
    from maskflownet.network.compat import mx  # noqa: PLC0415

    config, data = configs_of(folder)
    engine = engine or MXNetEngine(config, [mx.cpu(i) for i in range(devices)])
    return train(engine, config, data, checkpoint, options(folder, **changes))


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of `RUN` in a folder, if there is one."""
    weights = folder / "weights"
    return read_checkpoint(RUN, weights) if list(weights.glob("*.params")) else None


def die_after(steps: int, training: type) -> None:
    """Let this process kill itself when it has done so many steps, 0 = never."""
    train_batch = training.train_batch

    def train_or_die(self, batch, done, rate):
        if 0 < steps == done:
            os.kill(os.getpid(), signal.SIGKILL)
        return train_batch(self, batch, done, rate)

    training.train_batch = train_or_die


def at_step(folder: Path, step: int, action) -> threading.Thread:
    """Do something in a thread once the log of `RUN` has a step."""
    log = folder / f"logs/{RUN}.log"

    def wait():
        while not log.exists() or f"steps={step}," not in log.read_text():
            time.sleep(0.02)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def arrays_of(path) -> dict[str, np.ndarray]:
    """Parameters and state of a checkpoint."""
    return {**read_params(path), **read_params(beside(path, ".states"))}


def largest_difference(path_a, path_b) -> float:
    a, b = arrays_of(path_a), arrays_of(path_b)
    assert set(a) == set(b)
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def training_differences(path_a, path_b) -> dict[str, float]:
    """How far two runs are apart: ||a - b|| / ||b|| of all `parameters`, of all `mean`s and `var`s.

    Of each kind as a whole: where an activation is next to its kink, the order of sums, which
    differs between engines, batches and processors, decides about a single gradient.
    """
    a, b = arrays_of(path_a), arrays_of(path_b)
    assert set(a) == set(b)
    kinds: dict[str, list[tuple[float, float]]] = {}
    for name in a:
        kind = name.partition(".")[0] if name.startswith(("mean.", "var.")) else "parameters"
        norms = np.linalg.norm(a[name] - b[name]), np.linalg.norm(b[name])
        kinds.setdefault(kind, []).append(norms)
    return {kind: float(np.divide(*np.linalg.norm(norms, axis=0))) for kind, norms in kinds.items()}


def main(folder: Path, devices: int, steps: int, kill_after: int) -> None:
    from maskflownet.engine.mxnet import MXNetTraining  # noqa: PLC0415

    die_after(kill_after, MXNetTraining)
    train_in(folder, devices, newest(folder), steps=steps, run=RUN)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
