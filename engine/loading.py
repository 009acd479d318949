"""From names on the command line to an engine with its checkpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from engine.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from engine.config import NetworkConfig
from engine.folders import WEIGHTS
from engine.interface import Engine

ENGINES = ("mxnet",)


@dataclass(frozen=True)
class Workers:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1


def make_engine(config: NetworkConfig, gpus: str = "", seed: int = 0, distributed: bool = False):
    """An engine with fresh parameters, and which of the worker processes this is.

    Parameters
    ----------
    config : NetworkConfig
    gpus : str
        Comma-separated device ids; the CPU without any.
    seed : int
        Of the fresh parameters.
    distributed : bool
        Join the parameter server that the `DMLC_*` variables name.

    Returns
    -------
    (Engine, Workers)
    """
    # Only here, so that bad arguments are told without waiting for MXNet's import.
    from engine.mxnet_devices import contexts  # noqa: PLC0415
    from engine.mxnet_engine import MXNetEngine  # noqa: PLC0415
    from network.mx import mx  # noqa: PLC0415

    devices = contexts(gpus)
    kvstore = mx.kv.create("dist_sync") if distributed else None
    workers = Workers(kvstore.rank, kvstore.num_workers) if distributed else Workers()
    return MXNetEngine(config, devices, seed, kvstore), workers


def read_checkpoint(name, folder: Path = WEIGHTS) -> Checkpoint:
    """Find and read a checkpoint; one without a record gets run and step from its name."""
    from engine.mxnet_engine import read_any_params  # noqa: PLC0415

    path = find_checkpoint(name, folder)
    checkpoint = load_checkpoint(path, read_any_params)
    record = checkpoint.record
    match = re.fullmatch(r"(.+)_(\d+)", path.stem)
    run, step = (match.group(1), int(match.group(2))) if match else (path.stem, 0)
    record = replace(
        record,
        run=record.run or run,
        step=step if record.step is None else record.step,
    )
    return replace(checkpoint, record=record)


def load_engine(config: NetworkConfig, checkpoint: Checkpoint, gpus: str = "") -> Engine:
    """An engine for prediction with the parameters of a checkpoint, or of its head."""
    engine, _ = make_engine(config, gpus)
    engine.load(checkpoint)
    return engine
