"""Write the graphs of configs to `network/graphs/`, for machines without MXNet.

python -m maskflownet.tools.export_graphs                        those of all configs in config_folder/
python -m maskflownet.tools.export_graphs CONFIG DATASET_CONFIG  those of a run
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from maskflownet.engine.graphs import GRAPHS, graph_path, graph_text
from maskflownet.network.architecture import PYRAMIDS
from maskflownet.settings.cli import Parser, run
from maskflownet.settings.configs import DataConfig, NetworkConfig, load_network_config, read_config
from maskflownet.settings.datasets import load_data_config
from maskflownet.settings.folders import CONFIGS


def needed_graphs(networks: Iterable[NetworkConfig], data: Iterable[DataConfig]) -> list:
    """Kind and settings of every graph that runs with these configs may need."""
    graphs = [("metric", {}), ("colour", {})]
    for config in networks:
        network = config.network
        for pyramid in PYRAMIDS:  # a checkpoint's record may say either
            settings = {"network": network.class_, "flow_multiplier": network.flow_multiplier}
            graphs.append(("network", {**settings, "pyramid": pyramid}))
        graphs.append(("loss", {"weights": network.mw, "q": config.optimizer.q}))
    graphs += [("geometry", {"target": config.target_shape}) for config in data if config.augmentation is not None]
    return graphs


def shipped_graphs() -> list:
    networks, data = [], []
    for path in sorted(CONFIGS.glob("*.yaml")):
        content = read_config(path)
        stages = content.get("stages", [{key: path for key in ("network", "dataset") if key in content}])
        networks += [load_network_config(stage["network"], path) for stage in stages if "network" in stage]
        data += [load_data_config(stage["dataset"], path) for stage in stages if "dataset" in stage]
    return needed_graphs(networks, data)


def main(arguments: list[str]) -> None:
    parser = Parser(description="Write the graphs that --engine torch reads where MXNet is not installed.")
    add = parser.add_argument
    add("config", nargs="?", metavar="CONFIG", help="network config; default: all shipped configs")
    add("dataset_config", nargs="?", metavar="DATASET_CONFIG", help="to train with")
    add("--folder", type=Path, default=GRAPHS, metavar="DIR", help="(default: network/graphs)")
    args = parser.parse_args(arguments)
    if args.config is None:
        graphs = shipped_graphs()
    else:
        data = [load_data_config(args.dataset_config)] if args.dataset_config else []
        graphs = needed_graphs([load_network_config(args.config)], data)
    texts = {graph_path(kind, args.folder, **settings): graph_text(kind, **settings) for kind, settings in graphs}
    args.folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {len(text) / 1000:.1f} kB")


if __name__ == "__main__":
    sys.exit(run(main))
