"""Network configs: which network, its loss and its learning-rate schedule.

Dataset configs: what is trained and validated on, in which shapes, with which augmentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from maskflownet.errors import UserError, nearest
from maskflownet.network.architecture import LOSS_WEIGHTS, NETWORKS, PYRAMIDS
from maskflownet.network.draws import AugmentationRanges
from maskflownet.scenes.options import SceneOptions
from maskflownet.settings.folders import CONFIGS
from maskflownet.settings.schema import number, one_of, option, optional, parse, positive, read_yaml, whole

ENGINES = ("mxnet", "torch")
PRECISIONS = ("float32", "tf32", "bf16")  # of the network's matrix products


def _loss_weights(value):
    if not isinstance(value, list) or len(value) != len(LOSS_WEIGHTS):
        raise ValueError(f"must be a list of {len(LOSS_WEIGHTS)} numbers, coarse to fine")
    return tuple(number(weight, low=0) for weight in value)


def _beginnings(value):
    if not isinstance(value, list) or not value or not all(v and type(v) is str for v in value):
        raise ValueError("must be a list of names of parameters, or of what they begin with")
    return tuple(value)


def _schedule(value):
    """[[last step, rate], ...] with growing steps -> tuple of (int, float)."""
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of [last step, rate] pairs")
    schedule = []
    for entry in value:
        if not isinstance(entry, list) or len(entry) != 2:
            raise ValueError(f"must be a list of [last step, rate] pairs, not {entry!r}")
        step, rate = number(entry[0], above=0), positive(entry[1])
        if step != int(step):
            raise ValueError(f"needs whole steps, not {entry[0]!r}")
        if schedule and step <= schedule[-1][0]:
            raise ValueError(f"needs growing steps, but {int(step)} follows {schedule[-1][0]}")
        schedule.append((int(step), rate))
    return tuple(schedule)


@dataclass(frozen=True)
class Network:
    class_: str = option(one_of(*NETWORKS))
    # Pixels per unit of the network's output, divided by 20.
    flow_multiplier: float = option(positive, default=1.0)
    # Weights of the five scales in the loss, coarse to fine.
    mw: tuple = option(_loss_weights, default=LOSS_WEIGHTS)
    # Second stage of a newly trained MaskFlownet; a checkpoint's record has precedence.
    pyramid: str = option(one_of(*PYRAMIDS), default="paper")


@dataclass(frozen=True)
class Optimizer:
    learning_rate: tuple = option(_schedule)
    # Exponent of the robust loss for fine-tuning; without it the loss is the end-point error.
    q: float = option(optional(positive), default=None)
    # Weight decay of the weights, not of the biases.
    wd: float = option(lambda value: number(value, low=0), default=0.0)
    # Adam's. The gradients of masks and of the coarsest level are as small as 1e-9 to 1e-7, above
    # all with q: at the default, the published one, they are trained more slowly than the rest.
    epsilon: float = option(positive, default=1e-8)
    # Beginnings of the names of parameters: only these are trained, the others stay as they are.
    trained: tuple = option(optional(_beginnings), default=None)

    def chosen(self, names: Iterable[str]) -> set[str]:
        """Those of the parameters `names` that are trained.

        Raises
        ------
        UserError
            One of the beginnings in `trained` fits none of them.
        """
        names = set(names)
        if self.trained is None:
            return names
        for beginning in self.trained:
            if not any(name.startswith(beginning) for name in names):
                raise UserError(f"optimizer.trained: no parameter to train has a name that begins with {beginning}")
        return {name for name in names if name.startswith(self.trained)}


@dataclass(frozen=True)
class NetworkConfig:
    network: Network = option(Network)
    optimizer: Optimizer = option(Optimizer)
    path: Path = field(default=None)  # of the file; no key


def find_config(name, folder: Path = CONFIGS) -> Path:
    """Path of a config given as a path or as a name in `config_folder/`, `.yaml` optional."""
    for candidate in (Path(name), folder / name, folder / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    known = sorted(path.name for path in folder.glob("*.yaml"))
    raise UserError(f"no config {name}{nearest(name, known)} (neither a file nor one of {', '.join(known)})")


def load_network_config(name) -> NetworkConfig:
    """Read and check the config of a network, by name or path."""
    path = find_config(name)
    content = read_yaml(path)
    if not isinstance(content.get("network"), dict):
        raise UserError(f"{path} is no network config: it has no key network")
    return replace(parse(NetworkConfig, content, path), path=path)


# The parts of every data set; the first is the one that is trained on unless a config says more.
SPLITS = {
    "chairs": ("train", "val", "all"),
    "things3d": ("all",),
    "sintel": ("train", "val", "all"),
    "kitti": ("train", "val", "all"),  # 2012 and 2015 together
    "kitti2012": ("train", "val", "all"),
    "kitti2015": ("train", "val", "all"),
    "hd1k": ("train", "val", "all"),
    "synthetic": ("train", "val"),
    "pairs": ("all",),
}
PASSES = {"sintel": ("clean", "final"), "things3d": ("clean",)}  # unless a config says otherwise
STRIDE = 64  # px; the networks take sizes that are multiples of it


def _name(value):
    if not isinstance(value, str) or value not in SPLITS:
        raise ValueError(f"has no data set {value!r}{nearest(value, SPLITS)}, {_known(SPLITS)}")
    return value


def _known(names) -> str:
    return f"only {', '.join(names)}"


def _none_or_more(value) -> int:
    return whole(value, low=0)


def _shape(value) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"must be [height, width] in px, not {value!r}")
    height, width = (whole(side) for side in value)
    return height, width


def _target(value) -> tuple[int, int]:
    shape = _shape(value)
    if any(side % STRIDE for side in shape):
        raise ValueError(f"must be multiples of {STRIDE}, not {list(shape)}")
    return shape


def _mapping(value) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"must hold data sets with their values, not {value!r}")
    return {_name(name): entry for name, entry in value.items()}


def _mix(value) -> dict[str, int | None]:
    """A name, or {name: samples per batch} -> {name: samples, None for a name alone}."""
    if not isinstance(value, dict):
        return {_name(value): None}
    if not value:
        raise ValueError("names no data set")
    return {name: whole(samples) for name, samples in _mapping(value).items()}


def _splits(value) -> dict[str, str]:
    return {name: one_of(*SPLITS[name])(split) for name, split in _mapping(value).items()}


def _passes(value) -> dict[str, tuple]:
    for name, passes in _mapping(value).items():
        if name not in PASSES:
            raise ValueError(f"cannot name passes of {name}, {_known(PASSES)} have any")
        if not isinstance(passes, list) or not passes or len(set(passes)) < len(passes):
            raise ValueError(f"must list the passes of {name} once each, not {passes!r}")
        for render in passes:
            one_of("clean", "final")(render)
    return {name: tuple(passes) for name, passes in value.items()}


def _validation(value) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list of data sets, not {value!r}")
    for name in value:
        if _name(name) == "things3d":
            raise ValueError("cannot have things3d, all of which is training data")
        if value.count(name) > 1:
            raise ValueError(f"names {name} twice")
    return tuple(value)


def _ranges(cls):
    """The check of a mapping that `cls` itself understands, with the nearest key for a typo."""
    known = [f.name for f in fields(cls)]

    def check(value):
        if not isinstance(value, dict):
            raise ValueError(f"must hold keys and values, not {value!r}")
        for key in value:
            if key not in known:
                raise ValueError(f"has the unknown key {key}{nearest(key, known)}")
        make = getattr(cls, "from_config", lambda values: cls(**values))
        try:
            return make(value)
        except ValueError as error:
            raise ValueError(f"cannot be used: {error}") from error

    return check


def _text(value) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be a folder, not {value!r}")
    return value


@dataclass(frozen=True)
class SyntheticSet:
    """The set that is made on the fly; its first scenes are for validation, the others to train."""

    length: int = option(whole, default=100000)  # training pairs
    validation_length: int = option(whole, default=100)
    size: tuple = option(optional(_shape), default=None)  # [H, W] px; None = resize or orig_shape
    seed: int = option(_none_or_more, default=0)
    # Folder of pictures, relative to the config's; None = those that scikit-image ships.
    textures: str = option(optional(_text), default=None)
    scenes: SceneOptions = option(_ranges(SceneOptions), default=SceneOptions())


@dataclass(frozen=True)
class DataConfig:
    dataset: dict = option(_mix)  # name -> samples per batch, in the order of the batch
    batch_size: int = option(whole)
    orig_shape: tuple = option(_shape)  # (H, W) px of the random crop, the augmentation's input
    target_shape: tuple = option(_target)  # (H, W) px that the network sees
    augmentation: AugmentationRanges = option(optional(_ranges(AugmentationRanges)))  # None = off
    resize: tuple = option(optional(_shape), default=None)  # (H, W) px before the crop
    echo: int = option(whole, default=1)  # steps that get the same batch, each augmented anew
    training_split: dict = option(_splits, default_factory=dict)  # name -> split
    passes: dict = option(_passes, default_factory=dict)  # name -> passes
    validation: tuple = option(_validation, default=())
    validation_split: dict = option(_splits, default_factory=dict)
    validation_steps: int = option(whole, default=2500)
    validation_samples: int = option(_none_or_more, default=4)  # pairs drawn at each; 0 = off
    checkpoint_steps: int = option(whole, default=5000)
    synthetic: SyntheticSet = option(SyntheticSet, default=SyntheticSet())
    path: Path = field(default=None)  # of the file; no key

    def __post_init__(self) -> None:
        mix = {name: samples or self.batch_size for name, samples in self.dataset.items()}
        object.__setattr__(self, "dataset", mix)
        if sum(mix.values()) != self.batch_size:
            raise ValueError(f"batch_size is {self.batch_size} but dataset adds up to {sum(mix.values())}")
        if self.augmentation is None and self.orig_shape != self.target_shape:
            raise ValueError("without augmentation target_shape must be orig_shape")
        if self.augmentation is None and self.echo > 1:
            raise ValueError("echo repeats the very same step where there is no augmentation")
        if self.resize and any(a < b for a, b in zip(self.resize, self.orig_shape)):
            raise ValueError(f"orig_shape is larger than resize, {list(self.resize)}")
        for key, names in (("training_split", mix), ("validation_split", self.validation)):
            for name in getattr(self, key):
                if name not in names:
                    raise ValueError(f"{key} has {name}, which the config does not use for that")

    def passes_of(self, name: str) -> tuple[str, ...]:
        """The renderings of a data set that are read."""
        return self.passes.get(name, PASSES[name])

    def training_split_of(self, name: str) -> str:
        return self.training_split.get(name, SPLITS[name][0])

    def validation_split_of(self, name: str, network_class: str) -> str:
        """What to validate on: `val` where there is one, but all of Sintel for MaskFlownet_S.

        The first stages of MaskFlownet_S do not train on Sintel; the third says `val`.
        """
        if name in self.validation_split:
            return self.validation_split[name]
        if name == "sintel" and network_class == "MaskFlownet_S":
            return "all"
        return "val" if "val" in SPLITS[name] else SPLITS[name][0]

    @property
    def synthetic_size(self) -> tuple[int, int]:
        """(H, W) px at which synthetic pairs are made."""
        return self.synthetic.size or self.resize or self.orig_shape

    @property
    def textures(self) -> Path | None:
        """Folder of the synthetic set's pictures, None for those that scikit-image ships."""
        if self.synthetic.textures is None:
            return None
        return self.path.parent / Path(self.synthetic.textures).expanduser()


def load_data_config(name) -> DataConfig:
    """Read and check a dataset config, by name in `config_folder/` or path.

    Raises
    ------
    UserError
        The file cannot be read, a key is unknown or missing, or a value is wrong.
    """
    path = find_config(name)
    content = read_yaml(path)
    if "dataset" not in content:
        raise UserError(f"{path} is no dataset config: it has no key dataset")
    try:
        return replace(parse(DataConfig, content, path), path=path)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
