"""Time of training steps: the whole of them, and what a peer's timing has of them.

    python -m maskflownet.benchmarks.training [-g 0] [--cases MaskFlownet_S:8,MaskFlownet:8,MaskFlownet_S:32]

"network": images and label on the device -> network, loss, backward, Adam. "whole": uint8 samples
of 384x512 in host memory -> augmented 320x448, the same, and the loss back on the host, one step
after the other as in a run. On the CPU both engines are timed, "whole" only.
"""

import sys
import time
from statistics import median

import numpy as np
import torch
from maskflownet.benchmarks.inference import multiply_accumulates
from maskflownet.engine.contract import TrainingSettings
from maskflownet.engine.load import make_engine
from maskflownet.engine.torch.devices import devices
from maskflownet.errors import UserError
from maskflownet.network import import_mxnet
from maskflownet.reader.loader import Batch
from maskflownet.settings.cli import Parser, count, run
from maskflownet.settings.configs import load_network_config
from maskflownet.settings.datasets import load_data_config

RATE = 1e-5
SAMPLES, TARGET = (384, 512), (320, 448)
WARM_UP = 3  # steps


def training_of(engine, original, target, augmentation=None):
    config = engine.config
    return engine.training(TrainingSettings(config.optimizer, config.network.mw, original, target, augmentation, 0))


def batch_of(size: int, shape) -> Batch:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (size, *shape, 3), np.uint8) for _ in range(2)]
    flow = rng.normal(0, 5, (size, *shape, 2)).astype(np.float32)
    mask = np.full((size, *shape, 1), 255, np.uint8)
    return Batch(*images, flow, mask, tuple(f"sample {i}" for i in range(size)))


def train(training, batch, steps: range) -> None:
    for step in steps:
        losses = training.train_batch(batch, step, RATE)
    _ = losses.loss  # waits


def on_gpu(args) -> None:
    from maskflownet.benchmarks import gpu  # noqa: PLC0415 - needs a GPU

    (device, *others) = devices(args.gpus)
    if others or device.type != "cuda":
        raise UserError(f"-g {args.gpus} is not one GPU")
    torch.cuda.set_device(device)
    peaks = {"tf32": gpu.matrix_peak(torch.float32), "bf16": gpu.matrix_peak(torch.bfloat16)}
    print(f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}, {TARGET[0]}x"
          f"{TARGET[1]}, median of {args.repeats}")  # fmt: skip
    augmentation = load_data_config("chairs").augmentation
    for case in args.cases.split(","):
        name, size = case.split(":")
        config, size = load_network_config(name), int(size)
        for precision in args.precisions.split(","):
            gpu.forget_memory()
            training = training_of(make_engine(config, args.gpus, 0, False, "torch", precision), TARGET, TARGET)
            train(training, batch_of(size, TARGET), range(WARM_UP))
            taken = gpu.milliseconds(training._captured.replay, args.repeats)
            memory = gpu.peak_memory()
            rate = 2e-9 * size * training_macs(name) / taken
            share = f" ({100 * rate / peaks[precision]:.0f} % of the matrix product)" if precision in peaks else ""
            del training
            engine = make_engine(config, args.gpus, 0, False, "torch", precision)
            training, batch = training_of(engine, SAMPLES, TARGET, augmentation), batch_of(size, SAMPLES)
            train(training, batch, range(WARM_UP))
            started = time.perf_counter()
            train(training, batch, range(WARM_UP, WARM_UP + args.repeats))
            whole = 1000 * (time.perf_counter() - started) / args.repeats
            print(f"{name} {precision} {size} x {TARGET[0]}x{TARGET[1]}: network {taken:.2f} ms, "
                  f"{rate:.1f} TFLOP/s{share}, {memory}; whole {whole:.2f} ms",
                  flush=True)  # fmt: skip
            del training, engine


def training_macs(name: str) -> float:
    """Multiply-accumulates a sample: forward, and twice that backward where weights are trained."""
    macs = sum(multiply_accumulates(name, *TARGET).values())
    head = sum(multiply_accumulates("MaskFlownet_S", *TARGET).values())
    return 3 * macs if name == "MaskFlownet_S" else 3 * (macs - head) + head


def on_cpu(args) -> None:
    config, size = load_network_config("MaskFlownet_S"), (args.crop, args.crop)
    batch = batch_of(args.batch, size)
    engines = {name: make_engine(config, engine=name) for name in args.engines.split(",")}
    trainings = {name: training_of(engine, size, size) for name, engine in engines.items()}
    times: dict = {name: [] for name in trainings}
    for step in range(args.repeats + 1):
        for name, training in trainings.items():
            started = time.perf_counter()
            train(training, batch, range(step, step + 1))
            if name == "mxnet":  # whose backward pass still runs when the loss is there
                import_mxnet("time --engines torch alone").nd.waitall()
            if step:
                times[name].append(1000 * (time.perf_counter() - started))
    typical = {name: median(taken) for name, taken in times.items()}
    for name, taken in typical.items():
        print(f"MaskFlownet_S {name}, {args.batch} x {args.crop}x{args.crop}: {taken:.0f} ms a step")
    if len(typical) > 1:
        print(f"torch is {typical['mxnet'] / typical['torch']:.2f} times as fast")


def main(arguments):
    parser = Parser(prog="training.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("-g", "--gpus", metavar="ID", help="a GPU; default: the CPU")
    add("--cases", default="MaskFlownet_S:8,MaskFlownet:8,MaskFlownet_S:32", help="on a GPU")
    add("--precisions", default="tf32,bf16", help="on a GPU")
    add("--repeats", type=count, default=21)
    add(
        "--engines",
        default="mxnet,torch",
        help="on the CPU; alone each is faster, as no other's threads linger on its cores",
    )
    add("--batch", type=count, default=8, help="samples, on the CPU")
    add("--crop", type=count, default=64, help="px, on the CPU")
    args = parser.parse_args(arguments)
    (on_cpu if args.gpus is None else on_gpu)(args)


if __name__ == "__main__":
    sys.exit(run(main))
