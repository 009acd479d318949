"""How fast samples come: of the readers and the training loader, and to training on one, two and more GPUs.

    python -m maskflownet.benchmarks.loader [NAME=DIR ...] [--samples 40] [--memory 2000] [--workers 1,2]
    python -m maskflownet.benchmarks.loader --gpus 1,2,4 [--config MaskFlownet_S] [--batch 8] [--workers 6]

The first measures readers, loader and memory at the data sets' picture sizes. Without NAME=DIR, chairs are dummies:
smooth noise, which decodes somewhat faster than photographs. Sets without a root are left out. Files come from the
page cache, not from a disk.

With --gpus each number of GPUs is a run of main.py as a user starts it, at one batch per GPU, on the dummy chairs,
read, cropped and augmented as in training. The rate is that of the log between two steps, so without start and
compilation.
"""

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.flying import SPLIT_FILE
from maskflownet.reader.formats import write_flo, write_image
from maskflownet.reader.loader import Order, TrainLoader
from maskflownet.reader.sample import random_crop, random_flip, resize_sample
from maskflownet.settings.cli import Parser, count, run, whole_number
from maskflownet.settings.datasets import Roots, load_data_config, parse_roots, training_parts
from maskflownet.settings.folders import ROOT
from maskflownet.settings.schema import yaml_text

CONFIGS = {name: name for name in ("chairs", "things3d", "sintel", "kitti", "synthetic")}
CONFIGS["hd1k"] = "sintel_kitti2015_hd1k"
STOPS = 4  # of the memory's measurement
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


def rate(work, samples: int) -> float:
    """Calls of `work(i)` per second."""
    start = time.perf_counter()
    for i in range(samples):
        work(i)
    return samples / (time.perf_counter() - start)


def reader(name: str, config, dataset, samples: int) -> None:
    """Print what one core reads, and what it reads, resizes, crops and flips."""

    def ready(i):
        sample = dataset[i % len(dataset)]
        sample = resize_sample(sample, *config.resize) if config.resize else sample
        generator = Order().generator(0, i)
        return random_flip(random_crop(sample, *config.orig_shape, generator), generator)

    shapes = ("x".join(map(str, sample.img1.shape[:2])) for sample in (dataset[0], ready(0)))
    read, done = rate(lambda i: dataset[i % len(dataset)], samples), rate(ready, samples)
    print("{:10} {:>10} {:>10}".format(name, *shapes), f"{read:8.1f} {done:8.1f}", flush=True)


def loader(roots: Roots, samples: int, workers: int) -> None:
    """Print how fast batches of chairs.yaml arrive."""
    config = load_data_config("chairs")
    made = TrainLoader(training_parts(config, roots), config.orig_shape, readers=workers)
    with closing(made.batches()) as batches:
        for _ in islice(batches, 5):  # starts the workers and empties what was read ahead
            pass
        speed = config.batch_size * rate(lambda _: next(batches), -(-samples // config.batch_size))
    print(f"batches of chairs.yaml, {workers} workers: {speed:.1f} samples/s", flush=True)


def memory(roots: Roots, samples: int) -> None:
    """Print the resident memory of the loader and its one worker while samples go by (Linux)."""
    config = load_data_config("chairs")
    with closing(TrainLoader(training_parts(config, roots), config.orig_shape, readers=1).batches()) as batches:
        for stop in range(1, STOPS + 1):
            for _ in islice(batches, samples // STOPS // config.batch_size):
                pass
            pids = os.getpid(), *(child.pid for child in multiprocessing.active_children())
            kib = [int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) for pid in pids]
            found = ", ".join(f"{size / 1024:.1f} MiB" for size in kib)
            print(f"resident memory after {samples * stop // STOPS} samples, and its worker's: {found}", flush=True)


def train(args, folder: Path, gpus: int, chairs: Path) -> float:
    """Samples per second of a run of main.py."""
    processes, output, data = max(gpus, 1), folder / f"gpus{gpus}", folder / "data.yaml"
    batch = args.batch * processes
    config = {"base": "chairs.yaml", "batch_size": batch, "validation": [], "checkpoint_steps": 10 * args.steps}
    data.write_text(yaml_text(config))
    command = [sys.executable, "main.py", args.config, "--engine", "torch", "--dataset_cfg", data]
    command += ["--steps", args.steps, "--workers", (args.workers or [6])[0] * processes]
    command += ["--data_root", f"chairs={chairs}", "--output_root", output]
    if gpus:
        command += ["-g", ",".join(map(str, range(gpus))), "--precision", args.precision]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the run on {gpus} GPUs failed: {done.stderr.strip().splitlines()[-1]}")
    (log,) = (output / "logs").glob("*.log")
    times = dict(re.findall(r"steps=(\d+),.*total_time=([\d.]+)", log.read_text()))
    return batch * (args.steps - FROM) / (float(times[str(args.steps)]) - float(times[str(FROM)]))


def scaling(args) -> None:
    """Print the speed of training by the number of GPUs."""
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


def reading(args) -> None:
    """Print the speed of each reader and of the loader, and the loader's memory."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        roots = Roots({"chairs": make_chairs(Path(folder) / "chairs", 40), **parse_roots(args.roots)})
        print(f"{'set':10} {'picture':>10} {'input':>10} {'read/s':>8} {'ready/s':>8}   (one core)")
        for name, config_name in CONFIGS.items():
            config = load_data_config(config_name)
            try:
                dataset = training_parts(config, roots)[list(config.dataset).index(name)][0]
            except UserError as error:
                print(f"{name:10} left out: {error}")
            else:
                reader(name, config, dataset, args.samples)
        for workers in args.workers or (0, 1, 2):
            loader(roots, 4 * args.samples, workers)
        memory(roots, args.memory)


def numbers(text: str) -> list[int]:
    return [whole_number(part) for part in text.split(",")]


def main(arguments):
    parser = Parser(prog="loader.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("roots", nargs="*", metavar="NAME=DIR", help="also read this set")
    add("--samples", type=count, default=40, help="samples per measurement")
    add("--memory", type=count, default=2000, help="samples of the memory's")
    add(
        "--workers",
        type=numbers,
        metavar="N,N,...",
        help="numbers of workers to measure (default 0,1,2); with --gpus one, per GPU (default 6)",
    )
    train = parser.add_argument_group("training")
    add = train.add_argument
    add("--gpus", type=numbers, metavar="N,N,...", help="numbers of GPUs, 0 = the CPU; the first is compared with")
    add("--config", default="MaskFlownet_S")
    add("--batch", type=count, default=8, help="samples per GPU")
    add("--steps", type=count, default=600)
    add("--precision", default="bf16")
    args = parser.parse_args(arguments)
    (scaling if args.gpus else reading)(args)


if __name__ == "__main__":
    sys.exit(run(main))
