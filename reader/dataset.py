"""What every data set on disk has in common; views on data sets.

A data set is anything with ``len``, ``dataset[i] -> Sample`` and ``labelled(i) -> Labelled``.
"""

import os
import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.files import read_bytes
from maskflownet.reader.formats import read_flow, read_images, read_mask
from maskflownet.reader.sample import Labelled, Sample


class Pair(NamedTuple):
    """The files of one image pair; ``None`` where the data set has no such file."""

    name: str  # identifies the pair inside its data set
    img1: str
    img2: str
    flow: str | None = None  # the label, in any format of `read_flow`
    invalid: str | None = None  # picture, 255 = the label must not be used
    occlusion: str | None = None  # picture, 255 = the pixel of img1 is not visible in img2
    noc: str | None = None  # the label of the non-occluded pixels only


class MissingFiles(UserError):
    """Files that a data set needs and lacks; ``paths`` lists every one of them."""

    def __init__(self, paths: Sequence[str]):
        more = f" (and {len(paths) - 1} more files)" if len(paths) > 1 else ""
        super().__init__(f"{paths[0]} is missing although its image pair needs it{more}")
        self.paths = list(paths)


class FlowDataset:
    """Image pairs listed from a folder, each decoded when it is asked for; nothing is kept.

    A subclass says in its attributes all that programs have to know about its set, and lists the
    files in `list_pairs`. ``maskflownet.settings.datasets.SETS`` makes it known.

    `split` is one of `splits`, by default the first. Of `versions`, `default_versions` or else all
    are read by default, one after the other. Raises a UserError where there is no such split or
    version, a folder is missing or there is no pair; MissingFiles where a file of a pair is missing.
    """

    name: ClassVar[str]  # in configs, on the command line and in results
    root_name: ClassVar[str]  # of its root; by default that of the class above, else `name`
    needs_root: ClassVar[bool] = True
    # The first one is trained on unless a config says otherwise; `test` needs no labels.
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "all")
    versions: ClassVar[tuple] = (None,)  # passes or years: parts that are validated one by one
    default_versions: ClassVar[tuple | None] = None
    validation: ClassVar[str | None] = "val"  # split unless a config says otherwise; None = none
    measured: ClassVar[tuple[str, ...]] = ()  # splits of a validation without a config, disjoint
    label_scale: ClassVar[int] = 1  # values of a label along each side of a pixel
    unit: ClassVar[str] = "pairs"  # what `counts` counts
    # {(split, version): how many the published set has, (least, most), or None = any number}
    counts: ClassVar[dict[tuple, int | tuple[int, int] | None]] = {}

    def __init_subclass__(cls):
        if not hasattr(cls, "root_name"):
            cls.root_name = cls.name

    def __init__(self, root: str | os.PathLike, split: str | None = None, versions: Sequence | None = None):
        self.root = os.fspath(root)
        self.left_out = 0  # labels without a partner
        split = split or self.splits[0]
        versions = versions or self.default_versions or self.versions
        for value, known in ((split, self.splits), *((version, self.versions) for version in versions)):
            if value not in known:
                raise UserError(f"{root}: {self.name} has no part {value!r}, only {', '.join(map(str, known))}")
        self.pairs = [pair for version in versions for pair in self.list_pairs(self.root, split, version)]
        if not self.pairs:
            raise UserError(f"{root} holds no image pair of {self.name}, part {split}")
        missing = _missing_files(self.pairs)
        if missing:
            raise MissingFiles(missing)

    def list_pairs(self, root: str, split: str, version) -> Iterable[Pair]:
        """Return the pairs in their final order."""
        raise NotImplementedError

    @classmethod
    def of_config(cls, config, root, split: str, versions: Sequence):  # noqa: ARG003
        """Make the data set for a DataConfig."""
        return cls(root, split, versions)

    @classmethod
    def validation_of(cls, network_class: str) -> str | None:  # noqa: ARG003
        """Return the split that a network is validated on unless a config says otherwise."""
        return cls.validation

    @classmethod
    def title(cls, split: str, version) -> str:
        """Return the name of a part's results."""
        return f"{cls.name}.{split}" if version is None else f"{cls.root_name}.{version}.{split}"

    @classmethod
    def lacks(cls, root: str | os.PathLike, split: str, version) -> str | None:  # noqa: ARG003
        """Return one sentence where a root may lack a part, and does; else None."""
        return None

    @classmethod
    def expected(cls, root: str | os.PathLike) -> dict[tuple, int | tuple[int, int] | None]:
        """Return those `counts` that apply to a root."""
        return {part: count for part, count in cls.counts.items() if cls.lacks(root, *part) is None}

    def count(self) -> int:  # of `unit`
        return len(self)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Decode one pair; a UserError where a file cannot be read or differs in size."""
        pair = self.pairs[index]
        try:
            return self._decode(pair)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # damage that no reader expects
            files = ", ".join(filter(None, pair[1:5]))
            raise UserError(f"cannot read one of {files}: {type(error).__name__}: {error}") from error

    def _decode(self, pair: Pair) -> Sample:
        img1, img2 = read_images((pair.img1, pair.img2), trusted=True)  # (H, W, 3)
        _same_size(img2, img1, pair.img2, pair)
        flow = valid = fine = None
        if pair.flow is not None:
            flow, valid = read_flow(pair.flow)  # (kH, kW, 2) px (u, v), (kH, kW, 1)
            _same_size(flow, img1, pair.flow, pair, self.label_scale)
            if self.label_scale > 1:
                fine = flow, valid
                flow, valid = (np.ascontiguousarray(a[:: self.label_scale, :: self.label_scale]) for a in fine)
            if pair.invalid is not None:
                valid = np.minimum(valid, 255 - _same_size(read_mask(pair.invalid), img1, pair.invalid, pair))
        return Sample(img1, img2, flow, valid, pair.name, fine)

    def labelled(self, index: int) -> Labelled:
        """Decode one pair and what is known of its occlusion; as `dataset[index]`."""
        sample, pair = self[index], self.pairs[index]
        occlusion = None if pair.occlusion is None else read_mask(pair.occlusion)
        return Labelled(sample, occlusion, None if pair.noc is None else read_flow(pair.noc)[1])


def _same_size(array: np.ndarray, img1: np.ndarray, path: str, pair: Pair, scale: int = 1) -> np.ndarray:
    if array.shape[:2] != (scale * img1.shape[0], scale * img1.shape[1]):
        size, wanted = ("x".join(map(str, a.shape[:2])) for a in (array, img1))
        times = f", not {scale} times the size" if scale > 1 else ""
        raise UserError(f"{path} is {size} (HxW) where {pair.img1} is {wanted}{times}")
    return array


def _missing_files(pairs: Sequence[Pair]) -> list[str]:
    """Return the files that do not exist, each folder being listed only once."""
    paths = dict.fromkeys(path for pair in pairs for path in filter(None, pair[1:]))
    folders = filter(os.path.isdir, {os.path.dirname(path) for path in paths})
    there = {(folder, name) for folder in folders for name in os.listdir(folder)}
    return [path for path in paths if os.path.split(path) not in there]


def list_folder(folder: str) -> list[str]:
    """Return the sorted names in a folder, which must exist, hidden ones left out."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder although the data set needs it")
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def list_numbers(folder: str, pattern: str) -> list[tuple[int, ...]]:
    """Return the numbers in the names of a folder's files, sorted, without repetition.

    The groups of `pattern`, a regular expression for the whole name, are the numbers.
    """
    matches = (re.fullmatch(pattern, name) for name in list_folder(folder))
    return sorted({tuple(int(group) for group in match.groups()) for match in matches if match})


def part_of(entries: Sequence, split: str, path: str | os.PathLike) -> list:
    """Those of a data set's entries that are of a split, by a file of one line per entry: 1 = train, 2 = val."""
    try:
        lines = read_bytes(path).decode("utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read as a split file: {error}") from error
    wrong = sorted(set(lines) - {"1", "2"})
    if wrong:
        raise UserError(f"{path} holds {wrong[0]!r} where only 1 (training) and 2 are allowed")
    if len(lines) != len(entries):
        raise UserError(f"the data set holds {len(entries)} pairs where {path} describes {len(lines)}")
    wanted = {"train": "1", "val": "2"}.get(split)
    return [entry for entry, line in zip(entries, lines) if wanted in (None, line)]


class View:
    """The samples of a data set at the given indices."""

    def __init__(self, dataset, indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    def labelled(self, index: int) -> Labelled:
        return self.dataset.labelled(self.indices[index])
