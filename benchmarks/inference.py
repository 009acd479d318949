"""Time of both networks: on the CPU both engines in turn, on a GPU the torch engine at each precision.

    python -m maskflownet.benchmarks.inference [--size 448,1024] [--repeats 7] [--engines mxnet,torch]
    python -m maskflownet.benchmarks.inference -g 0 [--batches 1,8] [--nodes]

On a GPU a network's call is captured and timed on the device, with its images there. Beside it, in the same run, the
device's matrix product. `--nodes` is a table of the torch engine's steps instead, each with the least time that its
bytes or its arithmetic need, at the device's rates of copying and of a matrix product.
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

REPEATED = 10  # times that a step of `--nodes` is captured


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


def node_table(args, name: str, images, precision: str) -> Iterator[str]:
    """The steps of a network by how much longer they take than they must, each timed by itself, again and again.

    Its bytes are those of its inputs and outputs, its arithmetic that of its convolutions and cost volumes.
    """
    device, rows = images[0].device, {}
    engine = make_engine(load_network_config(name), args.gpus, 0, False, "torch", precision)
    (network,) = engine.networks
    product, operations = timing.matrix_product(device, precision)
    block = torch.empty(2**28 if device.type == "cuda" else 2**24, dtype=torch.uint8, device=device)
    whole = block.new_empty(block.shape)
    times = timing.alternate({"copy": lambda: whole.copy_(block), "product": product}, device, args.repeats)
    copying, speed = 2 * len(block) / times["copy"], operations / times["product"]

    def timed(step):
        def function(inputs, attrs):
            result = step.function(inputs, attrs)
            outputs = (result,) if isinstance(result, torch.Tensor) else result
            if not {x.untyped_storage().data_ptr() for x in outputs}.isdisjoint(
                x.untyped_storage().data_ptr() for x in inputs
            ):
                return result  # views, nothing to compute
            call = timing.captured(lambda: [step.function(inputs, attrs) for _ in range(REPEATED)], device)
            taken = timing.alternate({"": call}, device, args.repeats)[""] / REPEATED
            moved = sum(x.numel() * x.element_size() for x in (*inputs, *outputs))
            rows[step.name] = taken, moved / copying, 2 * products(inputs, attrs, outputs) / speed
            return result

        return step._replace(function=function)

    network._steps = list(map(timed, network._steps))
    with torch.inference_mode(), computing(precision, search=True):
        network(*images)
    total = sum(taken for taken, _, _ in rows.values())
    yield f"{name} {precision}, batch {len(images[0])}: {1e3 * total:.2f} ms in {len(rows)} steps"
    yield from ("| step | us | bytes alone, us | arithmetic alone, us | time over floor |", "|---|---:|---:|---:|---:|")
    for step, (taken, *floors) in sorted(rows.items(), key=lambda row: max(row[1][1:]) - row[1][0]):
        numbers = " | ".join(f"{1e6 * seconds:.1f}" for seconds in (taken, *floors))
        yield f"| {step} | {numbers} | {taken / max(floors):.1f} |"


def products(inputs, attrs, outputs) -> float:
    """Multiply-accumulates of a step."""
    pixels = inputs[0].shape[0] * inputs[0].shape[2] * inputs[0].shape[3] if inputs[0].dim() == 4 else 0
    if "radius" in attrs:  # a cost volume
        return outputs[0].numel() * inputs[0].shape[1]
    if "piece" not in attrs:
        return pixels * sum(x.numel() for x in inputs if x.dim() == 4 and x.shape[2:] == (3, 3))
    piece, total = attrs["piece"], 0
    for layer, weight in zip((*piece.layers, *piece.heads), inputs[piece.parts :: 2]):
        pixels /= layer.stride**2
        total += pixels * weight.numel()  # a transposed one has 16 taps, 4 of them for each pixel of its output
        pixels *= 4 if layer.doubles and layer in piece.layers else 1
    return total


def main(arguments):
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("-g", "--gpus", default="", metavar="ID", help="a GPU; default: the CPU")
    add("--size", type=height_width, default=(448, 1024), metavar="H,W")
    add("--repeats", type=count, default=21)
    add("--engines", default="mxnet,torch", help="on the CPU")
    add("--precisions", default="float32,tf32,bf16", help="on a GPU")
    add("--batches", help="pairs at a time (default 1, on a GPU 1,8)")
    add("--nodes", action="store_true", help="the torch engine's steps one by one, and what each must take")
    args = parser.parse_args(arguments)
    device = timing.the_device(args.gpus)
    print(f"{timing.describe(device)}, {args.size[0]}x{args.size[1]}, median of {args.repeats}")
    for name in NETWORKS:
        macs = timing.multiply_accumulates(name, *args.size)
        for batch in map(int, (args.batches or ("1,8" if args.gpus else "1")).split(",")):
            images = [torch.rand(batch, 3, *args.size, device=device) - 0.5 for _ in range(2)]
            timing.forget_memory()
            if args.nodes:
                for precision in args.precisions.split(",") if args.gpus else ("float32",):
                    print(*node_table(args, name, images, precision), sep="\n", flush=True)
                continue
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
