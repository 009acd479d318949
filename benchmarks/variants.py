"""The same training with and without something: a run on one device for each variant, side by side.

    python -m benchmarks.variants CONFIG DATASET_CFG --variant nothing
        --variant synthetic.scenes.dart_share=0 --variant optimizer.q=null -g 0,1,2
        -- -c CHECKPOINT --clear_steps --engine torch --data_root textures=TEXTURES

A variant is the two configs with some of their values changed (`nothing` leaves them as they are).
All runs have what follows `--`, so the same start, number of steps and seed. Their configs are
written to a new folder in `variants/` of `--output_root`. What comes out is measured by `python -m
benchmarks.scene_kinds CONFIG -c RUN -c RUN`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

import yaml

from engine.cli import Parser, add_output_root, run
from engine.config import find_config, load_network_config
from engine.data_config import load_data_config
from engine.errors import UserError
from engine.folders import ROOT
from engine.schema import read_yaml
from reader.unique_yaml import load_yaml

UNCHANGED = "nothing"
OF_NETWORKS = ("network", "optimizer")  # the first parts of a network config's keys
# Options of main.py that would take a run out of the comparison.
OWN = ("--dataset_cfg", "-g", "--gpus", "--output_root")
NO_TRAINING = ("--valid", "--predict", "--export_onnx")


class Outcome(NamedTuple):
    """How a run ended; `run` is None where it never began, `flaw` is empty where all is well."""

    run: str | None
    flaw: str


def changed(network: dict, data: dict, variant: str) -> None:
    """Change the contents of both configs as `variant`, KEY=VALUE with spaces between, says.

    Raises
    ------
    UserError
        A part of it is not KEY=VALUE or comes twice, VALUE is no YAML, or KEY lies below a value.
    """
    parts = variant.split()
    if not parts:
        raise UserError(f"it is empty: {UNCHANGED} leaves the configs as they are")
    seen = set()
    for part in [] if parts == [UNCHANGED] else parts:
        key, equals, text = part.partition("=")
        if not key or not equals:
            raise UserError(f"{part!r} is not KEY=VALUE, without spaces in VALUE")
        if key in seen:
            raise UserError(f"{key} comes twice")
        seen.add(key)
        names = key.split(".")
        place = network if names[0] in OF_NETWORKS else data
        for name in names[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise UserError(f"there are no keys below {name}")
        try:
            place[names[-1]] = load_yaml(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(f"{text!r} is no YAML value, without spaces in it") from error


def new_folder(parent: Path) -> Path:
    """The first of `parent/1`, `parent/2` ... that is not there yet, made."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        try:
            (parent / str(number)).mkdir()
            return parent / str(number)
        except FileExistsError:
            number += 1


def write_configs(folder: Path, network: Path, dataset: Path, variants: list[str]) -> list[list]:
    """The beginnings of the runs' command lines: where each variant's configs were written.

    Raises
    ------
    UserError
        A variant is wrong.
    """
    lines = []
    for number, variant in enumerate(variants, 1):
        contents = [read_yaml(network), read_yaml(dataset)]
        written = [folder / f"{number}_network.yaml", folder / f"{number}_dataset.yaml"]
        try:
            changed(*contents, variant)
            synthetic = contents[1].get("synthetic")
            if isinstance(synthetic, dict) and isinstance(synthetic.get("textures"), str):
                textures = dataset.parent / Path(synthetic["textures"]).expanduser()
                synthetic["textures"] = str(textures.resolve())  # the written file lies elsewhere
            for path, content in zip(written, contents):
                path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
            load_network_config(written[0])
            load_data_config(written[1])
        except UserError as error:
            message = str(error)
            for path in written:
                message = message.replace(f"{path}: ", "")
            raise UserError(f"--variant {variant!r}: {message}") from error
        lines.append([str(written[0]), "--dataset_cfg", str(written[1])])
    return lines


def check_common(options: list[str]) -> None:
    """Refuse what must not follow `--`.

    Raises
    ------
    UserError
        An option would differ from run to run, or go on with another run.
    """
    names = {"-g" if option.startswith("-g") else option.split("=")[0] for option in options}
    for name in OWN:
        if name in names:
            raise UserError(f"{name} must not follow --, it is set here for each run")
    for name in NO_TRAINING:
        if name in names:
            raise UserError(f"{name} is no training")
    resumed = any(name == "--checkpoint" or name.startswith("-c") for name in names)
    if resumed and "--clear_steps" not in names:
        raise UserError("-c needs --clear_steps: each variant is a new run from the checkpoint")


def train(command: list[str], prefix: str, devices: Queue) -> Outcome:
    """Run main.py on the next free device, its lines behind `prefix`."""
    device = devices.get()
    found, flaw = None, ""
    try:
        command = [*command, *(["-g", device] * bool(device))]
        with subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            for text in process.stdout:
                print(f"{prefix}: {text}", end="", flush=True)
                match = re.search(r"\] run (\S+) starts", text)
                found = match[1] if match else found
                flaw = "interrupted" if "] interrupted at step" in text else flaw
        return Outcome(found, "failed" if process.returncode else flaw)
    finally:
        devices.put(device)


def outcome(future: Future) -> Outcome:
    try:
        return future.result()
    except CancelledError:
        return Outcome(None, "not begun")


def train_all(commands: list[list[str]], gpus: list[str]) -> list[Outcome]:
    """Run every command, as many at a time as there are devices; after Ctrl-C begin no more."""
    devices: Queue = Queue()
    for name in gpus:
        devices.put(name)
    with ThreadPoolExecutor(len(gpus)) as pool:
        futures = [
            pool.submit(train, command, str(number), devices)
            for number, command in enumerate(commands, 1)
        ]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # waits for those that run: they save and end
            return [outcome(future) for future in futures]


def main(arguments):
    parser = Parser(
        prog="variants.py",
        usage="%(prog)s CONFIG DATASET_CFG --variant CHANGES [...] -- OPTIONS_OF_MAIN",
        description=__doc__.splitlines()[0],
        epilog="What follows -- is for main.py: the same start, steps, seed and data for all runs.",
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", help="network config, such as MaskFlownet_S")
    add("dataset_cfg", metavar="DATASET_CFG", help="dataset config, such as synthetic")
    add(
        "--variant",
        action="append",
        required=True,
        metavar="CHANGES",
        help="KEY=VALUE of either config, several with spaces between (none in VALUE); "
        f"{UNCHANGED}: as they are; given once for each run",
    )
    add(
        "-g",
        "--gpus",
        default="",
        metavar="IDS",
        help="a run at a time on each, two on one that is named twice; default: one on the CPU",
    )
    add_output_root(parser)
    here = arguments.index("--") if "--" in arguments else len(arguments)
    try:
        args = parser.parse_args(arguments[:here])
    except UserError as error:
        hint = "" if here < len(arguments) else "; main.py's options follow --"
        raise UserError(f"{error}{hint}") from error
    common = arguments[here + 1 :]
    gpus = args.gpus.split(",")
    if args.gpus and not all(name.isdecimal() for name in gpus):
        raise UserError(f"-g: {args.gpus!r} is no list of GPU ids such as 0,1")
    check_common(common)
    network, dataset = find_config(args.config), find_config(args.dataset_cfg)
    load_network_config(network)
    load_data_config(dataset)

    folder = new_folder(args.output_root.resolve() / "variants")
    try:
        lines = write_configs(folder, network, dataset, args.variant)
    except UserError:
        shutil.rmtree(folder)
        raise
    common += ["--output_root", str(args.output_root.resolve())]
    start = [sys.executable, "-u", str(ROOT / "main.py")]  # -u: its lines come as they are written
    outcomes = train_all([[*start, *line, *common] for line in lines], gpus)
    for number, (found, variant) in enumerate(zip(outcomes, args.variant), 1):
        flaw = f" ({found.flaw})" if found.flaw else ""
        print(f"{number}: {found.run or 'no run'}{flaw}: {variant}")
    flawed = [str(number) for number, found in enumerate(outcomes, 1) if found.flaw]
    if flawed:
        raise UserError(f"not finished: {', '.join(flawed)}, see above")


if __name__ == "__main__":
    sys.exit(run(main))
