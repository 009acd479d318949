"""Time of the exported models on the CPU, beside both engines in turn.

    python -m maskflownet.benchmarks.onnx_model [--size 448,1024] [--repeats 11]

From uint8 images to flow and mask at full size: what a user waits for. The weights are random.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch
from maskflownet.benchmarks.inference import NETWORKS, seconds
from maskflownet.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from maskflownet.engine.contract import Sizing
from maskflownet.engine.load import load_engine, make_engine
from maskflownet.settings.cli import Parser, count, height_width, run
from maskflownet.settings.configs import ENGINES, load_network_config
from maskflownet.tools.onnx_export import export_onnx


def main(arguments):
    parser = Parser(prog="onnx_model.py", description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=height_width, default=(448, 1024), metavar="H,W")
    parser.add_argument("--repeats", type=count, default=11)
    args = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    images = np.random.default_rng(0).integers(0, 256, (2, 1, *args.size, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for network in NETWORKS:
            config, path = load_network_config(network), Path(folder) / f"{network}.params"
            fresh = make_engine(config, engine="torch")
            save_checkpoint(path, fresh.parameters(), fresh.record)
            checkpoint = read_checkpoint(path)
            model = export_onnx(path.with_suffix(".onnx"), config, checkpoint, Sizing(args.size)).path
            session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
            arrays = dict(zip(("img1", "img2"), images.transpose(0, 1, 4, 2, 3) / np.float32(255)))
            engines = [load_engine(config, checkpoint, engine=name) for name in ENGINES]
            torch.set_num_threads(threads)  # MXNet's import halves them
            calls = {name: lambda e=e: e.predict(*images, warped=False) for name, e in zip(ENGINES, engines)}
            calls["onnxruntime"] = lambda: session.run(None, arrays)  # noqa: B023 - called in this turn
            times = [{name: seconds(call) for name, call in calls.items()} for _ in range(args.repeats + 1)][1:]
            for name in calls:
                print(f"{network} {name}: {1000 * median(turn[name] for turn in times):.0f} ms", flush=True)


if __name__ == "__main__":
    sys.exit(run(main))
