"""Dataset configs: the shipped ones hold the published values, mistakes are named."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from maskflownet.errors import UserError
from maskflownet.network.draws import AugmentationRanges
from maskflownet.settings.configs import find_config, load_data_config

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("chairs", "things3d", "sintel", "sintel_kitti2015_hd1k", "kitti", "synthetic")
FILM = AugmentationRanges(
    rotation=17,
    zoom=(0.5, 1 / 0.9),
    aspect=(0.9, 1 / 0.9),
    translation=0.1,
    relative_rotation=17 / 4,
    relative_translation=0.1 / 4,
    relative_scale=(0.96, 1 / 0.96),
    contrast=(-0.4, 0.8),
    brightness=0.1,
    gain=(0.8, 1.4),
    noise=0.04,
    saturation=0.5,
    hue=0.5,
)
SINTEL = dataclasses.replace(FILM, zoom=(1 / 1.5, 1 / 0.9), noise=0)
STREET = AugmentationRanges(
    rotation=5,
    zoom=(1 / 1.25, 1 / 0.95),
    aspect=(0.95, 1 / 0.95),
    translation=0.05,
    relative_rotation=5 / 4,
    relative_translation=0.05 / 4,
    relative_scale=(0.98, 1 / 0.98),
    contrast=(-0.2, 0.4),
    brightness=0.05,
    gain=(0.9, 1.2),
    noise=0.02,
    saturation=0.25,
    hue=0.1,
    gamma=(-0.5, 0.5),
)
PUBLISHED = {  # dataset, target, original, resize, augmentation
    "chairs": ({"chairs": 8}, (320, 448), (384, 512), None, FILM),
    "things3d": ({"things3d": 4}, (384, 768), (540, 960), None, FILM),
    "sintel": ({"sintel": 4}, (384, 768), (436, 1024), None, SINTEL),
    "sintel_kitti2015_hd1k": ({"sintel": 2, "kitti2015": 1, "hd1k": 1}, (320, 768), (436, 1024), (436, 1024), SINTEL),
    "kitti": ({"kitti": 4}, (320, 896), (576, 1280), (576, 1280), STREET),
    "synthetic": ({"synthetic": 8}, (320, 448), (384, 512), None, FILM),
}


@pytest.mark.parametrize("name", NAMES)
def test_shipped_configs_hold_the_published_values(name):
    config = load_data_config(name)
    dataset, target, original, resize, augmentation = PUBLISHED[name]
    assert config.dataset == dataset and config.batch_size == sum(dataset.values())
    assert (config.target_shape, config.orig_shape, config.resize) == (target, original, resize)
    assert (config.validation_steps, config.checkpoint_steps) == (2500, 5000)
    for key, value in dataclasses.asdict(augmentation).items():
        found = getattr(config.augmentation, key)
        assert found == (None if value is None else pytest.approx(value, rel=1e-12)), key


def test_order_of_a_batch():
    assert list(load_data_config("sintel_kitti2015_hd1k").dataset) == ["sintel", "kitti2015", "hd1k"]


def test_what_is_validated_on():
    """Of Sintel train and val for the first two stages of MaskFlownet_S, val for all others."""
    for name in ("chairs", "things3d"):
        config = load_data_config(name)
        assert config.validation == ("chairs", "sintel")
        assert config.validation_split_of("sintel", "MaskFlownet_S") == "all"
        assert config.validation_split_of("sintel", "MaskFlownet") == "val"
        assert config.validation_split_of("chairs", "MaskFlownet_S") == "val"
    for network in ("MaskFlownet_S", "MaskFlownet"):
        for name in ("sintel", "sintel_kitti2015_hd1k"):
            config = load_data_config(name)
            assert config.training_split_of("sintel") == "train"
            assert config.validation_split_of("sintel", network) == "val"
        kitti = load_data_config("kitti")
        assert kitti.training_split_of("kitti") == "train"
        assert kitti.validation_split_of("kitti", network) == "val"


def write(tmp_path, base="chairs", remove=(), **changes):
    content = {**yaml.safe_load(find_config(base).read_text(encoding="utf-8")), **changes}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if k not in remove}))
    return path


def test_changes_and_defaults(tmp_path):
    path = write(
        tmp_path,
        remove=("validation", "validation_steps", "checkpoint_steps"),
        dataset={"chairs": 3, "things3d": 2, "pairs": 1},
        batch_size=6,
        target_shape=[384, 512],
        augmentation=None,
        passes={"things3d": ["clean", "final"]},
        synthetic={"textures": "photos", "scenes": {"max_objects": 4}},
    )
    config = load_data_config(path)
    assert config.augmentation is None and config.path == path
    assert (config.validation, config.validation_steps, config.checkpoint_steps) == ((), 2500, 5000)
    assert config.passes_of("things3d") == ("clean", "final")
    assert config.passes_of("sintel") == ("clean", "final")
    assert config.training_split_of("pairs") == "all"
    assert config.textures == tmp_path / "photos"
    assert config.synthetic.scenes.max_objects == 4
    assert config.synthetic_size == (384, 512)


def test_passes_of_things3d_are_clean_unless_said(tmp_path):
    assert load_data_config(write(tmp_path, "things3d", ("passes",))).passes_of("things3d") == ("clean",)


WRONG = [
    ({"batchsize": 8}, "unknown key batchsize, did you mean 'batch_size'"),
    ({"dataset": "chair"}, "dataset .*'chair', did you mean 'chairs'"),
    ({"dataset": {"sintel": 2, "kitty": 2}}, "dataset .*'kitty', did you mean 'kitti'"),
    ({"dataset": ["chairs"]}, "dataset has no data set"),
    ({"dataset": {}}, "dataset names no data set"),
    ({"dataset": {"chairs": 0}}, "dataset must be at least 1"),
    ({"dataset": {"chairs": 4, "sintel": 2}}, "batch_size is 8 but dataset adds up to 6"),
    ({"batch_size": "8"}, "batch_size must be a number"),
    ({"batch_size": 7.5}, "batch_size must be a whole number"),
    ({"batch_size": float("inf")}, "batch_size must be a finite number"),
    ({"batch_size": True}, "batch_size must be a number"),
    ({"orig_shape": 384}, r"orig_shape must be \[height, width\]"),
    ({"orig_shape": [384, 512, 3]}, r"orig_shape must be \[height, width\]"),
    ({"target_shape": [320, 450]}, "target_shape must be multiples of 64"),
    ({"resize": [300, 512]}, "orig_shape is larger than resize"),
    ({"augmentation": None}, "without augmentation target_shape must be orig_shape"),
    (
        {"augmentation": None, "orig_shape": [384, 512], "target_shape": [384, 512], "echo": 2},
        "echo repeats the very same step",
    ),
    ({"echo": 0}, "echo must be at least 1"),
    ({"augmentation": 3}, "augmentation must hold keys and values"),
    ({"augmentation": {"rotations": 17}}, "augmentation .*rotations, did you mean 'rotation'"),
    ({"augmentation": {"rotation": 17}}, "augmentation .*'zoom' is missing"),
    ({"validation": "sintel"}, "validation must be a list"),
    ({"validation": ["sintle"]}, "validation .*'sintle', did you mean 'sintel'"),
    ({"validation": ["things3d"]}, "validation cannot have things3d"),
    ({"validation": ["sintel", "sintel"]}, "validation names sintel twice"),
    ({"validation_split": {"sintel": "test"}}, "validation_split must be one of train, val, all"),
    ({"validation_split": {"hd1k": "val"}}, "validation_split has hd1k"),
    ({"training_split": {"sintel": "train"}}, "training_split has sintel"),
    ({"passes": {"chairs": ["clean"]}}, "passes cannot name passes of chairs"),
    ({"passes": {"sintel": ["albedo"]}}, "passes must be one of clean, final"),
    ({"passes": {"sintel": ["clean", "clean"]}}, "passes must list"),
    ({"validation_steps": 0}, "validation_steps must be at least 1"),
    ({"checkpoint_steps": None}, "checkpoint_steps must be a number"),
    ({"synthetic": {"lenght": 3}}, "unknown key synthetic.lenght, did you mean 'length'"),
    ({"synthetic": {"seed": -1}}, "synthetic.seed must be at least 0"),
    ({"synthetic": {"textures": 3}}, "synthetic.textures must be a folder"),
    ({"synthetic": {"scenes": {"fog": 0.1}}}, "synthetic.scenes .*fog, did you mean 'fog_share'"),
    ({"synthetic": {"scenes": {"fog_share": 2}}}, "synthetic.scenes .*fog_share is 2"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=lambda value: str(value)[:50])
def test_lesson_16_mistakes_name_the_file_and_the_key(tmp_path, changes, message):
    with pytest.raises(UserError, match=rf"own\.yaml: .*{message}") as caught:
        load_data_config(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["batch_size", "orig_shape", "target_shape", "augmentation"])
def test_missing_keys(tmp_path, key):
    with pytest.raises(UserError, match=f"own.yaml: the key {key} is missing"):
        load_data_config(write(tmp_path, remove=(key,)))


def test_a_network_config_is_no_dataset_config():
    with pytest.raises(UserError, match="MaskFlownet.yaml is no dataset config"):
        load_data_config("MaskFlownet.yaml")


def test_lesson_23_reading_a_config_imports_no_mxnet():
    code = (
        "import sys; from engine.data_config import load_data_config; import engine.datasets; "
        "load_data_config('chairs'); sys.exit('mxnet' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
