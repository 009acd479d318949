"""Processes that train together with PyTorch, one per device, on one machine or on several."""

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from maskflownet.engine.contract import TORCHRUN, PeerLost, Processes
from maskflownet.errors import UserError
from maskflownet.processes import HOW_ON, Interruption, end_is_asked, follow_parent, ignore_signals, interrupt, starting
from maskflownet.settings.cli import INTERRUPTED, lenient_output, sentence
from torch.multiprocessing import ProcessExitedException, start_processes
from tqdm import tqdm

# The others wait at a step's border for as long as the first process validates and saves.
LONGEST_WAIT = timedelta(days=7)
HOST = "127.0.0.1"


@dataclass(frozen=True)
class TorchProcesses(Processes):
    """See `maskflownet.engine.contract.Processes`."""

    device: torch.device = None  # of this process
    # Over which the hosts agree (gloo), without their devices. A process that dies closes its
    # connections, which the others notice here at the next step's border.
    control: Any = None

    def any(self, flag: bool) -> bool:
        flags = torch.tensor(int(flag), dtype=torch.int32)
        self._call(dist.all_reduce, flags, op=dist.ReduceOp.MAX, group=self.control)
        return bool(flags)

    def all_gather(self, names: list[str]) -> list[str]:
        # As JSON, padded with spaces: PyTorch's own way would unpickle what comes over the network.
        text = json.dumps(names).encode()
        longest = torch.tensor(len(text))
        self._call(dist.all_reduce, longest, op=dist.ReduceOp.MAX, group=self.control)
        mine = torch.frombuffer(bytearray(text.ljust(int(longest))), dtype=torch.uint8)
        found = [torch.empty_like(mine) for _ in range(self.world_size)]
        self._call(dist.all_gather, found, mine, group=self.control)
        return [name for part in found for name in json.loads(bytes(part.numpy()))]

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
        # A launcher sends a signal when another process has died, which one that waits for its device cannot see.
        return end_is_asked()

    def close(self) -> None:
        # With a collective that never ends on the device, parting would never end, either.
        if dist.is_initialized() and not self.lost():
            dist.destroy_process_group()


def join_torchrun(devices: list[torch.device]) -> TorchProcesses:
    """Join the processes that `torchrun` started; each takes one of its machine's devices."""
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
    # NCCL's watchdog would end the process, which here still saves a checkpoint.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=count)
        control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the {count} training processes do not find each other: {reason}") from error
    return TorchProcesses(rank, count, count // here, device, control)


def run_in_processes(devices: Sequence, work: Callable[..., Any], arguments: tuple) -> str:
    """Do `work(*arguments)` in a process per device, as `torchrun` would start them; str of the first one's result.

    `torchrun` itself restarts the program, and tells its end in a page of text. Ctrl-C reaches the first process,
    which is enough; a second one ends all. When one dies, the others get SIGTERM and 30 s. It raises UserError and
    KeyboardInterrupt as a process does, and UserError if one of them died.
    """
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # what it warns of is told below
    count, started, failed = len(devices), None, None
    # The socket is made here, as the store itself would listen to the whole network.
    listener = socket.create_server((HOST, 0))
    port = listener.getsockname()[1]
    store = dist.TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())

    def forward():
        if started is not None and started.processes[0].is_alive():
            os.kill(started.processes[0].pid, signal.SIGINT)

    with Interruption(forward):
        with starting():
            started = start_processes(_run_one, (count, port, work, arguments), count, join=False)
        try:
            while not started.join():
                pass
        except ProcessExitedException as error:
            failed = error.error_index
        finally:
            for process in started.processes:
                process.kill()
                process.join()
    reports = {rank: json.loads(store.get(str(rank))) for rank in range(count) if store.check([str(rank)])}
    texts = {kind: [text for k, text in reports.values() if k == kind] for kind in ("error", "interrupted", "lost")}
    saved = [text for text in texts["lost"] + texts["interrupted"] if text]
    if texts["error"]:
        raise UserError("; ".join([texts["error"][0], *saved[:1]]))
    if texts["interrupted"] and failed in reports:
        raise KeyboardInterrupt(texts["interrupted"][0])
    if failed is None:
        return reports[0][1]
    # One that could still say something did not die first.
    died = next((rank for rank in (failed, *range(count)) if rank not in reports), failed)
    code = started.processes[died].exitcode
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    raise UserError(
        f"the training process on {devices[died]} (number {died}) was ended {how}: " + (saved[0] if saved else HOW_ON)
    )


def _run_one(rank: int, count: int, port: int, work: Callable[..., Any], arguments: tuple) -> None:
    """What each process does; it leaves its result or a sentence in the store."""
    # tqdm's own lock is a semaphore of the system, of which a killed process would leave a trace.
    tqdm.set_lock(threading.RLock())
    values = (rank, count, rank, count, HOST, port)
    os.environ.update({name: str(value) for name, value in zip(TORCHRUN, values)})
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0")  # the parent has the store
    for _, interface in socket.if_nameindex():
        if interface.startswith("lo"):  # all is on this machine, whatever its name resolves to
            os.environ.update(GLOO_SOCKET_IFNAME=interface, NCCL_SOCKET_IFNAME=interface)
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    store, code = dist.TCPStore(HOST, port, is_master=False), 2
    with lenient_output(), Interruption(interrupt):
        try:
            follow_parent()
            report, code = ("done", str(work(*arguments))), 0
        except KeyboardInterrupt as error:
            report, code = ("interrupted", str(error)), 0 if rank else INTERRUPTED
        except PeerLost as error:
            report = ("lost", error.advice)
        except (UserError, OSError, MemoryError) as error:
            report = ("error", sentence(error))
        ignore_signals()  # of the parent, which ends the others when one has ended
        store.set(str(rank), json.dumps(report))
        sys.stdout.flush()
        # At once: a collective that waits for a dead process would keep the interpreter from ending.
        os._exit(code)
