"""Configs: the shipped ones hold the published values, files inherit, mistakes name file, key and nearest key."""

import dataclasses
import json
from pathlib import Path

import pytest
from maskflownet.errors import UserError
from maskflownet.settings.configs import AugmentationRanges, find_config, load_network_config, read_config
from maskflownet.settings.datasets import load_data_config
from maskflownet.settings.schema import read_yaml, yaml_text

NETWORK_CONFIGS = {  # last step in thousands
    "MaskFlownet_S": 1200, "MaskFlownet_S_ft": 500, "MaskFlownet_S_sintel": 1000, "MaskFlownet_S_kitti": 300,
    "MaskFlownet": 800, "MaskFlownet_ft": 500, "MaskFlownet_sintel": 1000, "MaskFlownet_kitti": 300,
}  # fmt: skip
FILM = AugmentationRanges(
    rotation=17, zoom=(0.5, 1 / 0.9), aspect=(0.9, 1 / 0.9), translation=0.1, relative_rotation=17 / 4,
    relative_translation=0.1 / 4, relative_scale=(0.96, 1 / 0.96), contrast=(-0.4, 0.8), brightness=0.1,
    gain=(0.8, 1.4), noise=0.04, saturation=0.5, hue=0.5,
)  # fmt: skip
SINTEL = dataclasses.replace(FILM, zoom=(1 / 1.5, 1 / 0.9), noise=0)
STREET = AugmentationRanges(
    rotation=5, zoom=(1 / 1.25, 1 / 0.95), aspect=(0.95, 1 / 0.95), translation=0.05, relative_rotation=5 / 4,
    relative_translation=0.05 / 4, relative_scale=(0.98, 1 / 0.98), contrast=(-0.2, 0.4), brightness=0.05,
    gain=(0.9, 1.2), noise=0.02, saturation=0.25, hue=0.1, gamma=(-0.5, 0.5),
)  # fmt: skip
PUBLISHED = {  # dataset, target, original, resize, augmentation
    "chairs": ({"chairs": 8}, (320, 448), (384, 512), None, FILM),
    "things3d": ({"things3d": 4}, (384, 768), (540, 960), None, FILM),
    "sintel": ({"sintel": 4}, (384, 768), (436, 1024), None, SINTEL),
    "sintel_kitti2015_hd1k": ({"sintel": 2, "kitti2015": 1, "hd1k": 1}, (320, 768), (436, 1024), (436, 1024), SINTEL),
    "kitti": ({"kitti": 4}, (320, 896), (576, 1280), (576, 1280), STREET),
    "synthetic": ({"synthetic": 8}, (320, 448), (384, 512), None, FILM),
}


@pytest.mark.parametrize("name", NETWORK_CONFIGS)
def test_shipped_network_configs(name):
    config = load_network_config(name)
    assert config.network.class_ == ("MaskFlownet_S" if "_S" in name else "MaskFlownet")
    assert config.network.pyramid == "paper"
    assert config.network.mw == (0.005, 0.01, 0.02, 0.08, 0.32)
    assert config.optimizer.q == (0.4 if "sintel" in name or "kitti" in name else None)
    assert config.optimizer.wd == 0
    assert config.optimizer.learning_rate[-1][0] == NETWORK_CONFIGS[name] * 1000
    assert config.path.stem == name
    expected = ((400_000, 1e-4), (600_000, 5e-5), (800_000, 2.5e-5), (1_000_000, 1.25e-5), (1_200_000, 6.25e-6))
    assert load_network_config("MaskFlownet_S").optimizer.learning_rate == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_shipped_dataset_configs(name):
    config = load_data_config(name)
    dataset, target, original, resize, augmentation = PUBLISHED[name]
    assert list(config.dataset.items()) == list(dataset.items())  # the order of a batch
    assert config.batch_size == sum(dataset.values())
    assert (config.target_shape, config.orig_shape, config.resize) == (target, original, resize)
    assert (config.validation_steps, config.checkpoint_steps) == (2500, 5000)
    for key, value in dataclasses.asdict(augmentation).items():
        found = getattr(config.augmentation, key)
        assert found == (None if value is None else pytest.approx(value, rel=1e-12)), key


def write(folder, text, name="own.yaml"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_configs_are_found_by_name_and_path(tmp_path):
    assert find_config("MaskFlownet_S") == find_config("MaskFlownet_S.yaml")
    mine = write(tmp_path, "")
    assert find_config(str(mine)) == mine
    with pytest.raises(UserError, match=r"did you mean 'MaskFlownet_ft\.yaml'"):
        find_config("MaskFlownet_fd")


def test_a_base_is_joined_with_what_stands_above_it(tmp_path):
    """Mappings are joined, at any depth and over several files; lists and all else are replaced."""
    write(tmp_path, "base: chairs\nvalidation: [chairs]\naugmentation: {hue: 0.1}\n", "lab/middle.yaml")
    path = write(tmp_path, "base: lab/middle.yaml\nbatch_size: 2\naugmentation: {zoom: [0.9, 1.1]}\n")
    config, chairs = load_data_config(path), load_data_config("chairs")
    assert config.augmentation == dataclasses.replace(chairs.augmentation, hue=0.1, zoom=(0.9, 1.1))
    assert (config.validation, config.batch_size, config.dataset) == (("chairs",), 2, {"chairs": 2})
    assert "base" not in config.content and config.content["augmentation"]["hue"] == 0.1
    assert config.content["orig_shape"] == [384, 512]
    off = load_data_config(write(tmp_path, "base: chairs\naugmentation: null\ntarget_shape: [384, 512]\n"))
    assert off.augmentation is None


def test_a_base_beside_the_file_comes_before_one_in_config_folder(tmp_path):
    write(tmp_path, "base: kitti.yaml\nbatch_size: 3\n", "chairs.yaml")
    own = write(tmp_path, "base: chairs\n")
    assert load_data_config(own).dataset == {"kitti": 3}
    link = tmp_path / "elsewhere" / "link.yaml"
    link.parent.mkdir()
    link.symlink_to(own)
    assert load_data_config(link).dataset == {"kitti": 3}


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("own.yaml", "base own.yaml leads back to"),
        ("other", "other.yaml: base own.yaml leads back to .*own.yaml"),
        ("charis", "own.yaml: base: no config charis, did you mean 'chairs.yaml'"),
        ("[chairs]", "own.yaml: base must be the name or path of a config, not"),
        ("MaskFlownet", "own.yaml is no dataset config"),
    ],
)
def test_a_wrong_base_is_one_sentence(tmp_path, base, message):
    write(tmp_path, "base: own.yaml\n", "other.yaml")
    with pytest.raises(UserError, match=message) as error:
        load_data_config(write(tmp_path, f"base: {base}\n"))
    assert "\n" not in str(error.value)


def test_changes_and_defaults(tmp_path):
    path = changed(
        tmp_path, remove=("validation", "validation_steps", "checkpoint_steps"), batch_size=6, augmentation=None,
        dataset={"chairs": 3, "things3d": 2, "pairs": 1}, passes={"things3d": ["clean", "final"]},
        synthetic={"textures": "photos", "scenes": {"max_objects": 4}}, target_shape=[384, 512],
    )  # fmt: skip
    config = load_data_config(path)
    assert config.augmentation is None and config.path == tmp_path / "own.yaml"
    assert (config.validation, config.validation_steps, config.checkpoint_steps) == ((), 2500, 5000)
    assert config.passes == {"things3d": ("clean", "final")}
    assert config.textures == tmp_path / "photos"
    assert config.synthetic.scenes.max_objects == 4


def changed(folder, of="chairs", remove=(), **changes):
    content = {**read_config(find_config(of)), **changes}
    return write(folder, yaml_text({key: value for key, value in content.items() if key not in remove}))


GOOD = "network: {class: MaskFlownet}\noptimizer: {learning_rate: [[10, 1e-4], [2e1, 5.0e-5]]}\n"


def test_numbers_with_exponents_are_numbers(tmp_path):
    """YAML 1.1, and so PyYAML, takes 1e-4 for a text."""
    rates = load_network_config(write(tmp_path, GOOD)).optimizer.learning_rate
    assert rates == ((10, 1e-4), (20, 5e-5)) and isinstance(rates[1][0], int)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "lerning: 1\n", "unknown key lerning"),
        (GOOD + "path: x\n", "unknown key path"),
        (GOOD.replace("class", "clas"), "unknown key network.clas, did you mean 'class'"),
        (GOOD.replace("MaskFlownet}", "Maskflownet}"), "network.class must be one of .*did you mean 'MaskFlownet'"),
        (GOOD.replace("class: MaskFlownet", ""), "key network.class is missing"),
        (GOOD.replace("2e1", "5"), "learning_rate needs growing steps, but 5 follows 10"),
        (GOOD.replace("2e1", "20.5"), "whole steps"),
        (GOOD.replace("[2e1, 5.0e-5]", "20"), r"\[last step, rate\] pairs"),
        (GOOD.replace("5.0e-5", "-1"), "above 0"),
        (GOOD.replace("5.0e-5", "true"), "learning_rate must be a list"),
        (GOOD.replace("class:", "mw: [1, 2], class:"), "network.mw must be a list of 5"),
        (GOOD.replace("class:", "pyramid: both, class:"), "pyramid must be one of paper, released, not 'both'"),
        (GOOD.replace("class:", "pyramid: released, initial: head, class:"), "initial: head, which needs pyramid"),
        (GOOD.replace("{learning", "{wd: heavy, learning"), "optimizer.wd must be a number, not 'heavy'"),
        (GOOD.replace("{learning", "{wd: .inf, learning"), "optimizer.wd must be a finite number, not inf"),
        (GOOD.replace("{learning", "{q: 0, learning"), "optimizer.q must be above 0, not 0"),
        (GOOD.replace("{learning", f"{{q: {'9' * 400}, learning"), "q must be a finite number, not 9{80}"),
        ("network: {class: [", "not valid YAML at line"),
        ("x: 2020-13-45\n", "not valid YAML"),
        ("network: !!python/object/apply:os.mkdir [owned]\n", "not valid YAML at line 1"),
        (GOOD + "network: {class: MaskFlownet}\n", "the key network stands twice, for the second time at line 3"),
        ("network:\n  class: MaskFlownet\n  class: x\n", "key class stands twice.* at line 3$"),
        ("[" * 3000, "not valid YAML"),
        (GOOD.replace("MaskFlownet", "!!int ''"), "own.yaml is not valid YAML"),
        ("x: " + "y" * 10**6, "own.yaml is no config or record: it has more than 1000000 characters"),
        ("network: &a [*a]\n", "own.yaml is not usable YAML: more than 100000 values"),
        (GOOD.replace("10,", ".inf,"), "whole steps"),
        ("- network\n", "does not hold keys and values"),
        ("dataset: chairs\n", "is no network config"),
        ("network: {class: MaskFlownet}\noptimizer: fast\n", "optimizer must hold keys and values, not 'fast'"),
    ],
)
def test_mistakes_in_a_network_config(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        load_network_config(write(tmp_path, text))
    assert "own.yaml" in str(error.value)
    assert "\n" not in str(error.value)
    assert not Path("owned").exists()  # no code of a file is run, nor of a record, which is read by the same function


WRONG = [
    ({"batchsize": 8}, "unknown key batchsize, did you mean 'batch_size'"),
    ({"dataset": "chair"}, "dataset has no data set 'chair', did you mean 'chairs'"),
    ({"dataset": {}}, "dataset must not be empty"),
    ({"dataset": {"chairs": 0}}, "dataset.chairs must be at least 1"),
    ({"dataset": {"chairs": 4, "sintel": 2}}, "batch_size is 8 but dataset adds up to 6"),
    ({"batch_size": "8"}, "batch_size must be a whole number, not '8'"),
    ({"batch_size": float("inf")}, "batch_size must be a whole number, not inf"),
    ({"orig_shape": 384}, r"orig_shape must be \[height, width\] in px, each at least 2, not 384"),
    ({"orig_shape": [1, 512]}, r"orig_shape must be .* each at least 2, not \[1, 512\]"),
    ({"target_shape": [320, 450]}, "target_shape must be multiples of 64"),
    ({"resize": [300, 512]}, "orig_shape is larger than resize"),
    ({"augmentation": None}, "without augmentation target_shape must be orig_shape"),
    ({"augmentation": None, "target_shape": [384, 512], "echo": 2}, "echo repeats the very same step"),
    ({"augmentation": 3}, "augmentation must hold keys and values"),
    ({"augmentation": {"rotations": 17}}, "unknown key augmentation.rotations, did you mean 'rotation'"),
    ({"augmentation": {"rotation": 17}}, "key augmentation.zoom is missing"),
    ({"augmentation": {**dataclasses.asdict(FILM), "rotation": 91}}, "augmentation.rotation must be at most 90"),
    ({"augmentation": {**dataclasses.asdict(FILM), "zoom": [2, 1]}}, "augmentation.zoom is .*low exceeds its high"),
    ({"augmentation": {**dataclasses.asdict(FILM), "zoom": 1.0}}, r"augmentation.zoom must be a pair \[low, high\]"),
    ({"augmentation": {**dataclasses.asdict(FILM), "gain": [None, 1]}}, "augmentation.gain must be .* at least 0, not"),
    ({"validation_samples": -1}, "validation_samples must be at least 0"),
    ({"validation": "sintel"}, "validation must be a list, not 'sintel'"),
    ({"validation": ["sintle"]}, "validation .*'sintle', did you mean 'sintel'"),
    ({"validation": ["things3d"]}, "validation cannot have things3d"),
    ({"validation": ["sintel", "sintel"]}, "validation names sintel twice"),
    ({"validation_split": {"sintel": "test"}}, "validation_split of sintel must be one of train, val, all, not 'test'"),
    ({"validation_split": {"hd1k": "val"}}, "validation_split has hd1k"),
    ({"training_split": {"sintel": "train"}}, "training_split has sintel"),
    ({"passes": {"chairs": ["clean"]}}, "passes cannot name passes of chairs"),
    ({"passes": {"sintel": ["albedo"]}}, "passes of sintel must be one of clean, final, not 'albedo'"),
    ({"passes": {"sintel": ["clean", "clean"]}}, "passes.sintel names clean twice"),
    ({"synthetic": {"length": 10**9}}, "synthetic.length must be at most 100000000, not 1000000000"),
    ({"synthetic": {"size": [8, 64]}}, "synthetic.size is at least 16 px a side"),
    ({"synthetic": {"scenes": {"motion_scale": 1e12}}}, "synthetic.scenes.motion_scale must be at most 1000"),
    ({"synthetic": {"seed": 1e30}}, "synthetic.seed must be at most"),
    ({"orig_shape": [1e6, 64]}, r"orig_shape must be \[height, width\] in px"),
    ({"synthetic": {"scenes": {"fog": 0.1}}}, "unknown key synthetic.scenes.fog, did you mean 'fog_share'"),
    ({"synthetic": {"scenes": {"min_objects": 11}}}, "synthetic.scenes min_objects is 11, above max_objects"),
    *(({key: ...}, f"key {key} is missing") for key in ("batch_size", "orig_shape", "target_shape", "augmentation")),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=lambda value: str(value)[:50])
def test_mistakes_in_a_dataset_config(tmp_path, changes, message):
    """Every key does what it says or is refused, by its name and its file's."""
    remove = [key for key, value in changes.items() if value is ...]
    changes = {} if remove else json.loads(json.dumps(changes))
    with pytest.raises(UserError, match=rf"own\.yaml: .*{message}") as caught:
        load_data_config(changed(tmp_path, remove=remove, **changes))
    assert "\n" not in str(caught.value)


def test_a_mapping_written_is_a_mapping_read(tmp_path):
    content = {"z": [1e-5, 2, None, True], "a": {"text": "1e5", "no": "no", "long": "word " * 60, "umlaut": "ü"}}
    path = write(tmp_path, yaml_text(content))
    assert read_yaml(path) == content and list(read_yaml(path)) == ["z", "a"]
    assert "1.0e-05" in path.read_text()  # for PyYAML
