"""How fast training comes on one, two and more GPUs with the real loader.

    python -m maskflownet.benchmarks.loader [--gpus 1,2,4] [--config MaskFlownet_S] [--batch 8] [--workers 6]

Each number of GPUs is a run of main.py as a user starts it, at one batch per GPU, on dummies of FlyingChairs (smooth
noise, which decodes somewhat faster than photographs; files come from the page cache), read, cropped and augmented as
in training. The rate is that of the log between two steps, so without start and compilation.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.flying import SPLIT_FILE
from maskflownet.reader.formats import write_flo, write_image
from maskflownet.settings.cli import Parser, count, run, whole_number
from maskflownet.settings.folders import ROOT
from maskflownet.settings.schema import yaml_text

FROM = 100  # step of training; at the ones before, graphs are captured and caches fill


def make_chairs(root: Path, pairs: int, size=(384, 512)) -> Path:
    """Write so many training pairs in FlyingChairs' layout: four of smooth noise, the others links to them."""
    data, rng = root / "data", np.random.default_rng(0)
    data.mkdir(parents=True)
    for i in range(1, pairs + 1):
        for end in ("img1.ppm", "img2.ppm", "flow.flo"):
            path, first = data / f"{i:05d}_{end}", data / f"{(i - 1) % 4 + 1:05d}_{end}"
            if i > 4:
                os.link(first, path)
            elif end == "flow.flo":
                write_flo(path, rng.normal(0, 9, (*size, 2)).astype(np.float32))
            else:
                write_image(path, cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), size[::-1]))
    (root / SPLIT_FILE).write_text("1\n" * pairs)
    return root


def train(args, folder: Path, gpus: int, chairs: Path) -> float:
    """Samples per second of a run of main.py."""
    processes, output, data = max(gpus, 1), folder / f"gpus{gpus}", folder / "data.yaml"
    batch = args.batch * processes
    config = {"base": "chairs.yaml", "batch_size": batch, "validation": [], "checkpoint_steps": 10 * args.steps}
    data.write_text(yaml_text(config))
    command = [sys.executable, "main.py", args.config, "--engine", "torch", "--dataset_cfg", data]
    command += ["--steps", args.steps, "--workers", args.workers * processes]
    command += ["--data_root", f"chairs={chairs}", "--output_root", output]
    if gpus:
        command += ["-g", ",".join(map(str, range(gpus))), "--precision", args.precision]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the run on {gpus} GPUs failed: {done.stderr.strip().splitlines()[-1]}")
    (log,) = (output / "logs").glob("*.log")
    times = dict(re.findall(r"steps=(\d+),.*total_time=([\d.]+)", log.read_text()))
    return batch * (args.steps - FROM) / (float(times[str(args.steps)]) - float(times[str(FROM)]))


def numbers(text: str) -> list[int]:
    return [whole_number(part) for part in text.split(",")]


def main(arguments):
    parser = Parser(prog="loader.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--gpus", type=numbers, default=[1], metavar="N,N,...", help="numbers of GPUs, 0: the CPU (default 1)")
    add("--config", default="MaskFlownet_S")
    add("--batch", type=count, default=8, help="samples per GPU")
    add("--workers", type=whole_number, default=6, help="reading processes per GPU")
    add("--steps", type=count, default=600)
    add("--precision", default="bf16")
    args = parser.parse_args(arguments)
    if args.steps <= FROM or args.steps % 50:
        raise UserError(f"--steps must be a multiple of 50 above {FROM}, where the log has a line")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chairs, first = make_chairs(folder / "chairs", 256), None
        for gpus in args.gpus:
            speed = train(args, folder, gpus, chairs)
            first = first or speed
            what = f"{args.config} {args.precision}, {gpus}" if gpus else f"{args.config} on the CPU, 1"
            print(f"{what} x {args.batch} samples: {speed:.4g} samples/s, {speed / first:.2f} times", flush=True)


if __name__ == "__main__":
    sys.exit(run(main))
