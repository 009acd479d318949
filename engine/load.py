"""From names on the command line to an engine with its checkpoint."""

import gc
import os
import sys
from dataclasses import replace
from importlib.util import find_spec

from maskflownet.checkpoints.checkpoint import Checkpoint, check_multiplier, match_network
from maskflownet.engine.contract import ALONE, Engine, under_torchrun
from maskflownet.errors import UserError, imported, nearest
from maskflownet.network import import_mxnet
from maskflownet.network.architecture import HEAD, copies_of_head
from maskflownet.settings.configs import ENGINES, PRECISIONS, NetworkConfig


def make_engine(
    config: NetworkConfig,
    gpus: str = "",
    seed: int | None = 0,
    distributed: bool = False,
    engine: str = ENGINES[0],
    precision: str | None = None,
) -> Engine:
    """An engine with fresh parameters; its `processes` are those that train together.

    `seed` None leaves the parameters 0, for others that will be assigned. With `distributed` the engine
    joins those that the environment names: MXNet's parameter server (`DMLC_*`), or the processes of
    `torchrun`, each of which takes one of the devices. `precision` is that of the torch engine's
    networks, by default float32 on the CPU and tf32 on GPUs. It is a UserError if the engine is not
    installed, or cannot have these devices or this precision.
    """
    if precision not in {None, *PRECISIONS}:
        raise UserError(f"no precision {precision}: there are {', '.join(PRECISIONS)}")
    # The engines are imported only here: bad arguments are told without waiting for MXNet's import.
    if choose_engine(engine) == "torch":
        torch = import_torch()
        from maskflownet.engine.torch.devices import check_precision, devices, triton_prepared  # noqa: PLC0415
        from maskflownet.engine.torch.distributed import join_torchrun  # noqa: PLC0415
        from maskflownet.engine.torch.engine import TorchEngine  # noqa: PLC0415

        threads, found = torch.get_num_threads(), devices(gpus)
        with triton_prepared(gpus):
            precision, processes = check_precision(precision, found), ALONE
            if distributed:
                processes = join_torchrun(found)
                found = [processes.device]
            made = TorchEngine(config, found, seed, precision, processes)
        torch.set_num_threads(threads)  # MXNet's import, where a graph had to be traced, halves them
    else:
        if precision not in {None, "float32"}:
            raise UserError(f"--precision {precision} is for --engine torch: MXNet computes in float32")
        import_mxnet("--engine torch does without it")
        from maskflownet.engine.mxnet import MXNetEngine, Workers, contexts  # noqa: PLC0415

        made = MXNetEngine(config, contexts(gpus), seed, Workers.join() if distributed else ALONE)
    if gpus.strip():
        made.place = f"GPU {gpus.strip()}"
    return made


def choose_engine(name: str) -> str:
    """The engine that "auto" means: PyTorch where it is installed, else MXNet; other names are themselves.

    MXNet's parameter server means MXNet, torchrun PyTorch. It is a UserError if neither is installed.
    """
    if name not in ENGINES:
        raise UserError(f"no engine {name}{nearest(name, ENGINES)}: there are {', '.join(ENGINES)}")
    if name != "auto":
        return name
    if "DMLC_ROLE" in os.environ:
        return "mxnet"
    if under_torchrun():
        return "torch"
    for engine in ("torch", "mxnet"):
        # What is left of a package after `pip uninstall` may be a folder: it has no origin.
        if getattr(find_spec(engine), "origin", None):
            return engine
    raise UserError("no engine is installed: pip install torch, or pip install --no-deps mxnet==1.9.1")


def import_torch():
    """PyTorch, or a UserError that says what to install."""
    if sys.modules.get("torch"):
        return sys.modules["torch"]
    # Its import makes 160,000 objects that stay. To look through them for garbage takes 0.1 s meanwhile, and 0.4 s when
    # the program ends.
    collecting = gc.isenabled()
    gc.disable()
    try:
        torch = imported("torch", "--engine torch needs PyTorch", "pip install torch")
        gc.freeze()
    finally:
        if collecting:
            gc.enable()
    return torch


def load_engine(config: NetworkConfig, checkpoint: Checkpoint, gpus: str, engine: str, precision: str | None) -> Engine:
    """An engine for prediction with the parameters of a checkpoint, or of its head; stderr says which engine."""
    made = make_engine(config, gpus, None, engine=engine, precision=precision)
    load_into(made, checkpoint)
    print(f"engine: {made}", file=sys.stderr)
    return made


def load_into(engine: Engine, checkpoint: Checkpoint, as_head: bool = False) -> None:
    """Give a checkpoint to an engine, or its head where the engine has the head's network.

    With `as_head` a MaskFlownet_S checkpoint becomes the frozen head of a MaskFlownet, and by `initial: head` the start
    of its second stage. It is a UserError if it is of the other network, or was trained with another flow_multiplier.
    """
    network, prefix = engine.config.network.class_, ""
    if as_head and network == "MaskFlownet" and checkpoint.record.network == "MaskFlownet_S":
        network, prefix = "MaskFlownet_S", HEAD
    arrays = engine.parameters().items()
    shapes = {name.removeprefix(prefix): array.shape for name, array in arrays if name.startswith(prefix)}
    checkpoint = match_network(checkpoint, network, shapes)
    check_multiplier(checkpoint, engine.config)
    engine.rebuild(replace(engine.record, colour=checkpoint.record.colour) if prefix else checkpoint.record)
    engine.assign({prefix + name: array for name, array in checkpoint.parameters.items()})
    if prefix and engine.config.network.initial == "head":
        own = {name: array.shape for name, array in arrays if not name.startswith(HEAD)}
        engine.assign(copies_of_head(checkpoint.parameters, own))
