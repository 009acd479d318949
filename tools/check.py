"""Check data sets on disk: ``python -m maskflownet.tools.check NAME=DIR ... [--decode]``."""

import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from maskflownet.errors import UserError
from maskflownet.reader.dataset import FlowDataset, MissingFiles
from maskflownet.settings.cli import FAILED, Parser, count, run
from maskflownet.settings.datasets import SETS, parse_roots
from tqdm import tqdm


class Report(NamedTuple):
    """What was found in one part: its count in words and its faults, one sentence each."""

    name: str
    count: str
    problems: list[str]


def check(roots: Mapping[str, str | os.PathLike], decode: bool = False, workers: int = 1) -> Iterator[Report]:
    """Check data sets, {name: root}, against the counts of the published ones; yields a Report of each part.

    With `decode` every file is read by `workers` threads, otherwise only looked for. Parts that a user need not have,
    such as the test images, are absent where their folder is.
    """
    for name, root in roots.items():
        cls = SETS[name]
        try:
            expected = cls.expected(root)
            if not expected:
                raise UserError(f"{root} holds no part of {name}")
        except UserError as error:
            yield Report(name, "none", [str(error)])
            continue
        for (split, version), wanted in expected.items():
            splits = {split for split, _ in cls.counts}
            title = "/".join([name, *([str(version)] if version else []), *([split] if len(splits) > 1 else [])])
            try:
                dataset = cls(root, split, (version,))
            except MissingFiles as error:
                yield Report(title, "incomplete", [f"{path} is missing" for path in error.paths])
            except UserError as error:
                yield Report(title, "none", [str(error)])
            else:
                text, problems = _counted(dataset, wanted)
                yield Report(title, text, problems + (_undecodable(dataset, title, workers) if decode else []))


def _counted(dataset: FlowDataset, expected) -> tuple[str, list[str]]:
    text, count = f"{len(dataset)} pairs", dataset.count()
    if dataset.unit != "pairs":
        text += f" in {count} {dataset.unit}"
    if dataset.left_out:
        text += f", {dataset.left_out} labels at a sequence's end left out"
    least, most = expected if isinstance(expected, tuple) else (expected, expected)
    if expected is None or least <= count <= most:
        return text, []
    wanted = least if least == most else f"{least} to {most}"
    return text, [f"{dataset.root} has {count} {dataset.unit} where {wanted} are expected"]


def _undecodable(dataset: FlowDataset, title: str, workers: int) -> list[str]:
    def read(index: int) -> str | None:
        try:
            dataset.labelled(index)
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(workers) as pool:
        results = tqdm(pool.map(read, range(len(dataset))), title, len(dataset), unit="pair", disable=None)
        return [problem for problem in results if problem is not None]


def main(arguments: list[str]) -> int:
    names = [name for name, cls in SETS.items() if cls.counts and name == cls.root_name]
    parser = Parser(
        description="Check data sets: counts, missing files and, with --decode, damaged files. "
        "Exit code 0: all is well, 2: a fault was found."
    )
    add = parser.add_argument
    add("roots", nargs="*", metavar="NAME=DIR", help=f"a data set and its folder; NAME is one of {', '.join(names)}; "
        "default: those that the environment (MASKFLOWNET_NAME) or the file of --paths gives")  # fmt: skip
    add("--paths", metavar="FILE", help="YAML file of NAME: DIR lines (default: paths.yaml beside the programs)")
    add("--decode", action="store_true", help="read every file (takes long)")
    add("--workers", type=count, default=os.cpu_count() or 1, help="threads that decode (default: %(default)s)")
    options = parser.parse_args(arguments)
    roots = parse_roots(options.roots, options.paths)
    found = {name: roots.look_up(name) for name in names if name in roots.given or not roots.given}
    known = {name: root for name, root in found.items() if root is not None}
    if not known:
        raise UserError(f"no data set is named: give NAME=DIR, NAME one of {', '.join(names)}")
    result = 0
    for report in check(known, options.decode, options.workers):
        print(f"{report.name}: {report.count}, {'FAULTY' if report.problems else 'ok'}", flush=True)
        for problem in report.problems:
            result = FAILED
            print(f"    {problem}")
    return result


if __name__ == "__main__":
    sys.exit(run(main))
