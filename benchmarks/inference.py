"""Time of both networks: on the CPU both engines in turn, on a GPU the torch engine at each precision.

    python -m maskflownet.benchmarks.inference [--size 448,1024] [--repeats 7] [--engines mxnet,torch]
    python -m maskflownet.benchmarks.inference -g 0 [--batches 1,8]

On a GPU a network's call is captured and timed on the device, with its images there. Beside it, in the same run, the
device's matrix product.
"""

import sys
from collections.abc import Callable, Iterator

import torch
from maskflownet.benchmarks import timing
from maskflownet.engine.load import make_engine
from maskflownet.engine.torch.module import computing
from maskflownet.network import import_mxnet
from maskflownet.network.architecture import NETWORKS
from maskflownet.settings.cli import Parser, count, height_width, run
from maskflownet.settings.configs import load_network_config


def mxnet_call(name: str, images):
    """A function that runs MXNet's network, and its parameters."""
    engine, mx = make_engine(load_network_config(name), engine="mxnet"), import_mxnet("time --engines torch alone")
    arrays = [mx.nd.array(image.numpy()) for image in images]

    def call():
        return engine.network(*arrays)[0][-1].asnumpy()

    call()  # creates the parameters
    return call, engine.parameters()


def torch_call(args, name: str, images, precision: str, parameters=None) -> Callable:
    engine, device = make_engine(load_network_config(name), args.gpus, 0, False, "torch", precision), images[0].device
    engine.assign(parameters or {})
    (network,) = engine.networks
    getattr(network, "parameters_changed", lambda: None)()

    def call():
        with torch.inference_mode(), computing(precision, search=True):
            flow = network(*images)[4]
            return flow.numpy() if device.type == "cpu" else flow

    return timing.captured(call, device)


def compared(args, name: str, images) -> Iterator[tuple[str, dict[str, Callable]]]:
    """(precision, {engine: call}): what is timed in turn."""
    if images[0].device.type == "cuda":
        for precision in args.precisions.split(","):
            yield precision, {"torch": torch_call(args, name, images, precision)}
        return
    threads, parameters, calls = torch.get_num_threads(), None, {}
    if "mxnet" in args.engines:
        calls["mxnet"], parameters = mxnet_call(name, images)
        torch.set_num_threads(threads)  # MXNet's import halves them
    if "torch" in args.engines:
        calls["torch"] = torch_call(args, name, images, "float32", parameters)
    if len(calls) == 2:
        difference = abs(calls["torch"]() - calls["mxnet"]()).max()
        print(f"{name}: largest difference of the engines {difference:.1e} px")
    yield "float32", calls


def main(arguments):
    parser = Parser(prog="inference.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("-g", "--gpus", default="", metavar="ID", help="a GPU; default: the CPU")
    add("--size", type=height_width, default=(448, 1024), metavar="H,W")
    add("--repeats", type=count, default=21)
    add("--engines", default="mxnet,torch", help="on the CPU")
    add("--precisions", default="float32,tf32,bf16", help="on a GPU")
    add("--batches", help="pairs at a time (default 1, on a GPU 1,8)")
    args = parser.parse_args(arguments)
    device = timing.the_device(args.gpus)
    print(f"{timing.describe(device)}, {args.size[0]}x{args.size[1]}, median of {args.repeats}")
    for name in NETWORKS:
        macs = timing.multiply_accumulates(name, *args.size)
        for batch in map(int, (args.batches or ("1,8" if args.gpus else "1")).split(",")):
            images = [torch.rand(batch, 3, *args.size, device=device) - 0.5 for _ in range(2)]
            timing.forget_memory()
            for precision, calls in compared(args, name, images):
                memory = timing.peak_memory()
                product, operations = timing.matrix_product(device, precision)
                times = timing.alternate({**calls, "product": product}, device, args.repeats)
                speed = operations / times["product"]
                for engine in calls:
                    found = timing.rate(2 * macs * batch, times[engine], speed)
                    print(f"{name} {engine} {precision}, {batch} x {1e-9 * macs:.1f} GMAC: {found} "
                          f"{1e-12 * speed:.3g} {memory}", flush=True)  # fmt: skip
                if len(calls) == 2:
                    print(f"{name}: torch is {times['mxnet'] / times['torch']:.2f} times as fast", flush=True)
                del calls, product
                timing.forget_memory()


if __name__ == "__main__":
    sys.exit(run(main))
