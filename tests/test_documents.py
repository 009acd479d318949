"""docs/models.md and docs/datasets.md say what the code and the records say."""

import math
import re

import pytest
from maskflownet.checkpoints.checkpoint import RELEASED, read_record
from maskflownet.engine.graphs import graph_of
from maskflownet.report.curves import with_parents
from maskflownet.settings.configs import load_network_config, load_schedule
from maskflownet.settings.datasets import SETS, load_data_config
from maskflownet.settings.folders import ROOT, SHIPPED, WEIGHTS

ZOO = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
DATASETS = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
NETWORKS = ("MaskFlownet_S", "MaskFlownet")


def shipped():
    """The checkpoints that .gitignore lets into the repository."""
    patterns = re.findall(r"^!/weights/(.+\.\*)$", (ROOT / ".gitignore").read_text(), re.M)
    return [path for p in patterns for path in WEIGHTS.glob(p) if path.suffix == ".params"]


@pytest.mark.parametrize("network", NETWORKS)
def test_the_zoo_has_each_network_with_its_parameters_and_products(network):
    pytest.importorskip("torch")
    from maskflownet.benchmarks.timing import multiply_accumulates  # noqa: PLC0415

    graph = graph_of("network", network=network, flow_multiplier=1.0, pyramid="paper")
    parameters = sum(math.prod(shape) for shape in graph.parameters.values())
    products = multiply_accumulates(network, 448, 1024)
    assert f"| {network} | {parameters:,} | {products / 1e9:.1f} |" in ZOO


def test_the_zoo_has_each_shipped_checkpoint_as_its_record_says():
    assert shipped()
    for path in shipped():
        record = read_record(path)
        (row,) = re.findall(rf"^\| `{path.name}` .*$", ZOO, re.M)
        steps = [f"{curves.end:,} x " for curves in with_parents(ROOT / "logs" / f"{record.run}.log")]
        for said in (
            *steps,
            f"{path.stat().st_size / 1e6:.1f} MB",
            f"| {record.network} |",
            f"{record.step:,} x {record.data['synthetic']}",
            f"| {record.precision} |",
            f"`{record.sha256}`",
        ):
            assert said in row, said
        assert record.sha256 in (WEIGHTS / "README.md").read_text(encoding="utf-8")


def test_the_recipes_last_stage_is_what_the_shipped_weights_were_trained_by():
    path, stages = load_schedule("recipe.yaml")
    network, data = load_network_config(stages[-1].network, path), load_data_config(stages[-1].dataset, path)
    record = read_record(SHIPPED)
    assert (network.content, data.content) == (record.config["network"], record.config["dataset"])
    assert record.config["network"]["optimizer"]["learning_rate"][-1][0] == record.step


def test_the_zoo_has_each_released_file_as_the_table_says():
    for names, facts in RELEASED.items():
        assert f"| {', '.join(f'`{name}`' for name in names)} | {' | '.join(facts)} |" in ZOO


@pytest.mark.parametrize("name", [name for name, cls in SETS.items() if cls.counts and name == cls.root_name])
def test_each_data_set_has_a_chapter_with_its_command_and_counts(name):
    (chapter,) = re.findall(rf"^## {name}:.*?(?=^## |\Z)", DATASETS, re.M | re.S)
    assert f"`python -m maskflownet.tools.check {name}=DIR`" in chapter
    for part, count in SETS[name].counts.items():
        if isinstance(count, int):
            assert re.search(rf"\b{count:,}\b", chapter), part
