"""The training of one run: batches in, checkpoints and a log out, from any step on."""

import io
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from maskflownet.checkpoints.checkpoint import Checkpoint, Record
from maskflownet.engine.contract import Engine, Losses, NotFinite, PeerLost, TrainingSettings
from maskflownet.engine.load import load_into
from maskflownet.errors import UserError
from maskflownet.inference.metrics import log_line
from maskflownet.inference.validation import ValidationOptions, validate
from maskflownet.processes import Interruption
from maskflownet.reader.files import if_possible
from maskflownet.reader.loader import Order, TrainLoader
from maskflownet.report.pictures import SamplePictures, choose
from maskflownet.settings.configs import DataConfig, NetworkConfig
from maskflownet.settings.datasets import ValidationSets, endless_scenes, training_parts, validation_sets
from maskflownet.training.plan import Options, end_of, rate_at, scaled, start_of
from maskflownet.training.snapshots import MEAN_EPE, Snapshots, read_state
from PIL import Image
from tqdm import tqdm

EVERY_STEP_UNTIL, THEN_EVERY = 20, 50  # steps with a line in the log: the first 20, then every 50th


def train(
    engine: Engine, config: NetworkConfig, data: DataConfig, checkpoint: Checkpoint | None, options: Options
) -> Path | None:
    """Train until the schedule ends; the path of the last checkpoint, None in all processes but the first.

    The engine has fresh parameters. The checkpoint is one to go on with, or with `options.clear_steps` to start a new
    run from; one of MaskFlownet_S is taken as the head of a MaskFlownet.

    UserError: Something does not fit, a file cannot be read, or the loss is not finite. Before this and any other
    error, what was reached is saved, unless the loss is not finite.
    KeyboardInterrupt: Ctrl-C, or a signal like it, in any of the processes: all is saved, and the message says how to
    go on. A second Ctrl-C ends at once.
    """
    with ExitStack() as stack:
        run = _Run(engine, config, data, checkpoint, options, stack)
        step, end, processes, log = run.start.step, run.end, engine.processes, run.log
        batches = stack.enter_context(closing(run.loader.batches(step)))
        ctrl_c = stack.enter_context(Interruption())
        try:
            while step < end:
                batch = next(batches)
                if processes.any(ctrl_c.pressed) and step > run.start.step:
                    break
                rate = rate_at(config.optimizer, step, options.scale)
                read = run.training.train_batch(batch, step, rate)
                step += 1
                log.step(step, read, rate, run.loader.skipped)
                if run.is_due(step):
                    log.read_losses()  # no checkpoint after a loss that is not finite
                    run.validate_and_save(step)
        except PeerLost as error:
            run.save_rest(log.last_done(step))
            raise PeerLost(run.advice()) from error
        except NotFinite:
            raise
        except Exception as error:
            if isinstance(error, UserError) and step < end:  # of the data, mostly; the others are told to stop
                processes.any(True)
            log.read_losses()
            run.save_rest(step)
            log.line(f"ended at step {step}: {run.advice()}")
            raise
        if step < end:
            log.read_losses()
            run.save_rest(step)
            log.line(f"interrupted at step {step}: {run.advice()}")
            raise KeyboardInterrupt(f"interrupted at step {step}: {run.advice()}")
    return run.saved


def renders_scenes(engine: Engine) -> bool:
    """Whether the training's device makes synthetic scenes faster than processes on the host."""
    return engine.name == "torch" and engine.torch_devices[0].type == "cuda"


class _Run:
    """What a run consists of, and what happens between its steps. The stack closes its lock and its log."""

    def __init__(
        self, engine: Engine, config: NetworkConfig, data: DataConfig, checkpoint, options: Options, stack: ExitStack
    ):
        self.engine, self.config, self.data, self.options = engine, config, data, options
        processes, network = engine.processes, config.network.class_
        devices = engine.devices * processes.local_size
        if data.batch_size % devices:
            raise UserError(f"{devices} devices cannot share a batch of {data.batch_size} samples evenly")
        self.start = start = start_of(checkpoint, config, data, options, processes)
        self.pictures = options.logs / f"{start.run}.samples"
        self.snapshots = Snapshots(options.weights, start.run, self.pictures)
        if processes.first:
            stack.enter_context(closing(self.snapshots.lock()))
        self.end = end_of(config, options)
        if start.step >= self.end:
            raise UserError(f"run {start.run} has ended: it is at step {start.step} of {self.end}")
        state = read_state(checkpoint.path) if start.step else None
        if checkpoint is not None:
            load_into(engine, checkpoint, as_head=True)
        shapes = data.orig_shape, data.target_shape
        settings = TrainingSettings(config.optimizer, config.network.mw, *shapes, data.augmentation, start.seed)
        self.training = engine.training(settings)
        if state is not None:
            self.training.load_state(state, start.step)
        self.loader = self._loader()
        self.validation_steps = scaled(data.validation_steps, options.scale)
        self.checkpoint_steps = scaled(data.checkpoint_steps, options.scale)
        self.saved: Path | None = None  # in this call
        self.saved_step = start.step
        self.validation = ValidationSets({}, {}, {})
        if processes.first and data.validation:
            self.validation = validation_sets(data, options.roots, network, options.debug)
        if processes.first:
            print(f"engine: {engine}", file=sys.stderr)
        self.log = RunLog(options.logs, start.run, start.step, self.end, quiet=not processes.first)
        stack.enter_context(closing(self.log))
        verb = "goes on" if start.step else f"starts from {start.parent}" if start.parent else "starts"
        self.log.line(f"run {start.run} {verb} at step {start.step} of {self.end}")
        before = checkpoint.record.engine if start.step else None
        if before not in {None, engine.name}:
            self.log.line(f"so far trained with {before}, which rounds differently: --engine {before} goes on with it")
        for name, why in self.validation.skipped.items():
            self.log.line(f"validation skips {name}: {why}")
        if network == "MaskFlownet" and not (start.step or start.parent):
            self.log.line("warning: without -c the frozen head is untrained, fit for --debug alone")

    def _loader(self):
        """What yields the batches: where the config trains on scenes alone, a GPU of PyTorch makes them itself."""
        data, options, processes = self.data, self.options, self.engine.processes
        machine, process = divmod(processes.rank, processes.local_size)
        places = (machine, processes.machines), (process, processes.local_size)
        order = Order(self.start.seed, data.echo, *places)
        whole = options.shard == 1 and not options.debug
        scenes = endless_scenes(data, options.roots) if whole and renders_scenes(self.engine) else None
        if scenes is not None:
            from maskflownet.scenes.render import SceneBatches  # noqa: PLC0415 - PyTorch

            dataset, first = scenes
            return SceneBatches(dataset, data.batch_size, self.engine.torch_devices[0], order, first)
        return TrainLoader(
            training_parts(data, options.roots, options.shard, options.debug),
            data.orig_shape,
            data.resize,
            order,
            -(-options.readers // processes.local_size),  # rounded up
            options.skip_damaged,
        )

    def is_due(self, step: int) -> bool:
        """Whether something is validated or saved after a step, in any of the processes."""
        return step == self.end or step % self.validation_steps == 0 or step % self.checkpoint_steps == 0

    def validate_and_save(self, step: int) -> None:
        """Validate where it is due; save where that is due, or the result is the best one."""
        metrics = {}
        if self.validation.sets and (step % self.validation_steps == 0 or step == self.end):
            with suppress(KeyboardInterrupt):
                metrics = self._validate(step)
        best = self.snapshots.best() if metrics else None
        is_best = metrics and (best is None or metrics[MEAN_EPE] < best[1])
        if step == self.end or is_best or step % self.checkpoint_steps == 0:
            self._save(step, metrics)

    def save_rest(self, step: int) -> None:
        if step > self.saved_step:
            self._save(step, {})

    def advice(self) -> str:
        """How the run can go on."""
        steps = self.snapshots.steps()
        return f"-c {self.start.run} goes on from step {steps[-1]}" if steps else "nothing was saved"

    def _validate(self, step: int) -> dict[str, float]:
        found = self.validation._replace(skipped={})  # the log's first lines name them
        chosen = choose(found.sets, self.data.validation_samples)
        watcher = SamplePictures(self.pictures, step, chosen, self.log.picture) if chosen else None
        totals = validate(self.engine, found, ValidationOptions(workers=self.options.readers), watcher).totals
        self.log.line(log_line(step, totals))
        self.log.scalars({f"{name}/epe": total["epe"] for name, total in totals.items()}, step)
        errors = {name: float(totals[name]["epe"]) for name in found.sets}
        return {**errors, MEAN_EPE: sum(errors.values()) / len(errors)}

    def _save(self, step: int, metrics: dict[str, float]) -> None:
        if not self.engine.processes.first:
            self.saved_step = step
            return
        base, network = self.engine.record, self.config.network
        record = replace(
            Record(network.class_, base.pyramid, base.colour, network.flow_multiplier),
            run=self.start.run,
            step=step,
            parent=self.start.parent,
            seed=self.start.seed,
            engine=self.engine.name,
            precision=self.engine.precision,
            time=time.strftime("%Y-%m-%d %H:%M:%S"),
            config=self.start.content,
            data=dict(self.data.dataset),
            metrics=metrics,
        )
        self.saved = self.snapshots.save(step, self.engine.parameters(), self.training.state(), record)
        self.saved_step = step


class RunLog:
    """Writes what happens in a run to `folder/RUN.log` and `folder/RUN.tensorboard`; nothing where it is `quiet`.

    `start` and `end` are the steps already done and the last one, for the progress bar.
    """

    def __init__(self, folder, run: str, start: int, end: int, quiet: bool = False):
        self.path = Path(folder) / f"{run}.log"
        self._event_folder = self.path.with_suffix(".tensorboard")
        self.quiet = quiet
        self._started = time.perf_counter()
        self._unread: list[tuple[int, Callable[[], Losses]]] = []
        self._means: list[Losses] = []  # of the steps since the last line
        self._skipped = 0  # samples that were named
        self._events = None
        # disable=None: no bar where stderr is no terminal.
        self._bar = tqdm(total=end, initial=start, unit="step", disable=True if quiet else None, smoothing=0.05)
        if quiet:
            return
        with if_possible(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        from tensorboardX.event_file_writer import EventsWriter  # noqa: PLC0415 - slow, for the first process only

        with if_possible(self._event_folder):
            self._event_folder.mkdir(exist_ok=True)
            self._events = EventsWriter(str(self._event_folder / "events"))

    def line(self, text: str) -> None:
        """Append `[time] text` to the log, and print it."""
        if self.quiet:
            return
        stamped = f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}"
        with if_possible(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(stamped + "\n")
        with if_possible("standard output"):
            tqdm.write(stamped)

    def step(self, step: int, read: Callable[[], Losses], rate: float, skipped: list[str]) -> None:
        """Note a step, and the damaged samples skipped so far; a line holds the means since the line before."""
        with if_possible("the progress bar"):
            self._bar.update()
        self._unread.append((step, read))
        for sentence in skipped[self._skipped :]:
            self.line(f"skipped a damaged sample: {sentence}")
        self._skipped = len(skipped)
        if step > EVERY_STEP_UNTIL and step % THEN_EVERY:
            return
        self.read_losses()
        loss, epe = np.mean(self._means, axis=0)
        self._means = []
        self.scalars({"loss": loss, "epe": epe, "learning_rate": rate}, step)
        seconds = time.perf_counter() - self._started
        self.line(f"steps={step}, loss={loss:.6f}, epe={epe:.4f}, lr={rate:.3g}, total_time={seconds:.1f}")

    def read_losses(self) -> None:
        """Wait for the steps noted so far; NotFinite if one of their losses is not finite."""
        while self._unread:
            self._means.append(self._unread[0][1]())
            del self._unread[0]

    def last_done(self, step: int) -> int:
        """The last of `step` steps that is done, once another process has ended."""
        try:
            self.read_losses()
        except PeerLost:
            return self._unread[0][0] - 1
        return step

    def scalars(self, values: dict[str, float], step: int) -> None:
        self._event(step, *({"tag": name, "simple_value": value} for name, value in values.items()))

    def picture(self, name: str, jpeg: bytes, step: int) -> None:
        """Record a JPEG for TensorBoard, as it is: tensorboardX's `add_image` would make a PNG, far larger."""
        width, height = Image.open(io.BytesIO(jpeg)).size
        image = {"encoded_image_string": jpeg, "height": height, "width": width, "colorspace": 3}
        self._event(step, {"tag": name, "image": image})

    def _event(self, step: int, *values: dict) -> None:
        if self._events is None:
            return
        from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415 - as above

        events, self._events = self._events, None  # after half an event the rest of the file could not be read
        with if_possible(self._event_folder):
            events.write_event(Event(wall_time=time.time(), step=step, summary={"value": values}))
            events.flush()
            self._events = events

    def close(self) -> None:
        with if_possible("the progress bar"):
            self._bar.close()
        if self._events is not None:
            with if_possible(self._event_folder):
                self._events.close()
