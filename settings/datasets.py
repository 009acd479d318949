"""The data sets by name, where they lie, and what a dataset config makes of them."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from maskflownet.errors import UserError, nearest, shown
from maskflownet.reader.dataset import FlowDataset, View
from maskflownet.reader.films import Sintel, Spring
from maskflownet.reader.flying import Chairs, Chairs2, ChairsSDHom, Driving, Monkaa, Things3D
from maskflownet.reader.kitti import HD1K, Kitti, Kitti2012, Kitti2015
from maskflownet.reader.pairs import Pairs
from maskflownet.scenes.synthetic import Synthetic
from maskflownet.settings.configs import DataConfig, read_data_config
from maskflownet.settings.folders import ROOT
from maskflownet.settings.schema import read_yaml

PATHS_FILE = ROOT / "paths.yaml"
DEBUG_SAMPLES = 32
NO_ROOT = "no root, give --data_root NAME=DIR"


class SyntheticScenes(FlowDataset):
    """The set that is made on the fly; its root is the folder of textures."""

    name = "synthetic"
    root_name = "textures"
    needs_root = False
    splits = ("train", "val")

    @classmethod
    def of_config(cls, config, root, split, versions):
        options = config.synthetic
        held_out, length = options.validation_length, options.length
        size, textures = options.size or config.resize or config.orig_shape, root or config.textures
        scenes = Synthetic(held_out + length, *size, options.seed, textures, options.scenes)
        # The held-out scenes come first, so that they stay the same when the set is made longer.
        return View(scenes, range(held_out) if split == "val" else range(held_out, held_out + length))


# A new data set is a class like these, in a file of its own, and one entry here.
SETS: dict[str, type[FlowDataset]] = {
    cls.name: cls
    for cls in (
        *(Chairs, ChairsSDHom, Chairs2, Things3D, Monkaa, Driving, Sintel, Kitti, Kitti2012, Kitti2015, HD1K, Spring),
        *(SyntheticScenes, Pairs),
    )
}


def load_data_config(name, schedule: Path | None = None) -> DataConfig:
    """Read a dataset config, see `read_data_config`; a UserError where it names a part that no data set has."""
    config = read_data_config(name, schedule)
    for mistake in _mistakes(config):
        raise UserError(f"{config.path}: {mistake}")
    return config


def _mistakes(config: DataConfig) -> Iterator[str]:
    for key in ("dataset", "validation", "passes"):
        for name in getattr(config, key):
            if name not in SETS:
                yield f"{key} has no data set {name!r}{nearest(name, SETS)}, only {', '.join(SETS)}"
    for key in ("training_split", "validation_split", "passes"):
        for name, chosen in getattr(config, key).items():
            known = SETS[name].versions if key == "passes" else [s for s in SETS[name].splits if s != "test"]
            if known == (None,):
                yield f"passes cannot name passes of {name}, which has none"
            for value in chosen if key == "passes" else (chosen,):
                if value not in known:
                    yield f"{key} of {name} must be one of {', '.join(map(str, known))}, not {value!r}"
    for name in config.validation:
        if SETS[name].validation is None:
            yield f"validation cannot have {name}, all of which is training data"


def _check_root_name(name: object, source) -> None:
    if name not in [cls.root_name for cls in SETS.values()]:
        sets = dict.fromkeys(cls.root_name for cls in SETS.values() if cls.needs_root)
        raise UserError(
            f"{shown(name)} from {source} is no data set, only {', '.join(sets)} are; "
            "textures are the pictures of synthetic scenes"
        )


def parse_roots(arguments: Iterable[str], paths_file=None) -> "Roots":
    """The `Roots` that ``NAME=DIR`` arguments give; a UserError where one is wrong."""
    roots: dict[str, str] = {}
    for argument in arguments:
        name, _, folder = argument.partition("=")
        if not name or not folder:
            raise UserError(f"{argument!r} is not of the form NAME=DIR")
        if name in roots:
            raise UserError(f"{name} is given two roots, {roots[name]} and {folder}")
        roots[name] = folder
    return Roots(roots, paths_file)


class Roots:
    """Where the data sets lie; a root is looked for, and has to exist, when it is asked for.

    The first that says so wins: `given` (the command line's), the variable ``MASKFLOWNET_NAME`` of
    the environment (for instance ``MASKFLOWNET_CHAIRS``; empty counts as unset), `paths_file`, which
    is a YAML file of ``NAME: FOLDER`` lines, by default `paths.yaml` in the checkout, or without
    one in the working folder, where it exists. A relative folder in it starts at the file's own folder.
    """

    def __init__(self, given: Mapping[str, str | os.PathLike], paths_file=None):
        for name in given:
            _check_root_name(name, "the command line")
        self.given = dict(given)
        default = PATHS_FILE if PATHS_FILE.is_file() else None
        self.paths_file = default if paths_file is None else paths_file

    def look_up(self, root_name: str) -> Path | None:
        """Return the root of that name, None where nothing says where it is; a UserError where it does not exist."""
        variable = f"MASKFLOWNET_{root_name.upper()}"
        if root_name in self.given:
            folder, source = self.given[root_name], "the command line"
        elif os.environ.get(variable):
            folder, source = os.environ[variable], variable
        else:
            folder, source = self._listed().get(root_name), self.paths_file
            if folder is None:
                return None
        folder = Path(os.path.expanduser(folder))  # leaves ~nobody as it is
        if not os.path.isdir(folder):  # nor where its name is too long
            raise UserError(f"{folder}, the root of {root_name} from {source}, is not an existing folder")
        return folder

    def _listed(self) -> dict[str, Path]:
        if self.paths_file is None:
            return {}
        content = read_yaml(self.paths_file)
        for name, folder in content.items():
            _check_root_name(name, self.paths_file)
            if not isinstance(folder, str) or not folder:
                raise UserError(f"{self.paths_file} gives {name} the root {shown(folder)}, which is not a folder")
        start = Path(self.paths_file).parent
        return {name: start / os.path.expanduser(folder) for name, folder in content.items()}

    def find(self, name: str) -> Path | None:
        """Return the root of the data set `name`; a UserError where it needs one and nothing says where."""
        cls = SETS[name]
        root = self.look_up(cls.root_name)
        if root is None and cls.needs_root:
            needed = cls.root_name
            raise UserError(
                f"no root of the data set {needed}: give --data_root {needed}=DIR, "
                f"set MASKFLOWNET_{needed.upper()} or write {needed}: DIR into paths.yaml"
            )
        return root


class ValidationSets(NamedTuple):
    """What to validate on; names are those of the results, for instance `sintel.training2.clean`."""

    sets: dict  # data set by name
    skipped: dict[str, str]  # why there is no such set, in one sentence
    # Results that join several sets: sintel.training.clean of sintel.training1.clean and .training2.clean.
    unions: dict[str, list[str]]


def training_parts(config: DataConfig, roots: Roots, shard: int = 1, debug: bool = False) -> list[tuple]:
    """Return (data set, samples per batch) of each data set that a config trains on, in the batch's order.

    Of each data set every `shard`-th sample is taken, and of these with `debug` only the first 32.
    A UserError where a root is missing, or a data set is incomplete or empty.
    """
    parts = []
    for name, samples in config.dataset.items():
        cls = SETS[name]
        split = config.training_split.get(name, cls.splits[0])
        dataset = cls.of_config(config, roots.find(name), split, _versions(cls, config))
        parts.append((_shortened(View(dataset, range(0, len(dataset), shard)), debug), samples))
    return parts


def endless_scenes(config: DataConfig, roots: Roots) -> tuple[Synthetic, int] | None:
    """Return the scenes of a config that trains on nothing else, as large as its crop, and the first to train on."""
    if list(config.dataset) != ["synthetic"] or config.training_split.get("synthetic", "train") != "train":
        return None
    config = replace(config, synthetic=replace(config.synthetic, size=config.orig_shape))
    view = SyntheticScenes.of_config(config, roots.find("synthetic"), "train", ())
    return view.dataset, config.synthetic.validation_length


def validation_sets(config: DataConfig | None, roots: Roots, network_class: str, debug: bool = False) -> ValidationSets:
    """Return the data sets to validate on, each version of them (pass, year) apart.

    Without a config these are the `measured` splits of every data set. MaskFlownet_S is validated on all of Sintel,
    unless the config says otherwise. With `debug` each has its first 32 samples alone.

    A data set without a root is skipped, and so is a year that a root of KITTI lacks. A root that does not exist, or is
    incomplete, is a UserError.
    """
    found = ValidationSets({}, {}, {})
    if config is None:
        wanted = {cls: cls.measured for cls in SETS.values()}
    else:
        classes = [SETS[name] for name in config.validation]
        splits = config.validation_split
        wanted = {cls: (splits.get(cls.name, cls.validation_of(network_class)),) for cls in classes}
    for cls, splits in wanted.items():
        root = roots.look_up(cls.root_name) if splits else None
        versions = _versions(cls, config)
        for split, version in itertools.product(splits, versions):
            title = cls.title(split, version)
            reason = NO_ROOT if root is None and cls.needs_root else cls.lacks(root, split, version)
            if reason is None:
                found.sets[title] = _shortened(cls.of_config(config, root, split, (version,)), debug)
            else:
                found.skipped[title] = reason
        if splits == ("train", "val"):
            for version in versions:
                found.unions[cls.title("all", version)] = [cls.title(split, version) for split in splits]
    return found


def _versions(cls: type[FlowDataset], config: DataConfig | None) -> tuple:
    chosen = {} if config is None else config.passes
    return chosen.get(cls.name) or cls.default_versions or cls.versions


def _shortened(dataset, debug: bool):
    return View(dataset, range(min(DEBUG_SAMPLES, len(dataset)))) if debug else dataset
