"""From names on the command line to an engine with its checkpoint."""

from __future__ import annotations

import sys

from maskflownet.checkpoints.checkpoint import Checkpoint
from maskflownet.engine.contract import Engine, Workers
from maskflownet.errors import UserError
from maskflownet.network import import_mxnet
from maskflownet.settings.configs import ENGINES, NetworkConfig


def make_engine(
    config: NetworkConfig,
    gpus: str = "",
    seed: int = 0,
    distributed: bool = False,
    engine: str = ENGINES[0],
    precision: str | None = None,
):
    """An engine with fresh parameters, and which of the worker processes this is.

    Parameters
    ----------
    config : NetworkConfig
    gpus : str
        Comma-separated device ids; the CPU without any.
    seed : int
        Of the fresh parameters.
    distributed : bool
        Join the processes that the environment names: MXNet's parameter server (`DMLC_*`), or
        those that `torchrun` started, each of which takes one of the devices.
    engine : {"mxnet", "torch"}
    precision : {"float32", "tf32", "bf16"}, optional
        Of the torch engine's networks; by default float32 on the CPU, tf32 on GPUs.

    Returns
    -------
    (Engine, Workers)

    Raises
    ------
    UserError
        The engine is not installed, or cannot have these devices or this precision.
    """
    if engine == "torch":
        return _make_torch_engine(config, gpus, seed, distributed, precision)
    if precision not in {None, "float32"}:
        raise UserError(f"--precision {precision} is for --engine torch: MXNet computes in float32")
    # Only here, so that bad arguments are told without waiting for MXNet's import.
    mx = import_mxnet("--engine torch does without it")
    from maskflownet.engine.mxnet.engine import MXNetEngine, contexts  # noqa: PLC0415

    devices = contexts(gpus)
    kvstore = mx.kv.create("dist_sync") if distributed else None
    workers = Workers(kvstore.rank, kvstore.num_workers) if distributed else Workers()
    return MXNetEngine(config, devices, seed, kvstore), workers


def _make_torch_engine(config, gpus: str, seed: int, distributed: bool, precision: str | None):
    torch = import_torch()
    threads = torch.get_num_threads()
    from maskflownet.engine.torch.devices import check_precision, devices  # noqa: PLC0415
    from maskflownet.engine.torch.distributed import join_torchrun  # noqa: PLC0415
    from maskflownet.engine.torch.engine import TorchEngine  # noqa: PLC0415

    found = devices(gpus)
    precision = check_precision(precision, found)
    workers = Workers()
    if distributed:
        workers = join_torchrun(found)
        found = [workers.device]
    made = TorchEngine(config, found, seed, precision, workers)
    torch.set_num_threads(threads)  # MXNet's import, where a graph had to be traced, halves them
    return made, workers


def import_torch():
    """PyTorch.

    Raises
    ------
    UserError
        It cannot be imported.
    """
    try:
        import torch  # noqa: PLC0415
    except (ImportError, OSError) as error:
        raise UserError(f"--engine torch needs PyTorch ({error}): pip install torch") from error
    return torch


def load_engine(
    config: NetworkConfig,
    checkpoint: Checkpoint,
    gpus: str = "",
    engine: str = ENGINES[0],
    precision: str | None = None,
) -> Engine:
    """An engine for prediction with the parameters of a checkpoint, or of its head."""
    made, _ = make_engine(config, gpus, engine=engine, precision=precision)
    made.load(checkpoint)
    record = made.record
    if config.network.class_ == "MaskFlownet" and not checkpoint.record.found:
        # Weights of another pyramid would give a somewhat worse flow and no error.
        print(
            f"note: there is no record beside {checkpoint.path}, so it is taken for one of the "
            f"authors' (pyramid: {record.pyramid}); shipped files come with theirs, a .yaml",
            file=sys.stderr,
        )
    return made
