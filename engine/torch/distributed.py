"""Processes that train together with PyTorch, one per device, on one machine or on several."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from maskflownet.engine.contract import TORCHRUN, PeerLost, Processes
from maskflownet.errors import UserError

# The others wait at a step's border for as long as the first process validates and saves.
LONGEST_WAIT = timedelta(days=7)


@dataclass(frozen=True)
class TorchProcesses(Processes):
    """See `maskflownet.engine.contract.Processes`."""

    device: torch.device = None  # of this process
    # Over which the hosts agree (gloo), without their devices. A process that dies closes its
    # connections, which the others notice here at the next step's border.
    control: Any = None
    # Whether someone told this process meanwhile that another one has died, or that all shall
    # end, which it cannot see while it waits for its device.
    is_lost: Callable[[], bool] = lambda: False

    def any(self, flag: bool) -> bool:
        flags = torch.tensor(int(flag or self.lost()), dtype=torch.int32)
        self._call(dist.all_reduce, flags, op=dist.ReduceOp.MAX, group=self.control)
        return bool(flags)

    def all_gather(self, names: list[str]) -> list[str]:
        found = [None] * self.world_size
        self._call(dist.all_gather_object, found, names, group=self.control)
        return [name for part in found for name in part]

    def all_reduce(self, tensor: torch.Tensor) -> None:
        self._call(dist.all_reduce, tensor)

    def broadcast(self, tensor: torch.Tensor) -> None:
        self._call(dist.broadcast, tensor, src=0)

    def _call(self, collective, *args, **options) -> None:
        try:
            collective(*args, **options)
        except RuntimeError as error:  # what gloo and NCCL raise when a connection ends
            raise PeerLost from error

    def lost(self) -> bool:
        return self.is_lost()

    def close(self) -> None:
        # With a collective that never ends on the device, parting would never end, either.
        if dist.is_initialized() and not self.lost():
            dist.destroy_process_group()


def join(
    device: torch.device,
    rank: int,
    world_size: int,
    machines: int = 1,
    is_lost: Callable[[], bool] = lambda: False,
    store: dist.Store | None = None,
) -> TorchProcesses:
    """Join the processes that train together; returns when all are there.

    They meet at `store`, or without it at the address in the environment. See `TorchProcesses` for
    the rest.
    """
    # NCCL's watchdog would end the process, which here still saves a checkpoint.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=world_size, store=store)
        control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the {world_size} training processes do not find each other: {reason}") from error
    return TorchProcesses(rank, world_size, machines, device, control, is_lost)


def join_torchrun(devices: list[torch.device]) -> TorchProcesses:
    """Join the processes that `torchrun` started; each takes one of its machine's devices.

    Raises
    ------
    UserError
        The machines have different numbers of processes, or there are fewer GPUs than processes.
    """
    rank, count, local, here = (int(os.environ[name]) for name in TORCHRUN[:4])
    if count % here:
        raise UserError(f"torchrun must start equally many processes on each machine, not {here}")
    if devices[0].type == "cpu":
        device = devices[0]
    elif len(devices) != here:
        raise UserError(
            f"torchrun starts {here} processes on this machine, but -g names {len(devices)} GPUs: "
            "both numbers must be the same"
        )
    else:
        device = devices[local]
    ended: list[int] = []
    # torchrun ends the remaining processes like this when one has died.
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    return join(device, rank, count, count // here, lambda: bool(ended))
