"""Network configs: which network, its loss and its learning-rate schedule.

Dataset configs: what is trained and validated on, in which shapes, with which augmentation.
Schedules: which of both in which order. `load_network_config`, `read_data_config` and `load_schedule` read them.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from maskflownet.errors import UserError, nearest, shown
from maskflownet.network.architecture import INITIAL, LOSS_WEIGHTS, MULTIPLE, NETWORKS, PYRAMIDS
from maskflownet.scenes.draw import MIN_SIDE, SceneOptions
from maskflownet.settings import schema
from maskflownet.settings.folders import CONFIGS
from maskflownet.settings.schema import INTERNAL, NotNegative, Positive, Seed, Side, Text, Whole, WholeOrZero
from pydantic import AfterValidator, BeforeValidator, Field

ENGINES = ("auto", "torch", "mxnet")
PRECISIONS = ("float32", "tf32", "bf16")  # of the network's matrix products


def _growing(schedule: tuple) -> tuple:
    for (last, _), (step, _) in zip(schedule, schedule[1:]):
        if step <= last:
            raise ValueError(f"needs growing steps, but {step} follows {last}")
    return schedule


_Rates = Annotated[
    tuple[tuple[Whole, Positive], ...],
    Field(min_length=1),
    schema.described("a list of [last step, rate] pairs, whole steps and rates above 0"),
    AfterValidator(_growing),
]
_LossWeights = Annotated[
    tuple[NotNegative, ...],
    Field(min_length=len(LOSS_WEIGHTS), max_length=len(LOSS_WEIGHTS)),
    schema.described(f"a list of {len(LOSS_WEIGHTS)} numbers, coarse to fine"),
]


@schema.checked
class Network:
    class_: Annotated[Literal[NETWORKS], Field(alias="class")]
    flow_multiplier: Positive = 1.0  # a flow unit inside the network is 20 px times this
    mw: _LossWeights = LOSS_WEIGHTS  # multi-scale weights: of the five levels in the loss, coarse to fine
    initial: Literal[INITIAL] = "fan_avg"  # of new parameters, see network.architecture
    pyramid: Literal[PYRAMIDS] = "paper"  # second stage of a new MaskFlownet; a checkpoint's record has precedence

    def __post_init__(self) -> None:
        if self.initial == "head" and self.pyramid == "released":
            raise ValueError("has initial: head, which needs pyramid: paper, as the head matches image 2 at all levels")


@schema.checked
class Optimizer:
    learning_rate: _Rates
    schedule: Literal["constant", "linear"] = "constant"  # between two entries: a rate holds, or comes near steadily
    q: Positive | None = None  # exponent of the robust loss of fine-tuning; None = the end-point error (EPE)
    wd: NotNegative = 0.0  # decay of the weights, not of the biases
    # Adam's. The gradients of masks and of the coarsest level are as small as 1e-9 to 1e-7, above all with q: at the
    # default, the published one, they are trained more slowly than the rest.
    epsilon: Positive = 1e-8
    clip: Positive | None = None  # largest norm of a gradient over all parameters; None = any


@schema.checked
class NetworkConfig:
    network: Network
    optimizer: Optimizer
    path: Annotated[Path | None, INTERNAL] = None
    content: Annotated[dict | None, INTERNAL] = None  # of the file and its bases


def _once(names: tuple) -> tuple:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"names {name} twice")
    return names


_Shape = Annotated[tuple[Side, Side], schema.described("[height, width] in px, each at least 2")]
_Passes = Annotated[tuple[str | int, ...], Field(min_length=1), AfterValidator(_once)]
_Mix = Annotated[  # {name: samples per batch}; a name alone fills the batch
    dict[Text, Whole | None],
    Field(min_length=1),
    BeforeValidator(lambda value: {value: None} if isinstance(value, str) else value),
]


def _rising(ends: tuple) -> tuple:
    if ends[0] > ends[1]:
        raise ValueError(f"is {ends}, whose low exceeds its high")
    return ends


def _interval(least: float | None = None):
    end = Annotated[float, Field(ge=least)]
    what = "a pair [low, high]" if least is None else f"a pair [low, high] of numbers of at least {least}"
    return Annotated[tuple[end, end], schema.described(what), AfterValidator(_rising)]


_Scale = _interval(0.001)


@schema.checked
class AugmentationRanges:
    """What the augmentation draws from (`maskflownet.network.draws`).

    A number b means a uniform draw from [-b, b], a pair an interval [low, high], unless said otherwise.
    """

    rotation: Annotated[NotNegative, Field(le=90)]  # of the window in image 1, degrees
    zoom: _Scale  # size of the window relative to the target: below 1 magnifies
    aspect: _Scale  # horizontal stretch of the window
    translation: NotNegative  # of the window, fraction of the original size
    relative_rotation: NotNegative  # of image 2 relative to image 1, degrees
    relative_translation: NotNegative  # the same, fraction of the original size
    relative_scale: _Scale  # the same, factor
    contrast: _interval(-1)  # added to 1
    brightness: NotNegative  # standard deviation of a normal draw, images in [0, 1]
    gain: _interval(0)  # factor per colour channel
    noise: NotNegative  # its standard deviation is uniform in [0, noise], one for the whole batch
    saturation: NotNegative  # added to 1 to scale the I/Q plane of YIQ
    hue: NotNegative  # rotation of the I/Q plane, in units of pi
    gamma: _interval() | None = None  # natural logarithm of the gamma exponent


@schema.checked
class SyntheticSet:
    """The set that is made on the fly; its first scenes are for validation, the others to train."""

    length: Annotated[Whole, Field(le=10**8)] = 100000  # training pairs
    validation_length: Whole = 100
    size: _Shape | None = None  # None = resize or orig_shape
    seed: Seed = 0
    textures: Text | None = None  # folder of pictures, from that of the config; None = those that scikit-image ships
    scenes: SceneOptions = SceneOptions()


@schema.checked
class DataConfig:
    """What a file says; which data sets and parts there are, `maskflownet.settings.datasets` knows."""

    dataset: _Mix  # once read, {name: samples per batch} in the order of the batch
    batch_size: Whole
    orig_shape: _Shape  # of the random crop, the augmentation's input
    target_shape: _Shape  # what the network sees
    augmentation: AugmentationRanges | None  # None = off
    resize: _Shape | None = None  # before the crop
    echo: Whole = 1  # steps that get the same batch, each augmented anew
    training_split: dict[Text, Text] = Field(default_factory=dict)
    passes: dict[Text, _Passes] = Field(default_factory=dict)
    validation: Annotated[tuple[Text, ...], AfterValidator(_once)] = ()
    validation_split: dict[Text, Text] = Field(default_factory=dict)
    validation_steps: Whole = 2500
    validation_samples: WholeOrZero = 4  # pairs drawn at each; 0 = off
    checkpoint_steps: Whole = 5000
    synthetic: SyntheticSet = SyntheticSet()
    path: Annotated[Path | None, INTERNAL] = None
    content: Annotated[dict | None, INTERNAL] = None  # of the file and its bases

    def __post_init__(self) -> None:
        mix = {name: samples or self.batch_size for name, samples in self.dataset.items()}
        object.__setattr__(self, "dataset", mix)
        total, off = sum(mix.values()), self.augmentation is None
        shape, target = self.orig_shape, self.target_shape
        for wrong, sentence in (
            (total != self.batch_size, f"batch_size is {self.batch_size} but dataset adds up to {total}"),
            (any(side % MULTIPLE for side in target), f"target_shape must be multiples of {MULTIPLE}, not {target}"),
            (off and shape != target, "without augmentation target_shape must be orig_shape"),
            (off and self.echo > 1, "echo repeats the very same step where there is no augmentation"),
            (min(self.synthetic.size or shape) < MIN_SIDE, f"synthetic.size is at least {MIN_SIDE} px a side"),
            (any(a < b for a, b in zip(self.resize or (), shape)), f"orig_shape is larger than resize, {self.resize}"),
        ):
            if wrong:
                raise ValueError(sentence)
        for key, names in (("training_split", mix), ("validation_split", self.validation)):
            for name in getattr(self, key):
                if name not in names:
                    raise ValueError(f"{key} has {name}, which the config does not use for that")

    @property
    def textures(self) -> Path | None:
        """Folder of the synthetic set's pictures, None for those that scikit-image ships."""
        if self.synthetic.textures is None:
            return None
        folder = os.path.expanduser(self.synthetic.textures)
        here, there = self.path.parent / folder, self.path.resolve().parent / folder
        return there if there.is_dir() and not here.is_dir() else here  # a symbolic link's textures lie at its target


_Config = Annotated[Text | dict, schema.described("the name or path of a config, or its content")]


@schema.checked
class Stage:
    network: _Config
    dataset: _Config


@schema.checked
class Schedule:
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]


def find_config(name, *folders: Path) -> Path:
    """Path of a config given as a path, or as a name in `folders` or `config_folder/`; `.yaml` may be left out."""
    folders = folders or (Path(),)
    for candidate in (folder / file for folder in (*folders, CONFIGS) for file in (name, f"{name}.yaml")):
        if os.path.isfile(candidate):
            return candidate
    known = sorted(path.name for path in CONFIGS.glob("*.yaml"))
    raise UserError(f"no config {name}{nearest(name, known)} (neither a file nor one of {', '.join(known)})")


def read_config(path: Path, below: tuple = ()) -> dict:
    """The content of a config on top of that of its `base`: mappings are joined, all else is replaced.

    UserError: A file cannot be read, or one is its own base.
    """
    return _on_its_base(schema.read_yaml(path), path, below)


def _on_its_base(content: dict, path: Path, below: tuple = ()) -> dict:
    base = content.get("base")
    content = {key: value for key, value in content.items() if key != "base"}
    if base is None:
        return content
    if not isinstance(base, str):
        raise UserError(f"{path}: base must be the name or path of a config, not {shown(base)}")
    chain = (*below, path.resolve())
    try:
        parent = find_config(base, path.parent, path.resolve().parent)  # of a symbolic link
    except UserError as error:
        raise UserError(f"{path}: base: {error}") from error
    if parent.resolve() in chain:
        raise UserError(f"{path}: base {base} leads back to {parent}, which has it as a base itself")
    return _joined(read_config(parent, chain), content)


def _joined(below, above):
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _joined(below.get(key), value) for key, value in above.items()}}


def _load(cls, config, schedule: Path | None, key: str, what: str):
    inline = isinstance(config, dict)
    path = schedule if inline else find_config(config)
    content = _on_its_base(config, path) if inline else read_config(path)
    if key not in content:
        raise UserError(f"{path}{': a stage' if inline else ''} is no {what}: it has no key {key}")
    return replace(schema.parse(cls, content, path), path=path, content=content)


def load_network_config(config, schedule: Path | None = None) -> NetworkConfig:
    """Read and check a network config: a name in `config_folder/`, a path, or what a stage of a schedule says."""
    return _load(NetworkConfig, config, schedule, "network", "network config")


def read_data_config(config, schedule: Path | None = None) -> DataConfig:
    """Read a dataset config; `maskflownet.settings.datasets.load_data_config` checks its data sets, too."""
    return _load(DataConfig, config, schedule, "dataset", "dataset config")


def load_schedule(name) -> tuple[Path, tuple[Stage, ...]]:
    """Read a schedule of stages, and check all configs that it names."""
    path = find_config(name)
    content = read_config(path)
    if "stages" not in content and {"network", "dataset"} & set(content):
        raise UserError(f"{path} is no schedule of stages but the config of a single one")
    stages = schema.parse(Schedule, content, path).stages
    for stage in stages:
        load_network_config(stage.network, path)
        read_data_config(stage.dataset, path)
    return path, stages
