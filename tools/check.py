"""Check data sets on disk: ``python -m maskflownet.tools.check NAME=DIR ... [--decode]``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from maskflownet.errors import DataError
from maskflownet.reader.chairs import Chairs
from maskflownet.reader.dataset import FlowDataset, MissingFiles
from maskflownet.reader.hd1k import HD1K
from maskflownet.reader.kitti import Kitti, held_years
from maskflownet.reader.pairs import Pairs
from maskflownet.reader.sintel import PASSES, Sintel
from maskflownet.reader.things3d import Things3D
from maskflownet.scenes.synthetic import RECORD_FILE
from maskflownet.settings.datasets import NAMES, find_root, parse_roots
from tqdm import tqdm


class Part(NamedTuple):
    """A split of a data set: how to list it, and how many of ``unit`` the published set has."""

    name: str
    make: Callable[[], FlowDataset]
    least: int = 1
    most: int | None = None
    unit: str = "pairs"


class Report(NamedTuple):
    """What was found in one part: its count in words and its faults, one sentence each."""

    name: str
    count: str
    problems: list[str]


def check(
    roots: Mapping[str, str | os.PathLike], decode: bool = False, workers: int = 1, progress: bool = False
) -> list[Report]:
    """Check data sets against the counts of the published ones.

    Parameters
    ----------
    roots : mapping
        Root folder by data set name (`maskflownet.settings.datasets.NAMES`).
    decode : bool
        Whether to read every file instead of only looking for it.
    workers : int
        Threads that decode.
    progress : bool
        Whether to show a progress bar on stderr.

    Returns
    -------
    list of Report
        One per part of each data set. Parts that a user need not have, such as the test images, are
        absent where their folder is.

    Raises
    ------
    DataError
        A data set's name is unknown.
    """
    reports = []
    for name, root in roots.items():
        if name not in NAMES:
            raise DataError(f"{name!r} is no data set, only {', '.join(NAMES)} are")
        try:
            parts = list_parts(name, Path(root))
        except DataError as error:
            reports.append(Report(name, "none", [str(error)]))
            continue
        reports += [_check_part(part, decode, workers, progress) for part in parts]
    return reports


def list_parts(name: str, root: Path) -> list[Part]:
    """Return the parts of a data set that its root holds.

    Raises
    ------
    DataError
        The root does not hold the data set.
    """
    if name == "chairs":
        sizes = {"train": (22232, 22232), "val": (640, 640)}
        if (root / RECORD_FILE).is_file():  # a synthetic set, of any length
            sizes = {"all": (1, None)}
        return [Part(f"chairs/{split}", lambda s=split: Chairs(root, s), *counts) for split, counts in sizes.items()]
    if name == "things3d":
        return _things3d_parts(root)
    if name == "sintel":
        sizes = {"train": 816, "val": 225}
        if (root / "test").is_dir():
            sizes["test"] = 552
        return [
            Part(f"sintel/{p}/{s}", lambda p=p, s=s: Sintel(root, (p,), s), size, size)
            for p in PASSES
            for s, size in sizes.items()
        ]
    if name == "kitti":
        sizes = {(2012, "all"): 194, (2012, "test"): 195, (2015, "all"): 200, (2015, "test"): 200}
        return [
            Part(f"kitti/{year}/{split}", lambda y=year, s=split: Kitti(root, y, s), size, size)
            for (year, split), size in sizes.items()
            if year in held_years(root) and (split == "all" or _has_kitti_test(root, year))
        ]
    if name == "hd1k":
        return [
            Part("hd1k/train", lambda: HD1K(root, "train"), 35, 35, "sequences"),
            Part("hd1k/val", lambda: HD1K(root, "val"), 1, 1, "sequences"),
        ]
    return [Part("pairs", lambda: Pairs(root))]


def _things3d_parts(root: Path) -> list[Part]:
    """Expect about 39,000 pairs per direction of the subset, and whatever the full set lists."""
    subset = (root / "train").is_dir()
    folders = ("train/image_{}" if subset else "frames_{}pass").format
    sizes = (76000, 80000) if subset else (1, None)
    return [
        Part(f"things3d/{p}", lambda p=p: Things3D(root, (p,)), *sizes)
        for p in PASSES
        if p == "clean" or (root / folders(p)).is_dir()
    ]


def _has_kitti_test(root: Path, year: int) -> bool:
    return any((root / folder / "testing").is_dir() for folder in (str(year), "."))


def _check_part(part: Part, decode: bool, workers: int, progress: bool) -> Report:
    try:
        dataset = part.make()
    except MissingFiles as error:
        return Report(part.name, "incomplete", [f"{path} is missing" for path in error.paths])
    except DataError as error:
        return Report(part.name, "none", [str(error)])
    if part.unit == "sequences":
        count = len({pair.name.split("_")[0] for pair in dataset.pairs})
        text = f"{len(dataset)} pairs in {count} {part.unit}"
    else:
        count = len(dataset)
        text = f"{count} pairs"
    left_out = getattr(dataset, "left_out", 0)
    if left_out:
        text += f", {left_out} labels at a sequence's end left out"
    problems = []
    if count < part.least or (part.most is not None and count > part.most):
        expected = str(part.least) if part.least == part.most else f"{part.least} to {part.most}"
        problems.append(f"{dataset.root} has {count} {part.unit} where {expected} are expected")
    if decode:
        problems += _decode(dataset, part.name, workers, progress)
    return Report(part.name, text, problems)


def _decode(dataset: FlowDataset, name: str, workers: int, progress: bool) -> list[str]:
    def read(index: int) -> str | None:
        try:
            dataset[index]
            dataset.occlusion(index)
            dataset.noc(index)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(read, range(len(dataset)))
        bar = tqdm(results, name, len(dataset), unit="pair", disable=not progress)
        return [problem for problem in bar if problem is not None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0 = everything is as expected, 1 = a fault was found, 2 = wrong arguments.
    """
    parser = argparse.ArgumentParser(
        prog="python -m maskflownet.tools.check",
        description="Check data sets: counts, missing files and, with --decode, damaged files. "
        "Exit code 0: all is well, 1: a fault was found, 2: wrong arguments.",
    )
    parser.add_argument(
        "roots",
        nargs="*",
        metavar="NAME=DIR",
        help=f"a data set and its folder; NAME is one of {', '.join(NAMES)}; "
        "default: those that the environment (MASKFLOWNET_NAME) or --paths gives",
    )
    parser.add_argument("--paths", metavar="FILE", help="YAML file of NAME: DIR lines")
    parser.add_argument("--decode", action="store_true", help="read every file (takes long)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="threads that decode (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error("--workers must be at least 1")
    try:
        given = parse_roots(options.roots)
        found = {name: find_root(name, given, options.paths) for name in given or NAMES}
    except DataError as error:
        parser.error(str(error))
    roots = {name: root for name, root in found.items() if root is not None}
    if not roots:
        parser.error("no data set is named: give NAME=DIR")
    reports = check(roots, options.decode, options.workers, progress=sys.stderr.isatty())
    for report in reports:
        print(f"{report.name}: {report.count}, {'FAULTY' if report.problems else 'ok'}")
        for problem in report.problems:
            print(f"    {problem}")
    return int(any(report.problems for report in reports))


if __name__ == "__main__":
    sys.exit(main())
