"""Network configs: the shipped ones, and every mistake by file, key and nearest key."""

import pytest
from maskflownet.errors import UserError
from maskflownet.settings.configs import CONFIGS, find_config, load_network_config

NETWORK_CONFIGS = sorted(
    path.name
    for path in CONFIGS.glob("MaskFlownet*.yaml")
    if not any(own in path.name for own in ("_small", "_synthetic"))
)
GOOD = "network: {class: MaskFlownet}\noptimizer: {learning_rate: [[10, 1.0e-4], [20, 5.0e-5]]}\n"


def test_the_eight_of_the_authors_are_shipped():
    suffixes = ("", "_ft", "_sintel", "_kitti")
    names = [f"{net}{end}.yaml" for net in ("MaskFlownet", "MaskFlownet_S") for end in suffixes]
    assert sorted(names) == NETWORK_CONFIGS


@pytest.mark.parametrize("name", NETWORK_CONFIGS)
def test_shipped_configs(name):
    config = load_network_config(name)
    assert config.network.class_ == ("MaskFlownet_S" if "_S" in name else "MaskFlownet")
    assert config.network.pyramid == "paper"
    assert config.network.mw == (0.005, 0.01, 0.02, 0.08, 0.32)
    assert config.optimizer.q == (0.4 if "sintel" in name or "kitti" in name else None)
    assert config.optimizer.wd == 0
    last = {"_ft": 500, "_sintel": 1000, "_kitti": 300}
    steps = next((n for end, n in last.items() if end in name), 1200 if "_S" in name else 800)
    assert config.optimizer.learning_rate[-1][0] == steps * 1000


def test_values_of_one_schedule():
    assert load_network_config("MaskFlownet_S").optimizer.learning_rate == (
        (400_000, 1e-4), (600_000, 5e-5), (800_000, 2.5e-5), (1_000_000, 1.25e-5),
        (1_200_000, 6.25e-6),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "lerning: 1\n", "unknown key lerning"),
        (GOOD.replace("class", "clas"), "unknown key network.clas, did you mean 'class'"),
        (GOOD.replace("MaskFlownet}", "Maskflownet}"), "network.class must be one of"),
        (GOOD.replace("class: MaskFlownet", ""), "key network.class is missing"),
        (GOOD.split("\n", maxsplit=1)[0], "key optimizer is missing"),
        (GOOD.replace("1.0e-4", "1e-4"), "YAML wants a dot"),
        (GOOD.replace("20", "5"), "needs growing steps"),
        (GOOD.replace("20", "20.5"), "whole steps"),
        (GOOD.replace("[20, 5.0e-5]", "20"), r"\[last step, rate\] pairs"),
        (GOOD.replace("5.0e-5", "-1"), "above 0"),
        (GOOD.replace("5.0e-5", "true"), "must be a number"),
        (GOOD.replace("class:", "mw: [1, 2], class:"), "network.mw must be a list of 5"),
        (GOOD.replace("class:", "pyramid: both, class:"), "paper, released"),
        (GOOD.replace("{learning", "{wd: heavy, learning"), "optimizer.wd must be a number"),
        ("network: {class: [", "not valid YAML at line"),
        ("x: 2020-13-45\n", "not valid YAML"),
        (GOOD + "network: {class: MaskFlownet}\n", "the key network stands twice, for the second"),
        ("network:\n  class: MaskFlownet\n  class: x\n", "key class stands twice.* at line 3$"),
        ("[" * 3000, "not valid YAML"),
        (GOOD.replace("10,", ".inf,"), "finite number"),
        (GOOD.replace("5.0e-5", ".nan"), "finite number"),
        (GOOD.replace("5.0e-5", "9" * 400), "finite number, not one of that many digits"),
        ("- network\n", "does not hold keys and values"),
        ("dataset: chairs\n", "is no network config"),
        ("network: {class: MaskFlownet}\noptimizer: fast\n", "optimizer must hold keys"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_network_config(path)
    assert "mine.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_configs_are_found_by_name_and_path(tmp_path):
    assert find_config("MaskFlownet_S") == find_config("MaskFlownet_S.yaml")
    mine = tmp_path / "mine.yaml"
    mine.write_text(GOOD)
    assert find_config(str(mine)) == mine
    with pytest.raises(UserError, match=r"did you mean 'MaskFlownet_ft\.yaml'"):
        find_config("MaskFlownet_fd")
