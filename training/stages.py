"""Several training stages in one go, each from the last checkpoint of the one before.

What has been reached is kept in a state file, so that the same command goes on after a kill at any
point: a stage's run id is noted before it starts, and its checkpoints say how far it came.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from maskflownet.checkpoints.checkpoint import new_run_id, read_checkpoint
from maskflownet.engine.contract import refuse_torchrun
from maskflownet.errors import UserError
from maskflownet.reader.files import atomic_path
from maskflownet.settings.configs import ENGINES, Stage, load_network_config, load_schedule
from maskflownet.settings.datasets import load_data_config
from maskflownet.settings.schema import read_yaml, yaml_text
from maskflownet.training.launch import train_on
from maskflownet.training.plan import Options, end_of
from maskflownet.training.snapshots import Snapshots


def run_stages(
    name,
    options: Options,
    gpus: str = "",
    checkpoint: str | None = None,
    fresh: bool = False,
    engine: str = ENGINES[0],
    precision: str | None = None,
    begin: int = 1,
) -> list[Path]:
    """Run a schedule from where it was left.

    Parameters
    ----------
    name : str
        Schedule in `config_folder/` or path.
    options : Options
        For all stages; `run`, `steps` and `clear_steps` are set here.
    gpus : str
        Comma-separated device ids; the CPU without any.
    checkpoint : str, optional
        What the first stage that is run starts from; without it from scratch.
    fresh : bool
        Forget what an earlier call reached and begin again.
    engine, precision
        See `maskflownet.engine.load.make_engine`.
    begin : int
        The first stage that is run, from 1; `checkpoint` stands for all before it.

    Returns
    -------
    list of Path
        The last checkpoint of every stage that is run.

    Raises
    ------
    UserError
        The schedule, an option or the checkpoint does not fit, or a stage was interrupted.
    """
    refuse_torchrun("a schedule of stages")
    path, stages = load_schedule(name)
    for stage in stages:  # before days of training
        load_data_config(stage.dataset)
    if begin > len(stages):
        raise UserError(f"{path} has {len(stages)} stages: there is no stage {begin} to begin with")
    if begin > 1 and checkpoint is None:
        raise UserError(f"--begin {begin} needs -c: a checkpoint that stands for the stages before")
    options = replace(options, seed=options.seed or 0)
    state_file = options.logs / f"{path.stem}.stages.yaml"
    state = {} if fresh or not state_file.exists() else read_yaml(state_file)
    wanted = {
        "scale": options.scale,
        "seed": options.seed,
        "debug": options.debug,
        "shard": options.shard,
        "checkpoint": checkpoint,
        "stages": [[stage.network, stage.dataset] for stage in stages],
        **({"begin": begin} if begin > 1 else {}),
    }
    if state and {key: value for key, value in state.items() if key != "runs"} != wanted:
        raise UserError(
            f"{state_file} belongs to a call with other stages, options or checkpoint: "
            "repeat that call, or begin again with --fresh"
        )
    state = {**wanted, "runs": state.get("runs", [])}
    finished: list = [checkpoint] * (begin - 1)
    for number, stage in enumerate(stages[begin - 1 :]):
        if number == len(state["runs"]):
            state["runs"].append(_free_run(options))
            _write(state_file, state)
        run = state["runs"][number]
        parents = finished or [checkpoint]
        finished.append(_run_stage(stage, run, parents, options, (gpus, engine, precision)))
        print(f"stage {begin + number} of {len(stages)} has ended: {finished[-1]}", flush=True)
    return finished[begin - 1 :]


def _free_run(options: Options) -> str:
    return new_run_id(lambda run: any(options.weights.glob(f"{run}_*")))


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(yaml_text(content), encoding="utf-8")


def _run_stage(stage: Stage, run: str, parents: list, options: Options, executor: tuple) -> Path:
    """Start, go on with, or skip a stage; its last checkpoint."""
    config, data = load_network_config(stage.network), load_data_config(stage.dataset)
    snapshots = Snapshots(options.weights, run)
    end = end_of(config, options)
    reached = snapshots.steps()
    if reached and reached[-1] >= end:
        return snapshots.path(reached[-1])
    if reached:
        checkpoint, clear = read_checkpoint(snapshots.path(reached[-1])), False
    else:
        parent = parents[-1]
        checkpoint = None if parent is None else read_checkpoint(parent, options.weights)
        clear = True
    options = replace(options, run=run, clear_steps=clear)
    train_on(config, data, checkpoint, options, *executor)
    last = snapshots.path(end)
    if not last.exists():
        raise UserError(f"stage {run} was interrupted; the same command goes on with it")
    return last
