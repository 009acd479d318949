"""Training on the devices of `-g`, with as many processes as the engine needs for them."""

from __future__ import annotations

import os
from pathlib import Path

from engine.checkpoint import Checkpoint
from engine.config import NetworkConfig
from engine.data_config import DataConfig
from engine.loading import ENGINES, import_torch, make_engine
from engine.run_plan import Options
from engine.training import train
from engine.workers import refuse_torchrun, under_torchrun


def train_on(
    config: NetworkConfig,
    data: DataConfig,
    checkpoint: Checkpoint | None,
    options: Options,
    gpus: str = "",
    engine: str = ENGINES[0],
    precision: str | None = None,
) -> Path | None:
    """Make an engine and train; the path of the last checkpoint, None in all workers but the first.

    The torch engine takes a process per GPU, and those of `torchrun`, if there is one, as they
    are; MXNet joins the parameter server of the `DMLC_*` variables.

    Parameters
    ----------
    config, data, checkpoint, options
        See `engine.training.train`.
    gpus, engine, precision
        See `engine.loading.make_engine`.
    """
    distributed = "DMLC_ROLE" in os.environ
    if engine == "torch":
        import_torch()
        from engine.torch_devices import check_precision, devices  # noqa: PLC0415
        from engine.torch_launch import train_on_devices  # noqa: PLC0415

        distributed = under_torchrun()
        found = devices(gpus)
        if len(found) > 1 and not distributed:
            precision = check_precision(precision, found)
            return train_on_devices(found, precision, config, data, checkpoint, options)
    else:
        refuse_torchrun("--engine mxnet")
    made, workers = make_engine(config, gpus, options.seed or 0, distributed, engine, precision)
    try:
        return train(made, config, data, checkpoint, options, workers)
    finally:
        made.close()
