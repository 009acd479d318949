"""The same training with and without something: a run on one device for each variant, side by side.

    python -m benchmarks.variants CONFIG DATASET_CFG --variant nothing
        --variant synthetic.scenes.dart_share=0 --variant optimizer.q=null -g 0,1,2
        -- -c CHECKPOINT --clear_steps --engine torch --data_root textures=TEXTURES

A variant is the two configs with some of their values changed (`nothing` leaves them as they are).
All runs have what follows `--`, so the same start, number of steps and seed. Their configs are
written to `variants/` of `--output_root`. What comes out is measured by `python -m
benchmarks.scene_kinds CONFIG -c RUN -c RUN`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import yaml

from engine.cli import Parser, add_output_root, run
from engine.config import find_config, load_network_config
from engine.data_config import load_data_config
from engine.errors import UserError
from engine.folders import ROOT
from engine.schema import read_yaml

UNCHANGED = "nothing"
OF_NETWORKS = ("network", "optimizer")  # the first parts of a network config's keys


def changed(network: dict, data: dict, variant: str) -> None:
    """Change the contents of both configs as `variant`, KEY=VALUE with spaces between, says.

    Raises
    ------
    UserError
        A part of it is not KEY=VALUE, VALUE is no YAML, or KEY lies below a value.
    """
    for part in [] if variant == UNCHANGED else variant.split():
        key, equals, text = part.partition("=")
        if not key or not equals:
            raise UserError(f"--variant {variant!r}: {part!r} is not KEY=VALUE")
        names = key.split(".")
        place = network if names[0] in OF_NETWORKS else data
        for name in names[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise UserError(f"--variant {variant!r}: there are no keys below {name}")
        try:
            place[names[-1]] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--variant {variant!r}: {text!r} is no YAML value") from error


def write_configs(args) -> list[list[str]]:
    """The beginnings of the runs' command lines; all configs are checked before one starts."""
    folder = args.output_root / "variants"
    lines = []
    for number, variant in enumerate(args.variant, 1):
        paths = [find_config(name) for name in (args.config, args.dataset_cfg)]
        contents = [read_yaml(path) for path in paths]
        changed(*contents, variant)
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / f"{number}_{path.name}" for path in paths]
        for path, content in zip(written, contents):
            path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        load_network_config(written[0])
        load_data_config(written[1])
        lines.append([str(written[0]), "--dataset_cfg", str(written[1])])
    return lines


def train(line: list[str], prefix: str, devices: Queue) -> str | None:
    """Run main.py on the next free device; the run's id, None if it failed."""
    device = devices.get()
    try:
        command = [sys.executable, str(ROOT / "main.py"), *line, *(["-g", device] * bool(device))]
        found = None
        with subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            for text in process.stdout:
                print(f"{prefix}: {text}", end="", flush=True)
                match = re.search(r"\] run (\S+) starts", text)
                found = match[1] if match else found
        return None if process.returncode else found
    finally:
        devices.put(device)


def main(arguments):
    parser = Parser(
        prog="variants.py",
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
        help=f"KEY=VALUE of either config, several with spaces between; {UNCHANGED}: as they are; "
        "given once for each run",
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
    args = parser.parse_args(arguments[:here])
    rest = [*arguments[here + 1 :], "--output_root", str(args.output_root.resolve())]
    beginnings = write_configs(args)
    devices = Queue()
    names = args.gpus.split(",")
    for name in names:
        devices.put(name)
    with ThreadPoolExecutor(len(names)) as pool:
        futures = [
            pool.submit(train, [*line, *rest], str(number), devices)
            for number, line in enumerate(beginnings, 1)
        ]
        runs = [future.result() for future in futures]
    for number, (found, variant) in enumerate(zip(runs, args.variant), 1):
        print(f"{number}: {found or 'failed'}: {variant}")
    failed = [str(number) for number, found in enumerate(runs, 1) if found is None]
    if failed:
        raise UserError(f"failed: {', '.join(failed)}, see above")


if __name__ == "__main__":
    sys.exit(run(main))
