"""Training on one, two and more GPUs of a machine: samples per second at one batch per GPU.

    python -m maskflownet.benchmarks.scaling [--gpus 1,2,4] [--config MaskFlownet_S] [--batch 8] [--workers 6]

Each number of GPUs is a run of main.py as a user starts it, on files in FlyingChairs' layout (a
dummy set of its picture size, smooth noise), read, cropped and augmented as in training. The rate
is that of the log between two steps, so without start and compilation.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from maskflownet.benchmarks.loader import make_chairs
from maskflownet.errors import UserError
from maskflownet.settings.cli import Parser, count, run
from maskflownet.settings.folders import ROOT
from maskflownet.settings.schema import yaml_text

FROM = 100  # step; at the ones before, graphs are captured and caches fill


def train(args, folder: Path, gpus: int, chairs: Path) -> float:
    """Samples per second of a run."""
    processes, output, data = max(gpus, 1), folder / f"gpus{gpus}", folder / "data.yaml"
    batch = args.batch * processes
    config = {"base": "chairs.yaml", "batch_size": batch, "validation": [], "checkpoint_steps": 10 * args.steps}
    if args.crop:
        config["target_shape"] = [args.crop, args.crop]
    data.write_text(yaml_text(config))
    command = [sys.executable, "main.py", args.config, "--engine", "torch", "--dataset_cfg", data]
    command += ["--steps", args.steps, "--workers", args.workers * processes]
    command += ["--data_root", f"chairs={chairs}", "--output_root", output]
    if gpus:
        command += ["-g", ",".join(map(str, range(gpus))), "--precision", args.precision]
    if args.checkpoint:
        command += ["-c", args.checkpoint, "--clear_steps"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the run on {gpus} GPUs failed: {done.stderr.strip().splitlines()[-1]}")
    (log,) = (output / "logs").glob("*.log")
    times = dict(re.findall(r"steps=(\d+),.*total_time=([\d.]+)", log.read_text()))
    return batch * (args.steps - FROM) / (float(times[str(args.steps)]) - float(times[str(FROM)]))


def main(arguments):
    parser = Parser(prog="scaling.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--gpus", default="1,2", metavar="N,N,...", help="numbers of GPUs, 0 = the CPU; the first is compared with")
    add("--config", default="MaskFlownet_S")
    add("-c", "--checkpoint", help="to start from, such as the head of a MaskFlownet")
    add("--batch", type=count, default=8, help="samples per GPU")
    add("--steps", type=count, default=600)
    add("--workers", type=count, default=6, help="reading processes per GPU")
    add("--precision", default="bf16")
    add("--crop", type=count, help="px, square instead of 320x448")
    args = parser.parse_args(arguments)
    if args.steps <= FROM or args.steps % 50:
        raise UserError(f"--steps must be a multiple of 50 above {FROM}, where the log has a line")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chairs = make_chairs(folder / "chairs", 256)
        first = None
        for gpus in map(int, args.gpus.split(",")):
            rate = train(args, folder, gpus, chairs)
            first = first or rate
            what = f"{args.config} {args.precision}, {gpus}" if gpus else f"{args.config} on the CPU, 1"
            print(f"{what} x {args.batch} samples: {rate:.4g} samples/s, {rate / first:.2f} times", flush=True)


if __name__ == "__main__":
    sys.exit(run(main))
