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

from maskflownet.errors import UserError
from maskflownet.settings.cli import Parser, count, run
from maskflownet.settings.datasets import load_data_config
from maskflownet.settings.folders import ROOT
from maskflownet.settings.schema import yaml_text

from tests import trees

FROM = 100  # step; at the ones before, graphs are captured and caches fill


def samples_per_second(log: Path, batch: int, end: int) -> float:
    times = {
        int(step): float(seconds) for step, seconds in re.findall(r"steps=(\d+),.*total_time=([\d.]+)", log.read_text())
    }
    return batch * (end - FROM) / (times[end] - times[FROM])


def train(args, folder: Path, gpus: int, chairs: Path) -> float:
    """Samples per second of a run."""
    config = {**load_data_config("chairs").content}
    batch = args.batch * gpus
    config.update(batch_size=batch, validation=[], checkpoint_steps=10 * args.steps)
    data = folder / "data.yaml"
    data.write_text(yaml_text(config))
    command = [sys.executable, str(ROOT / "main.py"), args.config, "--engine", "torch"]
    command += ["--dataset_cfg", str(data), "-g", ",".join(map(str, range(gpus)))]
    command += ["--precision", args.precision, "--steps", str(args.steps)]
    command += ["--workers", str(args.workers * gpus), "--data_root", f"chairs={chairs}"]
    output = folder / f"gpus{gpus}"
    command += ["--output_root", str(output)]
    if args.checkpoint:
        command += ["-c", args.checkpoint, "--clear_steps"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the run on {gpus} GPUs failed: {done.stderr.strip().splitlines()[-1]}")
    (log,) = (output / "logs").glob("*.log")
    return samples_per_second(log, batch, args.steps)


def main(arguments):
    parser = Parser(prog="scaling.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--gpus", default="1,2", metavar="N,N,...", help="numbers of GPUs, the first one compared")
    add("--config", default="MaskFlownet_S")
    add("-c", "--checkpoint", help="to start from, such as the head of a MaskFlownet")
    add("--batch", type=count, default=8, help="samples per GPU")
    add("--steps", type=count, default=600)
    add("--workers", type=count, default=6, help="reading processes per GPU")
    add("--precision", default="bf16")
    args = parser.parse_args(arguments)
    if args.steps <= FROM or args.steps % 50:
        raise UserError(f"--steps must be a multiple of 50 above {FROM}, where the log has a line")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chairs = trees.make_chairs(folder / "chairs", 256, 0, (384, 512))
        first = None
        for gpus in map(int, args.gpus.split(",")):
            rate = train(args, folder, gpus, chairs)
            first = first or rate
            print(f"{args.config} {args.precision}, {gpus} x {args.batch} samples: {rate:.0f} "
                  f"samples/s, {rate / first:.2f} times", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
