"""Time of the exported models on the CPU, beside both engines in turn.

    python -m maskflownet.benchmarks.onnx_model [--size 448,1024] [--repeats 11] [--threads 2] [--batch 1]

All from uint8 images to flow and mask at full size: what a user waits for.
"""

import sys
import tempfile
from functools import partial
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


def model_call(path, threads: int):
    """A function from images (N, H, W, 3) uint8 to flow (N, H, W, 2)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)

    def call(*images):
        arrays = (image.transpose(0, 3, 1, 2) / np.float32(255) for image in images)
        flow, _ = session.run(["flow", "mask"], dict(zip(("img1", "img2"), arrays)))
        return flow.transpose(0, 2, 3, 1)

    return call


def engine_call(name: str, config, checkpoint):
    engine = load_engine(config, checkpoint, engine=name)
    return lambda *images: engine.predict(*images, warped=False).flow


def main(arguments):
    parser = Parser(prog="onnx_model.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--size", type=height_width, default=(448, 1024), metavar="H,W")
    add("--repeats", type=count, default=11)
    add("--threads", type=count, default=2, help="of onnxruntime and PyTorch (default 2)")
    add("--batch", type=count, default=1, help="pairs at a time (default 1)")
    args = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    shape = (args.batch, *args.size, 3)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2)]
    print(f"onnxruntime {onnxruntime.__version__}, {args.threads} threads, {args.batch} pair(s) of "
          f"{args.size[0]}x{args.size[1]}, median of {args.repeats}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for network in NETWORKS:
            config = load_network_config(network)
            path = Path(folder) / f"{network}.params"
            fresh = make_engine(config, engine="torch")  # one set of parameters for all
            save_checkpoint(path, fresh.parameters(), fresh.record)
            checkpoint = read_checkpoint(path)
            model = path.with_suffix(".onnx")
            export_onnx(model, config, checkpoint, Sizing(args.size))
            calls = {name: engine_call(name, config, checkpoint) for name in ENGINES}
            torch.set_num_threads(args.threads)  # MXNet's import halves them
            calls["onnx"] = model_call(model, args.threads)
            flows = {name: call(*images) for name, call in calls.items()}
            times: dict = {name: [] for name in calls}
            for repeat in range(args.repeats):
                # In turn, so that none always runs on the warmer machine.
                for name in sorted(calls, reverse=bool(repeat % 2)):
                    times[name].append(seconds(partial(calls[name], *images)))
            for name, taken in times.items():
                difference = np.abs(flows[name] - flows["onnx"]).max()
                print(f"{network} {name}: {1000 * median(taken):.0f} ms, fastest "
                      f"{1000 * min(taken):.0f} ms; the model's flow differs by "
                      f"{difference:.1e} px", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
