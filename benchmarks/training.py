"""Time of the torch engine's training steps: the whole of them, and what a peer's timing has of them.

    python -m maskflownet.benchmarks.training [-g 0] [--cases MaskFlownet_S:8,MaskFlownet:8,MaskFlownet_S:32]

"whole": uint8 samples in host memory, on a GPU of 384x512 and augmented to 320x448, on the CPU of 64x64 and not
augmented -> network, loss, backward, Adam, and the loss back on the host, one step after the other as in a run.
"network", on a GPU: the same from images and label on the device, not augmented.
"""

import sys
from functools import partial

import numpy as np
from maskflownet.benchmarks import timing
from maskflownet.engine.contract import TrainingSettings
from maskflownet.engine.load import make_engine
from maskflownet.engine.torch.training import CapturedStep
from maskflownet.reader.loader import Batch
from maskflownet.settings.cli import Parser, count, run
from maskflownet.settings.configs import load_network_config
from maskflownet.settings.datasets import load_data_config

RATE = 1e-5
SAMPLES, TARGET, CROP = (384, 512), (320, 448), (64, 64)  # (H, W) px


def steps(engine, size: int, original, target, augmentation=None):
    """The training of an engine, and a function that trains it so many steps."""
    config, rng = engine.config, np.random.default_rng(0)
    training = engine.training(TrainingSettings(config.optimizer, config.network.mw, original, target, augmentation, 0))
    images = [rng.integers(0, 256, (size, *original, 3), np.uint8) for _ in range(2)]
    flow = rng.normal(0, 5, (size, *original, 2)).astype(np.float32)
    mask = np.full((size, *original, 1), 255, np.uint8)
    batch, done = Batch(*images, flow, mask, tuple(f"sample {i}" for i in range(size))), 0

    def train(number: int) -> None:
        nonlocal done
        for _ in range(number):
            read = training.train_batch(batch, done, RATE)
            done += 1
        read()  # waits

    return training, train


def training_macs(name: str, target) -> float:
    """Multiply-accumulates a sample: forward, and twice that backward where weights are trained."""
    macs = timing.multiply_accumulates(name, *target)
    head = timing.multiply_accumulates("MaskFlownet_S", *target)
    return 3 * macs if name == "MaskFlownet_S" else 3 * (macs - head) + head


def measure(args, device, name: str, size: int, engine) -> None:
    gpu = device.type == "cuda"
    shapes = (SAMPLES, TARGET, load_data_config("chairs").augmentation) if gpu else (CROP, CROP)
    burst, turns = (args.repeats, 1) if gpu else (1, args.repeats)  # on a GPU a step is sent while another is computed
    taken = timing.alternate({"": partial(steps(engine, size, *shapes)[1], burst)}, device, turns)[""]
    case = f"{name} {engine.precision}, {size} x {shapes[1][0]}x{shapes[1][1]}"
    print(f"{case}: whole {1000 * taken / burst:.2f} ms", flush=True)


def measure_network(args, device, name: str, size: int, engine) -> None:
    timing.forget_memory()
    training, train = steps(engine, size, TARGET, TARGET)
    train(timing.WARM_UP)
    captured: CapturedStep = training._captured
    replay, memory = captured.replay, timing.peak_memory()
    product, operations = timing.matrix_product(device, engine.precision)
    times = timing.alternate({"network": replay, "product": product}, device, args.repeats)
    found = timing.rate(2 * size * training_macs(name, TARGET), times["network"], operations / times["product"])
    print(f"{name} {engine.precision}, {size} x {TARGET[0]}x{TARGET[1]}: network {found}, {memory}", flush=True)


def main(arguments):
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("-g", "--gpus", default="", metavar="ID", help="a GPU; default: the CPU")
    cases = "MaskFlownet_S:8,MaskFlownet:8,MaskFlownet_S:32"
    add("--cases", help=f"network:samples (default {cases}, on the CPU MaskFlownet_S:8)")
    add("--precisions", default="tf32,bf16", help="on a GPU")
    add("--repeats", type=count, default=21)
    args = parser.parse_args(arguments)
    device = timing.the_device(args.gpus)
    print(f"{timing.describe(device)}, median of {args.repeats}")
    for case in (args.cases or (cases if args.gpus else "MaskFlownet_S:8")).split(","):
        name, size = case.split(":")
        config, size = load_network_config(name), int(size)
        for precision in args.precisions.split(",") if args.gpus else ("float32",):
            fresh = partial(make_engine, config, args.gpus, 0, False, "torch", precision)
            if args.gpus:
                measure_network(args, device, name, size, fresh())
            measure(args, device, name, size, fresh())


if __name__ == "__main__":
    sys.exit(run(main))
