"""Training as the programs ask for it: one run on the devices of `-g`, or the stages of a schedule."""

import os
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from maskflownet.checkpoints.checkpoint import Checkpoint, RunName, read_checkpoint
from maskflownet.engine.contract import refuse_torchrun, under_torchrun
from maskflownet.engine.load import choose_engine, import_torch, make_engine
from maskflownet.errors import UserError
from maskflownet.processes import end_together
from maskflownet.reader.files import sweep, write_bytes
from maskflownet.settings.configs import ENGINES, DataConfig, NetworkConfig, load_network_config, load_schedule
from maskflownet.settings.datasets import load_data_config
from maskflownet.settings.schema import Whole, checked, parse, read_yaml, yaml_text
from maskflownet.training.loop import train
from maskflownet.training.plan import Options, end_of
from maskflownet.training.snapshots import Lock, Snapshots, reserve_run


@dataclass(frozen=True)
class EngineChoice:
    """Which engine trains, on which devices; see `maskflownet.engine.load.make_engine`."""

    gpus: str = ""
    engine: str = ENGINES[0]
    precision: str | None = None


def train_on(
    choice: EngineChoice, config: NetworkConfig, data: DataConfig, checkpoint: Checkpoint | None, options: Options
) -> Path | None:
    """Make an engine and train, see `maskflownet.training.loop.train`.

    The torch engine takes one process per device: those of `torchrun`, or its own. MXNet has one process for all
    devices, and joins the parameter server of the `DMLC_*` variables.
    """
    choice = replace(choice, engine=choose_engine(choice.engine))
    say_goodbye = None  # says to the other machines that this one has ended in peace
    if choice.engine == "torch":
        import_torch()
        from maskflownet.engine.torch.devices import devices  # noqa: PLC0415
        from maskflownet.engine.torch.distributed import run_in_processes  # noqa: PLC0415

        distributed, found = under_torchrun(), devices(choice.gpus)
        if len(found) > 1 and not distributed:
            return Path(run_in_processes(found, train_on, (choice, config, data, checkpoint, options)))
    else:
        refuse_torchrun("--engine mxnet")
        role, *address = (os.environ.get(f"DMLC_{name}") for name in ("ROLE", "PS_ROOT_URI", "PS_ROOT_PORT"))
        distributed = role is not None
        if distributed:
            if not (address[0] and (address[1] or "").isdecimal()):
                raise UserError("DMLC_ROLE needs a DMLC_PS_ROOT_URI and a port as DMLC_PS_ROOT_PORT: docs/train.md")
            say_goodbye = end_together(address[0], int(address[1]) + 1, serve=role == "scheduler")
    engine = make_engine(config, choice.gpus, options.seed or 0, distributed, choice.engine, choice.precision)
    try:
        saved = train(engine, config, data, checkpoint, options)
        if say_goodbye is not None:
            say_goodbye()
        return saved
    finally:
        engine.processes.close()


@checked
class Reached:
    """What the state file of a schedule holds: the call, and the runs of the stages so far."""

    scale: float
    seed: int
    debug: bool
    shard: int
    checkpoint: str | None
    stages: tuple[tuple[str | dict, str | dict], ...]  # as the schedule names them, or says what they are
    begin: Whole = 1
    runs: tuple[RunName, ...] = ()


def run_stages(
    name: str, choice: EngineChoice, options: Options, checkpoint: str | None, begin: int, fresh: bool
) -> None:
    """Run a schedule from where it was left.

    What has been reached is kept in a state file, so that the same command goes on after a kill at any point: a
    stage's run id is noted before it starts, and its checkpoints say how far it came.

    The first stage that is run, `begin`, starts from a checkpoint, which stands for all before it, or from scratch. Of
    the options `run` and `clear_steps` are set here. `fresh`: forget what an earlier call reached and begin again.

    UserError: The schedule, an option or the checkpoint does not fit.
    KeyboardInterrupt: Ctrl-C: what was reached is saved.
    """
    refuse_torchrun("a schedule of stages")
    path, stages = load_schedule(name)
    if begin > len(stages):
        raise UserError(f"{path} has {len(stages)} stages: there is no stage {begin} to begin with")
    if begin > 1 and checkpoint is None:
        raise UserError(f"--begin {begin} needs -c: a checkpoint that stands for the stages before")
    for stage in stages:  # before days of training
        load_data_config(stage.dataset, path)
    options = replace(options, seed=options.seed or 0)
    state_file = options.logs / f"{path.stem}.stages.yaml"
    named = tuple((stage.network, stage.dataset) for stage in stages)
    wanted = Reached(options.scale, options.seed, options.debug, options.shard, checkpoint, named, begin)
    with closing(Lock(state_file.with_name(f".{state_file.name}.lock"), f"the schedule of {state_file}")):
        sweep(state_file.parent, state_file.stem)
        state = wanted if fresh or not state_file.exists() else parse(Reached, read_yaml(state_file), state_file)
        if replace(state, runs=()) != wanted:
            if any(Snapshots(options.weights, run).steps() for run in state.runs):
                raise UserError(
                    f"{state_file} belongs to a call with other stages, options or checkpoint: "
                    "repeat that call, or begin again with --fresh"
                )
            state = wanted  # the other call ended before it had saved anything
        _run_stages(path, stages, state, state_file, choice, options)


def _run_stages(path: Path, stages, state: Reached, state_file: Path, choice: EngineChoice, options: Options):
    last = state.checkpoint
    for number, stage in enumerate(stages[state.begin - 1 :]):
        if number == len(state.runs):
            state = replace(state, runs=(*state.runs, reserve_run(options.weights, options.logs)))
            write_bytes(state_file, yaml_text(asdict(state)).encode(), durable=True)
        snapshots = Snapshots(options.weights, state.runs[number])
        try:
            config, data = load_network_config(stage.network, path), load_data_config(stage.dataset, path)
            reached, end = max(snapshots.steps(), default=0), end_of(config, options)
            if reached < end:  # it starts or goes on
                source = snapshots.path(reached) if reached else last
                checkpoint = None if source is None else read_checkpoint(source, options.weights)
                chosen = replace(options, run=snapshots.run, clear_steps=not reached)
                train_on(choice, config, data, checkpoint, chosen)
        except KeyboardInterrupt as error:
            told = f" ({error})" if str(error) else ""
            why = f"stage {state.begin + number} was interrupted: the same command goes on with it{told}"
            raise KeyboardInterrupt(why) from None
        last = snapshots.path(max(reached, end))
        print(f"stage {state.begin + number} of {len(stages)} has ended: {last}", flush=True)
