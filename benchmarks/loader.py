"""Speed and memory of the readers and of the training loader, at the data sets' picture sizes.

python -m maskflownet.benchmarks.loader [NAME=DIR ...] [--samples 40] [--memory 2000] [--workers 1,2]

A set without DIR is read from a dummy tree in a temporary folder: smooth noise, which decodes
somewhat faster than photographs. Files come from the page cache, not from a disk.
"""

import multiprocessing
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import cv2
from maskflownet.reader.loader import TrainLoader, sample_generator
from maskflownet.reader.sample import random_crop, random_flip, resize_sample
from maskflownet.settings.cli import Parser, count, run
from maskflownet.settings.datasets import Roots, load_data_config, parse_roots, training_parts

from tests import trees

PARTS = (  # config, of which the first data set is measured unless it is a mix
    ("chairs", "chairs"),
    ("things3d", "things3d"),
    ("sintel", "sintel"),
    ("kitti", "kitti"),
    ("sintel_kitti2015_hd1k", "hd1k"),
    ("synthetic", "synthetic"),
)
STOPS = 4  # of the memory's measurement


def make_dummies(folder: Path) -> dict:
    """Make a tree of every data set with its real picture size."""
    frames = dict(trees.SINTEL_FRAMES)
    return {
        "chairs": trees.make_chairs(folder / "chairs", 40, 0, (384, 512)),
        "things3d": trees.make_things3d_subset(folder / "things3d", 2, 5, (540, 960)),
        "sintel": trees.make_sintel(folder / "sintel", frames, {}, (436, 1024)),
        "kitti": trees.make_kitti(folder / "kitti", {2012: 20, 2015: 20}, 0, (375, 1242)),
        "hd1k": trees.make_hd1k(folder / "hd1k", {0: 10, 1: 10}, (1080, 2560)),
    }


def resident_mib(pid="self") -> float:
    """Resident memory of a process (Linux)."""
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


def readers(roots, samples: int) -> None:
    """Print what one core reads, and what it reads, resizes, crops and flips."""
    print(f"{'set':10} {'picture':>10} {'input':>10} {'read/s':>8} {'ready/s':>8}   (one core)")
    for config_name, name in PARTS:
        config = load_data_config(config_name)
        number = list(config.dataset).index(name)
        dataset = training_parts(config, roots)[number][0]
        sample = dataset[0]
        start = time.perf_counter()
        for i in range(samples):
            dataset[i % len(dataset)]
        read = samples / (time.perf_counter() - start)
        start = time.perf_counter()
        for i in range(samples):
            ready = dataset[i % len(dataset)]
            if config.resize:
                ready = resize_sample(ready, *config.resize)
            generator = sample_generator(0, 0, i)
            ready = random_flip(random_crop(ready, *config.orig_shape, generator), generator)
        done = samples / (time.perf_counter() - start)
        shapes = ("x".join(map(str, s.img1.shape[:2])) for s in (sample, ready))
        print("{:10} {:>10} {:>10}".format(name, *shapes), f"{read:8.1f} {done:8.1f}", flush=True)


def loader(roots, samples: int, workers) -> None:
    """Print how fast batches of chairs.yaml arrive."""
    config = load_data_config("chairs")
    parts = training_parts(config, roots)
    steps = -(-samples // config.batch_size)
    for number in workers:
        with TrainLoader(parts, config.orig_shape, workers=number) as batches_of:
            batches = batches_of.batches()
            for _ in islice(batches, 5):  # starts the workers and empties what was prefetched
                pass
            start = time.perf_counter()
            for _ in islice(batches, steps):
                pass
            speed = steps * config.batch_size / (time.perf_counter() - start)
        print(f"batches of chairs.yaml, {number} workers: {speed:.1f} samples/s", flush=True)


def memory(roots, samples: int) -> None:
    """Print the resident memory of the loader and its one worker while samples go by."""
    config = load_data_config("chairs")
    parts = training_parts(config, roots)
    with TrainLoader(parts, config.orig_shape, workers=1) as batches_of:
        batches = batches_of.batches()
        for stop in range(1, STOPS + 1):
            for _ in islice(batches, samples // STOPS // config.batch_size):
                pass
            (worker,) = multiprocessing.active_children()
            print(
                f"resident memory after {samples * stop // STOPS} samples: {resident_mib():.1f} "
                f"MiB, its worker's {resident_mib(worker.pid):.1f} MiB",
                flush=True,
            )


def main(arguments):
    parser = Parser(prog="loader.py", description=__doc__.splitlines()[0])
    parser.add_argument("roots", nargs="*", metavar="NAME=DIR", help="read this set, not a dummy")
    parser.add_argument("--samples", type=count, default=40, help="samples per measurement")
    parser.add_argument("--memory", type=count, default=2000, help="samples of the memory's")
    parser.add_argument("--workers", default="0,1,2", help="numbers of workers to measure")
    args = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        roots = Roots({**make_dummies(Path(folder)), **parse_roots(args.roots)})
        readers(roots, args.samples)
        loader(roots, 4 * args.samples, [int(number) for number in args.workers.split(",")])
        memory(roots, args.memory)


if __name__ == "__main__":
    sys.exit(run(main))
