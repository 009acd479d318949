"""What a run is: its options, where it begins and ends, and under which settings it may go on."""

from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from maskflownet.checkpoints.checkpoint import Checkpoint
from maskflownet.engine.contract import Processes
from maskflownet.errors import UserError
from maskflownet.settings.cli import readers_of
from maskflownet.settings.configs import DataConfig, NetworkConfig, Optimizer
from maskflownet.settings.datasets import Roots, parse_roots
from maskflownet.settings.folders import LOGS, WEIGHTS
from maskflownet.training.snapshots import Snapshots, reserve_run

DEBUG_STEPS = 4


@dataclass(frozen=True)
class Options:
    """How to train, beside the two configs."""

    seed: int | None = None  # None = the resumed checkpoint's, else 0
    steps: int | None = None  # end after so many steps of the run
    clear_steps: bool = False
    debug: bool = False
    shard: int = 1
    readers: int = 0  # processes that read the data of a machine ahead
    skip_damaged: bool = False
    scale: float = 1.0  # factor of all step numbers, for rehearsals
    roots: Roots = field(default_factory=lambda: Roots({}))
    weights: Path = WEIGHTS
    logs: Path = LOGS
    run: str | None = None  # id of a new run, None = a fresh one

    @classmethod
    def of_arguments(cls, args, **others) -> "Options":
        """The options of a program's arguments as `maskflownet.settings.cli` adds them."""
        same = {name: getattr(args, name) for name in ("seed", "debug", "shard", "skip_damaged", "scale")}
        folders = {name: args.output_root / name for name in ("weights", "logs")}
        return cls(**same, **folders, readers=readers_of(args), roots=parse_roots(args.data_root), **others)


def scaled(steps: int, scale: float) -> int:
    return max(1, round(steps * scale))


def rate_at(optimizer: Optimizer, step: int, scale: float = 1.0) -> float:
    """Learning rate of the step that follows `step` steps; a linear schedule begins near 0."""
    ends = [scaled(last, scale) for last, _ in optimizer.learning_rate]
    rates = [rate for _, rate in optimizer.learning_rate]
    if optimizer.schedule == "linear":
        return float(np.interp(step + 1, [0, *ends], [0.0, *rates]))
    return rates[min(bisect_right(ends, step), len(rates) - 1)]


def end_of(config: NetworkConfig, options: Options) -> int:
    end = scaled(config.optimizer.learning_rate[-1][0], options.scale)
    if options.debug or options.steps:
        end = min(end, options.steps or DEBUG_STEPS)
    return end


@dataclass(frozen=True)
class Start:
    """Where a run begins."""

    run: str
    step: int
    seed: int
    parent: str | None  # stem of the checkpoint that the run started from
    content: dict  # all settings beside the seed that decide what a step does


def start_of(
    checkpoint: Checkpoint | None, config: NetworkConfig, data: DataConfig, options: Options, processes: Processes
) -> Start:
    """Decide between a new run and going on with one.

    UserError: The checkpoint is of another network, of other settings, which are named, or not the run's last one.
    """
    # "workers": machines, each with a batch of its own.
    chosen = {"shard": options.shard, "debug": options.debug, "scale": options.scale, "workers": processes.machines}
    content = {"network": config.content, "dataset": data.content, "options": chosen}
    if checkpoint is None or options.clear_steps:
        parent = checkpoint.path.stem if checkpoint else None
        # Only the first process writes; the others' advice to the user has a placeholder.
        run = options.run or (reserve_run(options.weights, options.logs) if processes.first else "RUN")
        return Start(run, 0, options.seed or 0, parent, content)
    record, path, network = checkpoint.record, checkpoint.path, config.network.class_
    new_run = "--clear_steps starts a new run from it"
    if record.network != network:
        raise UserError(f"{path} is of {record.network}, not {network}: give --clear_steps to start a new run from it")
    if options.seed not in {None, record.seed}:
        raise UserError(f"{path} was trained with seed {record.seed}: a resumed run keeps its seed")
    if not record.found or not record.step:
        raise UserError(f"{path} has no record of a run to go on with: {new_run}")
    for part, now in content.items():
        keys = _differing(record.config.get(part), now)
        if keys:
            raise UserError(
                f"{path} was trained with other values of {', '.join(keys)} ({part}): give those, or {new_run}"
            )
    later = [step for step in Snapshots(options.weights, record.run).steps() if step > record.step]
    if later:
        raise UserError(
            f"run {record.run} goes on to step {later[-1]}: -c {record.run} resumes it there; from "
            f"step {record.step} {new_run}"
        )
    return Start(record.run, record.step, record.seed or 0, record.parent, content)


def _differing(before, now, name: str = "") -> list[str]:
    """Dotted keys whose values differ."""
    if isinstance(now, dict) and (isinstance(before, dict) or not name):
        before = before if isinstance(before, dict) else {}
        inner = [_differing(before.get(key), now.get(key), f"{name}.{key}".lstrip(".")) for key in {**before, **now}]
        return sum(inner, [])
    return [] if before == now else [name]
