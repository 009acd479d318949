"""Starts one training process per device of this machine, and watches over them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

import torch
import torch.distributed as dist
from maskflownet.engine.contract import PeerLost
from maskflownet.engine.torch.distributed import join
from maskflownet.engine.torch.engine import TorchEngine
from maskflownet.errors import DataError, UserError
from maskflownet.reader.pool import Context, allow_ctrl_c
from maskflownet.training.loop import ONE_PRESS, train
from tqdm import tqdm

GRACE = 20.0  # s in which the others may save a checkpoint after one has died
HOST = "127.0.0.1"
INTERRUPTED = 130  # exit code of a process that Ctrl-C ended while there was nothing to save


def train_on_devices(devices: Sequence[torch.device], precision: str, config, data, checkpoint, options) -> Path | None:
    """As `maskflownet.training.loop.train`, with a process for each device; they share each batch.

    Ctrl-C saves and ends; a second one, or one before training begins, ends at once. When a
    process dies, the first one saves what it has reached, if it lives, and all end.

    Parameters
    ----------
    devices : sequence of torch.device
        The CPU may stand in it several times.
    precision : str
    config, data, checkpoint, options
        Of `maskflownet.training.loop.train`.

    Raises
    ------
    UserError
        As in `train`, or a process died.
    """
    # The port is chosen here, and kept, so that no other program can take it meanwhile.
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    context = Context()
    lost = context.RawValue("b", 0)
    arguments = (store.port, tuple(map(str, devices)), lost, precision)
    arguments += (config, data, checkpoint, options)
    processes, reports = [], []
    try:
        for rank in range(len(devices)):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_train_one, args=(rank, sender, *arguments))
            processes.append(process)
            process.start()
            sender.close()
            reports.append(receiver)
        with _forwarded_ctrl_c(processes):
            first = _wait(processes, lost)
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()
    return _outcome(devices, processes, [_received(report) for report in reports], first)


def _wait(processes, lost) -> int | None:
    """Wait until all have ended; the number of the one that failed first."""
    first, since = None, 0.0
    running = dict(enumerate(processes))
    while running:
        patience = None if first is None else max(0.0, since + GRACE - time.monotonic())
        ended = wait([process.sentinel for process in running.values()], patience)
        if not ended:
            break
        for rank, process in list(running.items()):
            if process.sentinel in ended:
                process.join()
                del running[rank]
                if process.exitcode == INTERRUPTED:
                    raise KeyboardInterrupt
                if process.exitcode and first is None:
                    first, since, lost.value = rank, time.monotonic(), 1
    return first


def _received(report):
    try:
        return report.recv() if report.poll() else None
    except EOFError:
        return None


def _outcome(devices, processes, reports, first: int | None) -> Path | None:
    if first is None:
        return reports[0][1]
    told = [report[1] for report in reports if report and report[0] == "error"]
    saved = [report[1] for report in reports if report and report[0] == "lost" and report[1]]
    if told:
        raise UserError("; ".join([told[0], *saved[:1]]))
    # One that could still say something did not die first.
    first = next((i for i in (first, *range(len(reports))) if reports[i] is None), first)
    code = processes[first].exitcode
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    raise UserError(
        f"the training process on {devices[first]} (number {first}) was ended {how}: "
        + (saved[0] if saved else "-c with the run's id goes on from its newest checkpoint")
    )


@contextmanager
def _forwarded_ctrl_c(processes) -> Iterator[None]:
    """Tell the first process of the first Ctrl-C, which is enough; the second one ends all."""
    first = None

    def forward(number, frame):
        nonlocal first
        if first is None:
            first = time.monotonic()
            if processes[0].is_alive():
                os.kill(processes[0].pid, signal.SIGINT)
        elif time.monotonic() - first > ONE_PRESS:
            signal.signal(signal.SIGINT, before)
            signal.raise_signal(signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():  # no other may handle signals
        yield
        return
    before = signal.signal(signal.SIGINT, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _train_one(rank, sender, port, names, lost, precision, config, data, checkpoint, options):  # noqa: PLR0917
    """What each process does; it sends ("done", path) or a sentence as "error" or "lost"."""
    if rank:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()  # the terminal's Ctrl-C is for the parent, which forwards it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # tqdm's own lock is a semaphore of the system, of which a killed process would leave a trace.
    tqdm.set_lock(threading.RLock())
    for _, interface in socket.if_nameindex():
        if interface.startswith("lo"):  # all is on this machine, whatever its name resolves to
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    device = torch.device(names[rank])
    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // len(names)))
    code = 2
    try:
        if rank == 0:  # it tells the others
            allow_ctrl_c()
        store = dist.TCPStore(HOST, port, is_master=False)
        processes = join(device, rank, len(names), is_lost=lambda: bool(lost.value), store=store)
        engine = TorchEngine(config, [device], options.seed or 0, precision, processes)
        report = ("done", train(engine, config, data, checkpoint, options))
        engine.close()
        code = 0
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    except PeerLost as error:
        report = ("lost", error.advice)
    except (UserError, DataError) as error:
        report = ("error", str(error))
    except OSError as error:
        report = ("error", f"{error.filename}: {error.strerror}" if error.filename else str(error))
    sender.send(report)
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: a collective that waits for a dead process would keep the interpreter from ending.
    os._exit(code)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
