"""What a run is: its options, where it begins and ends, and under which settings it may go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from maskflownet.checkpoints.checkpoint import Checkpoint, new_run_id
from maskflownet.errors import UserError
from maskflownet.settings.configs import DataConfig, NetworkConfig
from maskflownet.settings.datasets import Roots, parse_roots
from maskflownet.settings.folders import LOGS, WEIGHTS
from maskflownet.training.snapshots import Snapshots

DEBUG_STEPS = 4


@dataclass(frozen=True)
class Options:
    """How to train, beside the two configs."""

    seed: int | None = None  # None = the resumed checkpoint's, else 0
    steps: int | None = None  # end after so many steps of the run
    clear_steps: bool = False
    debug: bool = False
    shard: int = 1
    workers: int = 0
    skip_damaged: bool = False
    scale: float = 1.0  # factor of all step numbers, for rehearsals
    roots: Roots = field(default_factory=lambda: Roots({}))
    weights: Path = WEIGHTS
    logs: Path = LOGS
    run: str | None = None  # id of a new run, None = a fresh one

    @classmethod
    def of_arguments(cls, args, **others) -> Options:
        """The options of a program's arguments as `maskflownet.settings.cli` adds them."""
        return cls(
            seed=args.seed,
            debug=args.debug,
            shard=args.shard,
            workers=args.workers,
            skip_damaged=args.skip_damaged,
            scale=args.scale,
            roots=Roots(parse_roots(args.data_root)),
            weights=args.output_root / "weights",
            logs=args.output_root / "logs",
            **others,
        )


def scaled(steps: int, scale: float) -> int:
    return max(1, round(steps * scale))


def rate_at(schedule, step: int, scale: float = 1.0) -> float:
    """Learning rate of the step that follows `step` steps."""
    for last, rate in schedule:
        if step < scaled(last, scale):
            return rate
    return schedule[-1][1]


@dataclass(frozen=True)
class Start:
    """Where a run begins: its id, steps already done, seed and parent checkpoint."""

    run: str
    step: int
    seed: int
    parent: str | None


def end_of(config: NetworkConfig, options: Options) -> int:
    """The step at which a run ends."""
    end = scaled(config.optimizer.learning_rate[-1][0], options.scale)
    if options.debug or options.steps:
        end = min(end, options.steps or DEBUG_STEPS)
    return end


def settings_of(config: NetworkConfig, data: DataConfig, options: Options, world: int) -> dict:
    """Everything beside the seed that decides what a step of a run does."""
    return {
        "network": config.content,
        "dataset": data.content,
        "options": {"shard": options.shard, "debug": options.debug, "scale": options.scale, "workers": world},
    }


def check_resumable(checkpoint: Checkpoint, settings: dict, options: Options) -> None:
    """Refuse to go on with a run under other settings, or from the middle of it.

    Raises
    ------
    UserError
        Names what differs.
    """
    record, path = checkpoint.record, checkpoint.path
    new_run = "--clear_steps starts a new run from it"
    if not record.found or not record.step:
        raise UserError(f"{path} has no record of a run to go on with: {new_run}")
    for part, now in settings.items():
        before = record.config.get(part)
        if before != now:
            before = before if isinstance(before, dict) else {}
            keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
            raise UserError(
                f"{path} was trained with another {part} ({', '.join(keys)} differ): give the one it had, or {new_run}"
            )
    later = [s for s in Snapshots(options.weights, record.run).steps() if s > record.step]
    if later:
        raise UserError(
            f"run {record.run} goes on to step {later[-1]}: -c {record.run} resumes it there; from "
            f"step {record.step} {new_run}"
        )


def start_of(checkpoint: Checkpoint | None, network: str, options: Options) -> Start:
    """Decide between a new run and going on with one.

    Raises
    ------
    UserError
        The checkpoint is of the head alone, which cannot go on as a MaskFlownet.
    """
    if checkpoint is None or options.clear_steps:
        run = options.run or new_run_id(
            lambda run: any(options.weights.glob(f"{run}_*")) or (options.logs / f"{run}.log").exists()
        )
        parent = checkpoint.path.stem if checkpoint else None
        return Start(run, 0, options.seed or 0, parent)
    record = checkpoint.record
    if record.network != network:
        raise UserError(
            f"{checkpoint.path} is of {record.network}, not of {network}: give --clear_steps to start a new run from it"
        )
    if options.seed not in {None, record.seed}:
        raise UserError(f"{checkpoint.path} was trained with seed {record.seed}: a resumed run keeps its seed")
    return Start(record.run, record.step, record.seed or 0, record.parent)
