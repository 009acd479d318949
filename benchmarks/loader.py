"""Speed and memory of the readers and of the training loader, at the data sets' picture sizes.

python -m maskflownet.benchmarks.loader [NAME=DIR ...] [--samples 40] [--memory 2000] [--workers 1,2]

Without NAME=DIR, chairs are dummies: smooth noise, which decodes somewhat faster than photographs. Sets without a
root are left out. Files come from the page cache, not from a disk.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.formats import write_flo, write_image
from maskflownet.reader.loader import Order, TrainLoader
from maskflownet.reader.sample import random_crop, random_flip, resize_sample
from maskflownet.settings.cli import Parser, count, run
from maskflownet.settings.datasets import Roots, load_data_config, parse_roots, training_parts

CONFIGS = {name: name for name in ("chairs", "things3d", "sintel", "kitti", "synthetic")}
CONFIGS["hd1k"] = "sintel_kitti2015_hd1k"
STOPS = 4  # of the memory's measurement


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
    (root / "FlyingChairs_train_val.txt").write_text("1\n" * pairs)
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


def main(arguments):
    parser = Parser(prog="loader.py", description=__doc__.splitlines()[0])
    parser.add_argument("roots", nargs="*", metavar="NAME=DIR", help="also read this set")
    parser.add_argument("--samples", type=count, default=40, help="samples per measurement")
    parser.add_argument("--memory", type=count, default=2000, help="samples of the memory's")
    parser.add_argument("--workers", default="0,1,2", help="numbers of workers to measure")
    args = parser.parse_args(arguments)
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
        for workers in map(int, args.workers.split(",")):
            loader(roots, 4 * args.samples, workers)
        memory(roots, args.memory)


if __name__ == "__main__":
    sys.exit(run(main))
