"""The training of one run: batches in, checkpoints and a log out, from any step on."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import replace
from pathlib import Path

from engine.checkpoint import Checkpoint
from engine.config import NetworkConfig
from engine.data_config import DataConfig
from engine.datasets import training_parts, validation_sets
from engine.errors import UserError
from engine.interface import Engine, Training, TrainingSettings
from engine.loading import Workers
from engine.records import Record
from engine.results import log_line
from engine.run_log import RunLog
from engine.run_plan import (
    Options,
    check_resumable,
    end_of,
    rate_at,
    scaled,
    settings_of,
    start_of,
)
from engine.snapshots import MEAN_EPE, Snapshots, read_state
from engine.validation import validate
from reader.loader import TrainLoader


def train(
    engine: Engine,
    config: NetworkConfig,
    data: DataConfig,
    checkpoint: Checkpoint | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
    workers: Workers = Workers(),  # noqa: B008 - frozen
) -> Path | None:
    """Train until the schedule ends; the path of the last checkpoint.

    Ctrl-C saves and ends; a second one ends at once. Nothing is written but by the first worker.

    Parameters
    ----------
    engine : Engine
        With fresh parameters.
    config : NetworkConfig
    data : DataConfig
    checkpoint : Checkpoint, optional
        To go on with, or with `options.clear_steps` to start a new run from. A MaskFlownet_S
        checkpoint is taken as the head of a MaskFlownet.
    options : Options
    workers : Workers

    Raises
    ------
    UserError
        Something does not fit, or the loss is not finite; what was saved before stays.
    """
    network = config.network.class_
    options.weights.mkdir(parents=True, exist_ok=True)
    if data.batch_size % engine.devices:
        raise UserError(
            f"{engine.devices} devices cannot share a batch of {data.batch_size} samples evenly"
        )
    content = settings_of(config, data, options, workers.world)
    start = start_of(checkpoint, network, options)
    state = None
    if checkpoint is not None:
        if not options.clear_steps:
            check_resumable(checkpoint, content, options)
            state = read_state(checkpoint.path)
        engine.load_for_training(checkpoint)
    settings = TrainingSettings(
        optimizer=config.optimizer,
        loss_weights=config.network.mw,
        original=data.orig_shape,
        target=data.target_shape,
        augmentation=data.augmentation,
        seed=start.seed,
        rank=workers.rank,
        world=workers.world,
    )
    training = engine.training(settings)
    if state is not None:
        training.load_state(state, start.step)
    end = end_of(config, options)
    loader = TrainLoader(
        training_parts(data, options.roots, options.shard, options.debug),
        data.orig_shape,
        data.resize,
        seed=start.seed,
        workers=options.workers,
        skip_damaged=options.skip_damaged,
        rank=workers.rank,
        world=workers.world,
    )
    writes = workers.rank == 0
    sets = None
    if writes and data.validation:
        sets = validation_sets(data, options.roots, network, options.debug)
    log = RunLog(options.logs, start.run, start.step, end, quiet=not writes)
    try:
        loop = _Run(engine, training, config, data, options, start, log, sets, content, writes)
        return loop(loader, end)
    finally:
        loader.close()
        log.close()


class _Run:
    """The loop of a run and what it does between steps."""

    def __init__(
        self, engine, training: Training, config, data, options, start, log, sets, content, writes
    ):
        self.engine, self.training = engine, training
        self.config, self.data, self.options = config, data, options
        self.start, self.log, self.sets, self.content = start, log, sets, content
        self.writes = writes
        self.snapshots = Snapshots(options.weights, start.run)
        self.validation_steps = scaled(data.validation_steps, options.scale)
        self.checkpoint_steps = scaled(data.checkpoint_steps, options.scale)

    def __call__(self, loader: TrainLoader, end: int) -> Path | None:
        step, saved, noted = self.start.step, None, 0
        schedule = self.config.optimizer.learning_rate
        self._announce(step, end)
        if self.config.network.class_ == "MaskFlownet" and not (step or self.start.parent):
            self.log.line("warning: without -c the frozen head is untrained, fit for --debug alone")
        if step >= end:
            raise UserError(f"run {self.start.run} has ended: it is at step {step} of {end}")
        if self.writes:
            self.snapshots.sweep()
        with contextlib.closing(loader.batches(step)) as batches, _interruptible() as interrupted:
            for batch in batches:
                rate = rate_at(schedule, step, self.options.scale)
                result = self.training.step(batch, step, rate)
                step += 1
                for sentence in loader.skipped[noted:]:
                    self.log.line(f"skipped a damaged sample: {sentence}")
                noted = len(loader.skipped)
                self.log.step(step, result.loss, result.epe, rate)
                ending = step == end or interrupted()
                metrics = {}
                if self.sets and (step % self.validation_steps == 0 or step == end):
                    metrics = self._validate(step)
                best = self.snapshots.best() if metrics else None
                is_best = metrics and (best is None or metrics[MEAN_EPE] < best[1])
                if ending or is_best or step % self.checkpoint_steps == 0:
                    saved = self._save(step, metrics)
                if ending:
                    break
        if step < end:
            self.log.line(f"interrupted at step {step}; -c {self.start.run} goes on from there")
        return saved

    def _announce(self, step: int, end: int) -> None:
        verb = "goes on" if step else "starts"
        parent = f" from {self.start.parent}" if self.start.parent and not step else ""
        self.log.line(f"run {self.start.run} {verb}{parent} at step {step} of {end}")
        if self.sets:
            for name, why in self.sets.skipped.items():
                self.log.line(f"validation skips {name}: {why}")
            if not self.sets.sets:
                self.sets = None

    def _validate(self, step: int) -> dict:
        found = self.sets
        totals = validate(
            self.engine,
            found.sets,
            batch=1,
            workers=self.options.workers,
            unions={k: v for k, v in found.unions.items() if set(v) <= set(found.sets)},
        )
        self.log.line(log_line(step, totals))
        self.log.scalars({f"{name}/epe": total["epe"] for name, total in totals.items()}, step)
        errors = {name: float(totals[name]["epe"]) for name in found.sets}
        return {**errors, MEAN_EPE: sum(errors.values()) / len(errors)}

    def _save(self, step: int, metrics: dict) -> Path | None:
        if not self.writes:
            return None
        base, settings = self.engine.record, self.config.network
        record = replace(
            Record(settings.class_, base.pyramid, base.colour, settings.flow_multiplier),
            run=self.start.run,
            step=step,
            parent=self.start.parent,
            seed=self.start.seed,
            engine=self.engine.name,
            precision="float32",
            time=time.strftime("%Y-%m-%d %H:%M:%S"),
            config=self.content,
            data=dict(self.data.dataset),
            metrics=metrics,
        )
        return self.snapshots.save(step, self.engine.parameters(), self.training.state(), record)


@contextlib.contextmanager
def _interruptible():
    """Turns the first Ctrl-C into a flag, so that a step is completed and saved."""
    flags = []

    def note(number, frame):
        signal.signal(signal.SIGINT, before)
        flags.append(number)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # only the main thread may; elsewhere Ctrl-C stays what it is
        yield lambda: False
        return
    try:
        yield lambda: bool(flags)
    finally:
        signal.signal(signal.SIGINT, before)
