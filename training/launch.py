"""Training on the devices of `-g`, with as many processes as the engine needs for them."""

from __future__ import annotations

import os
from pathlib import Path

from maskflownet.checkpoints.checkpoint import Checkpoint
from maskflownet.engine.contract import refuse_torchrun, under_torchrun
from maskflownet.engine.load import import_torch, make_engine
from maskflownet.settings.configs import ENGINES, DataConfig, NetworkConfig
from maskflownet.training.loop import train
from maskflownet.training.plan import Options


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
        See `maskflownet.training.loop.train`.
    gpus, engine, precision
        See `maskflownet.engine.load.make_engine`.
    """
    distributed = "DMLC_ROLE" in os.environ
    if engine == "torch":
        import_torch()
        from maskflownet.engine.torch.devices import check_precision, devices  # noqa: PLC0415
        from maskflownet.training.torch_launch import train_on_devices  # noqa: PLC0415

        distributed = under_torchrun()
        found = devices(gpus)
        if len(found) > 1 and not distributed:
            precision = check_precision(precision, found)
            return train_on_devices(found, precision, config, data, checkpoint, options)
    else:
        refuse_torchrun("--engine mxnet")
    made = make_engine(config, gpus, options.seed or 0, distributed, engine, precision)
    try:
        return train(made, config, data, checkpoint, options)
    finally:
        made.close()
