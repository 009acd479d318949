"""The training of one run: batches in, checkpoints and a log out, from any step on."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

from maskflownet.checkpoints.checkpoint import Checkpoint
from maskflownet.checkpoints.records import Record
from maskflownet.engine.contract import Engine, PeerLost, Training, TrainingSettings
from maskflownet.engine.load import load_into
from maskflownet.errors import DataError, UserError
from maskflownet.inference.metrics import log_line
from maskflownet.inference.validation import ValidationOptions, validate
from maskflownet.reader.loader import BatchesAhead, TrainLoader
from maskflownet.report.pictures import SamplePictures, choose
from maskflownet.settings.configs import DataConfig, NetworkConfig
from maskflownet.settings.datasets import training_parts, validation_sets
from maskflownet.training.log import RunLog, is_due
from maskflownet.training.plan import Options, check_resumable, end_of, rate_at, scaled, settings_of, start_of
from maskflownet.training.snapshots import MEAN_EPE, Snapshots, read_state

ONE_PRESS = 1.0  # s within which a second Ctrl-C counts as the same


def train(
    engine: Engine,
    config: NetworkConfig,
    data: DataConfig,
    checkpoint: Checkpoint | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
) -> Path | None:
    """Train until the schedule ends; the path of the last checkpoint.

    Ctrl-C, in any of the engine's processes, saves and ends; a second one ends at once. Nothing is written
    but by the first one.

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

    Raises
    ------
    UserError
        Something does not fit, or the loss is not finite; what was saved before stays.
    """
    network, processes = config.network.class_, engine.processes
    options.weights.mkdir(parents=True, exist_ok=True)
    devices = engine.devices * processes.local_size
    if data.batch_size % devices:
        raise UserError(f"{devices} devices cannot share a batch of {data.batch_size} samples evenly")
    content = settings_of(config, data, options, processes.machines)
    start = start_of(checkpoint, network, options)
    state = None
    if checkpoint is not None:
        if not options.clear_steps:
            check_resumable(checkpoint, content, options)
            state = read_state(checkpoint.path)
        load_into(engine, checkpoint, as_head=True)
    settings = TrainingSettings(
        optimizer=config.optimizer,
        loss_weights=config.network.mw,
        original=data.orig_shape,
        target=data.target_shape,
        augmentation=data.augmentation,
        seed=start.seed,
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
        workers=-(-options.workers // processes.local_size),
        skip_damaged=options.skip_damaged,
        rank=processes.machine,
        world=processes.machines,
        echo=data.echo,
        share=(processes.local_rank, processes.local_size),
    )
    sets = None
    if processes.first and data.validation:
        sets = validation_sets(data, options.roots, network, options.debug)
    log = RunLog(options.logs, start.run, start.step, end, quiet=not processes.first)
    try:
        loop = _Run(engine, training, config, data, options, start, log, sets, content)
        return loop(loader, end)
    finally:
        loader.close()
        log.close()


class _Run:
    """The loop of a run and what it does between steps."""

    def __init__(self, engine, training: Training, config, data, options, start, log, sets, content):
        self.engine, self.training = engine, training
        self.config, self.data, self.options = config, data, options
        self.start, self.log, self.sets, self.content = start, log, sets, content
        self.processes = engine.processes
        self.step = start.step  # steps that are known to be done
        self.pending: deque = deque()  # rates and losses of those that were started since
        self.saved: tuple = (None, None)  # at which step in this call, and the path
        self._resume = f"-c {start.run}"
        self.snapshots = Snapshots(options.weights, start.run)
        self.validation_steps = scaled(data.validation_steps, options.scale)
        self.checkpoint_steps = scaled(data.checkpoint_steps, options.scale)

    def __call__(self, loader: TrainLoader, end: int) -> Path | None:
        self._announce(self.step, end)
        if self.config.network.class_ == "MaskFlownet" and not (self.step or self.start.parent):
            self.log.line("warning: without -c the frozen head is untrained, fit for --debug alone")
        if self.step >= end:
            raise UserError(f"run {self.start.run} has ended: it is at step {self.step} of {end}")
        if self.processes.first:
            self.snapshots.sweep()
        # A press of Ctrl-C counts until all is saved.
        with _interruptible() as interrupted:
            try:
                ahead = BatchesAhead(loader, self.step)
                with contextlib.closing(ahead) as batches:
                    self._train(batches, loader, end, interrupted)
            except PeerLost as error:
                raise PeerLost(self._rescue()) from error
            except DataError:  # also that a process which loads them died
                self._settle()
                if self._save_rest():
                    self.log.line(f"ended at step {self.step}, from which {self._resume} goes on")
                raise
            if self.step < end:
                self._save_rest()
                self.log.line(f"interrupted at step {self.step}; {self._resume} goes on from there")
        return self.saved[1]

    def _train(self, batches, loader: TrainLoader, end: int, interrupted) -> None:
        """Train until the end or an interruption; `step` and `saved` tell what was reached."""
        schedule, step, noted = self.config.optimizer.learning_rate, self.step, 0
        while step < end:
            batch, failure = None, None
            try:
                batch = next(batches)
            except DataError as error:
                failure = error
            stop = self.processes.any(interrupted() or failure is not None)
            if failure is not None:
                raise failure
            if stop and step > self.start.step:
                break
            rate = rate_at(schedule, step, self.options.scale)
            self.pending.append((rate, self.training.train_batch(batch, step, rate)))
            step += 1
            skipped = loader.skipped[noted:]
            noted += len(skipped)
            for sentence in skipped:
                self.log.line(f"skipped a damaged sample: {sentence}")
            validates = self.data.validation and (step % self.validation_steps == 0 or step == end)
            saves = step == end or step % self.checkpoint_steps == 0
            if is_due(step) or validates or saves:  # in all processes alike
                self._settle()
            metrics = self._validate(step) if validates and self.sets else {}
            best = self.snapshots.best() if metrics else None
            if saves or (metrics and (best is None or metrics[MEAN_EPE] < best[1])):
                self._save(metrics)
        self._settle()

    def _settle(self) -> None:
        """Wait until the steps that were started are done, and log them."""
        while self.pending:
            rate, losses = self.pending[0]
            loss, epe = losses.loss, losses.epe
            self.pending.popleft()
            self.step += 1
            self.log.step(self.step, loss, epe, rate)

    def _rescue(self) -> str:
        """Save what was reached before another process ended; how the run can go on."""
        with contextlib.suppress(PeerLost):
            self._settle()
        if not self.processes.first:
            return ""
        self._save_rest()
        self.log.line(f"ended at step {self.step}, because another process ended")
        if self.saved[0] is None:
            return "nothing was saved in this call"
        return f"{self._resume} goes on from step {self.saved[0]}"

    def _save_rest(self) -> bool:
        """Save the steps since the last checkpoint; whether there is one of this call."""
        if self.step not in {self.start.step, self.saved[0]}:
            self._save({})
        return self.saved[0] is not None

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
        found = self.sets._replace(skipped={})  # the log's first lines name them
        options = ValidationOptions(workers=self.options.workers)
        totals = validate(self.engine, found, options, self._samples(step)).totals
        self.log.line(log_line(step, totals))
        self.log.scalars({f"{name}/epe": total["epe"] for name, total in totals.items()}, step)
        errors = {name: float(totals[name]["epe"]) for name in found.sets}
        return {**errors, MEAN_EPE: sum(errors.values()) / len(errors)}

    def _samples(self, step: int) -> SamplePictures | None:
        """Takes the pictures of a validation, None where the config wants none."""
        chosen = choose(self.sets.sets, self.data.validation_samples)
        folder = self.options.logs / f"{self.start.run}.samples"
        return SamplePictures(folder, step, chosen, self.log.picture) if chosen else None

    def _save(self, metrics: dict) -> None:
        if not self.processes.first:
            self.saved = self.step, None
            return
        base, settings = self.engine.record, self.config.network
        record = replace(
            Record(settings.class_, base.pyramid, base.colour, settings.flow_multiplier),
            run=self.start.run,
            step=self.step,
            parent=self.start.parent,
            seed=self.start.seed,
            engine=self.engine.name,
            precision=self.engine.precision,
            time=time.strftime("%Y-%m-%d %H:%M:%S"),
            config=self.content,
            data=dict(self.data.dataset),
            metrics=metrics,
        )
        parameters, state = self.engine.parameters(), self.training.state()
        self.saved = self.step, self.snapshots.save(self.step, parameters, state, record)


@contextlib.contextmanager
def _interruptible():
    """Turns the first Ctrl-C into a flag, so that a step is completed and saved."""
    times = []

    def note(number, frame):
        # A launcher such as torchrun repeats the terminal's Ctrl-C at once.
        if times and time.monotonic() - times[0] > ONE_PRESS:
            signal.signal(signal.SIGINT, before)
            signal.raise_signal(signal.SIGINT)
        times.append(time.monotonic())

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # only the main thread may; elsewhere Ctrl-C stays what it is
        yield lambda: False
        return
    try:
        yield lambda: bool(times)
    finally:
        signal.signal(signal.SIGINT, before)
