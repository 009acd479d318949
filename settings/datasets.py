"""Where the data sets lie: command line, environment, ``paths.yaml``, in this order.

From a dataset config and the data sets' roots to the readers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from maskflownet.errors import DataError, UserError
from maskflownet.reader.chairs import Chairs
from maskflownet.reader.dataset import Concat, Thin, View, first
from maskflownet.reader.hd1k import HD1K
from maskflownet.reader.kitti import Kitti, held_years
from maskflownet.reader.pairs import Pairs
from maskflownet.reader.sintel import Sintel
from maskflownet.reader.things3d import Things3D
from maskflownet.scenes.synthetic import Synthetic
from maskflownet.settings.configs import PASSES, DataConfig
from maskflownet.settings.folders import ROOT
from maskflownet.settings.schema import read_yaml

NAMES = ("chairs", "things3d", "sintel", "kitti", "hd1k", "pairs")
TEXTURES = "textures"  # the pictures that synthetic scenes are made of; has a root like a data set


def parse_roots(arguments: Iterable[str]) -> dict[str, str]:
    """Turn ``NAME=DIR`` arguments into a dictionary for `find_root`.

    Raises
    ------
    DataError
        An argument is not of that form, or names an unknown data set or one data set twice.
    """
    roots: dict[str, str] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not equals or not folder:
            raise DataError(f"{argument!r} is not of the form NAME=DIR")
        _check_name(name, "the command line")
        if name in roots:
            raise DataError(f"{name} is given two roots, {roots[name]} and {folder}")
        roots[name] = folder
    return roots


def find_root(name: str, given: Mapping[str, str], paths_file: str | os.PathLike | None = None) -> Path | None:
    """Find the root of a data set.

    The first that says so wins: ``given``, the variable ``MASKFLOWNET_NAME`` of the environment
    (for instance ``MASKFLOWNET_CHAIRS``; empty counts as unset), the YAML file. ``~`` is the user's
    home.

    Parameters
    ----------
    name : str
        One of `NAMES` or `TEXTURES`.
    given : mapping
        Roots of the command line by data set name.
    paths_file : path, optional
        YAML file of ``name: folder`` lines; a relative folder starts at the file's own folder.

    Returns
    -------
    Path or None
        An existing folder, or ``None`` where nothing says where the set is.

    Raises
    ------
    DataError
        A name is unknown, the YAML file cannot be used, or the folder does not exist.
    """
    _check_name(name, "the caller")
    for other in given:
        _check_name(other, "the command line")
    variable = f"MASKFLOWNET_{name.upper()}"
    if name in given:
        folder, source = Path(given[name]), "the command line"
    elif os.environ.get(variable):
        folder, source = Path(os.environ[variable]), variable
    else:
        listed = read_paths(paths_file) if paths_file is not None else {}
        if name not in listed:
            return None
        folder, source = listed[name], os.fspath(paths_file)
    folder = folder.expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}, the root of {name} from {source}, is not an existing folder")
    return folder


def read_paths(paths_file: str | os.PathLike) -> dict[str, Path]:
    """Read a YAML file of ``name: folder`` lines.

    Raises
    ------
    DataError
        The file cannot be read, or holds anything but folders of known data sets.
    """
    content = read_yaml(paths_file)
    for name, folder in content.items():
        _check_name(name, os.fspath(paths_file))
        if not isinstance(folder, str) or not folder:
            raise DataError(f"{paths_file} gives {name} the root {folder!r}, which is not a folder")
    start = Path(paths_file).parent
    return {name: start / Path(folder).expanduser() for name, folder in content.items()}


def _check_name(name: object, source: str) -> None:
    if name not in (*NAMES, TEXTURES):
        raise DataError(
            f"{name!r} from {source} is no data set, only {', '.join(NAMES)} are; "
            f"{TEXTURES} are the pictures of synthetic scenes"
        )


PATHS_FILE = ROOT / "paths.yaml"
DEBUG_SAMPLES = 32
YEARS = {"kitti": (2012, 2015), "kitti2012": (2012,), "kitti2015": (2015,)}
# Sintel's parts as the released logs call them.
SINTEL_PARTS = {"all": "training", "train": "training1", "val": "training2"}
# What is measured where no config says what, without any pair twice.
LABELLED = {
    "chairs": ("val",),
    "sintel": ("train", "val"),
    "kitti2012": ("train", "val"),
    "kitti2015": ("train", "val"),
    "hd1k": ("val",),
    "pairs": ("all",),
}


class ValidationSets(NamedTuple):
    """What to validate on.

    Attributes
    ----------
    sets : dict
        Data set by the name of its results, for instance `sintel.training2.clean`.
    skipped : dict
        Why there is no such set: one sentence by the name of the results.
    unions : dict
        Results that join those of several sets: `sintel.training.clean` of `sintel.training1.clean`
        and `sintel.training2.clean`.
    """

    sets: dict
    skipped: dict[str, str]
    unions: dict[str, list[str]]


class Roots:
    """Where the data sets lie; a root is looked for, and has to exist, when it is asked for.

    Parameters
    ----------
    given : mapping
        Roots of the command line by name, see `maskflownet.settings.datasets.parse_roots`.
    paths_file : path, optional
        YAML file with further ones; default: `paths.yaml` beside the programs where it exists.
    """

    def __init__(self, given: Mapping[str, str | os.PathLike], paths_file=None):
        self.given = {name: os.fspath(root) for name, root in given.items()}
        default = PATHS_FILE if PATHS_FILE.is_file() else None
        self.paths_file = default if paths_file is None else paths_file

    def look_up(self, name: str) -> Path | None:
        """The root under a name that `maskflownet.settings.datasets` knows, None where nothing says where it is.

        Raises
        ------
        DataError
            It does not exist, or the YAML file cannot be used.
        """
        return find_root(name, self.given, self.paths_file)

    def find(self, name: str) -> Path:
        """The root of a data set of a config.

        Raises
        ------
        UserError
            Nothing says where it is.
        DataError
            It does not exist, or the YAML file cannot be used.
        """
        name = root_name(name)
        root = self.look_up(name)
        if root is None:
            raise UserError(
                f"no root of the data set {name}: give --data_root {name}=DIR, "
                f"set MASKFLOWNET_{name.upper()} or write {name}: DIR into paths.yaml"
            )
        return root


def root_name(name: str) -> str:
    """The name under which the root of a data set is given: both years of KITTI share one."""
    return "kitti" if name in YEARS else name


def training_parts(config: DataConfig, roots: Roots, shard: int = 1, debug: bool = False) -> list[tuple]:
    """The data sets that a config trains on, in the order of its batches.

    Parameters
    ----------
    config : DataConfig
    roots : Roots
    shard : int
        Train on every `shard`-th sample of each data set.
    debug : bool
        Read only the first 32 samples of each data set, after the thinning.

    Returns
    -------
    list of (data set, int)
        With the samples per batch, as `maskflownet.reader.loader.TrainLoader` takes them.

    Raises
    ------
    UserError
        A root is missing; the sentence says how to give it.
    DataError
        A data set is incomplete or empty.
    """
    parts = []
    for name, samples in config.dataset.items():
        dataset = Thin(_training_set(config, name, roots), shard)
        parts.append((_debug(dataset, debug), samples))
    return parts


def validation_sets(
    which: DataConfig | Iterable[str], roots: Roots, network_class: str, debug: bool = False
) -> ValidationSets:
    """The data sets to validate on, each rendering and each year apart.

    Parameters
    ----------
    which : DataConfig or iterable of str
        A config's `validation`, or the names of data sets (keys of `LABELLED`), of which every part
        is taken that is not training data only.
    roots : Roots
    network_class : str
        MaskFlownet_S is validated on all of Sintel and MaskFlownet on its validation part, unless
        the config says otherwise.
    debug : bool
        Read only the first 32 samples of each.

    Raises
    ------
    UserError
        A name is unknown.
    DataError
        A data set is incomplete, or the root that was given does not exist.
    """
    found = ValidationSets({}, {}, {})
    if isinstance(which, DataConfig):
        config, split_of = which, which.validation_split_of
        wanted = {name: (split_of(name, network_class),) for name in which.validation}
    else:
        config, wanted = None, {name: _labelled_parts(name) for name in which}
    for name, splits in wanted.items():
        for split in splits:
            for title, make in _parts(name, split, roots, config).items():
                try:
                    found.sets[title] = _debug(make(), debug)
                except UserError as error:
                    found.skipped[title] = str(error)
        if splits == ("train", "val"):
            titles = (_parts(name, split, roots, config) for split in ("all", *splits))
            found.unions.update((whole, parts) for whole, *parts in zip(*titles))
    return found


def _labelled_parts(name: str) -> tuple[str, ...]:
    if name not in LABELLED:
        raise UserError(f"{name} is none of the sets to validate on: {', '.join(LABELLED)}")
    return LABELLED[name]


def _training_set(config: DataConfig, name: str, roots: Roots):
    if name == "synthetic":
        return _synthetic(config, roots, "train")
    root, split = roots.find(name), config.training_split_of(name)
    if name == "sintel":
        return Sintel(root, config.passes_of(name), split)
    if name == "things3d":
        return Things3D(root, config.passes_of(name))
    if name in YEARS:
        return Concat([Kitti(root, year, split) for year in YEARS[name]])
    if name == "pairs":
        return Pairs(root, need_flow=True)
    return {"chairs": Chairs, "hd1k": HD1K}[name](root, split)


def _parts(name: str, split: str, roots: Roots, config: DataConfig | None) -> dict:
    """{name of the results: function that makes the data set} of one data set's split."""
    if name == "sintel":
        passes = PASSES[name] if config is None else config.passes_of(name)
        return {f"sintel.{SINTEL_PARTS[split]}.{p}": lambda p=p: Sintel(roots.find(name), (p,), split) for p in passes}
    if name in YEARS:
        return {
            f"kitti.{year}.{split}": lambda year=year: _kitti(roots.find(name), year, split) for year in YEARS[name]
        }
    makers = {
        "chairs": lambda: Chairs(roots.find(name), split),
        "hd1k": lambda: HD1K(roots.find(name), split),
        "pairs": lambda: Pairs(roots.find(name), need_flow=True),
        "synthetic": lambda: _synthetic(config, roots, split),
    }
    return {f"{name}.{split}": makers[name]}


def _kitti(root: Path, year: int, split: str) -> Kitti:
    if year not in held_years(root):
        raise UserError(f"{root} does not hold KITTI {year}")
    return Kitti(root, year, split)


def _synthetic(config: DataConfig, roots: Roots, split: str) -> View:
    options = config.synthetic
    textures = roots.look_up(TEXTURES) or config.textures
    held_out, length = options.validation_length, options.length
    # The held-out scenes come first, so that they stay the same when the set is made longer.
    dataset = Synthetic(held_out + length, *config.synthetic_size, options.seed, textures, options.scenes)
    return View(dataset, range(held_out) if split == "val" else range(held_out, held_out + length))


def _debug(dataset, debug: bool):
    return first(dataset, DEBUG_SAMPLES) if debug else dataset
