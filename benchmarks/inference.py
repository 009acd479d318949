"""Time of both networks: on the CPU both engines in turn, on a GPU the torch engine.

    python -m maskflownet.benchmarks.inference [--size 448,1024] [--repeats 7]
    python -m maskflownet.benchmarks.inference -g 0 [--batches 1,8] [--peer SCRIPT PACKAGES]

On a GPU a network's call is captured and timed on the device, with its images there, for each
precision, beside the GPU's matrix product and, with --peer, another implementation in the same run.
"""

import math
import platform
import sys
import time
from statistics import median

import numpy as np
import torch
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.devices import devices
from maskflownet.engine.torch.fused import executor
from maskflownet.engine.torch.module import GraphModule, computing
from maskflownet.engine.torch.operators import OPERATORS
from maskflownet.errors import UserError
from maskflownet.network.architecture import NETWORKS, SLOPE
from maskflownet.settings.cli import Parser, count, height_width, run

SIDE = 64  # px, the smallest image; the arithmetic is proportional to the number of pixels


def seconds(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def gemm_rate(size=2048, repeats=2) -> float:
    """GFLOP/s of NumPy's float32 matrix product."""
    a, b = (np.random.rand(size, size).astype(np.float32) for _ in range(2))
    a @ b
    return 2e-9 * size**3 / min(seconds(lambda: a @ b) for _ in range(repeats))


def multiply_accumulates(network: str, height: int, width: int) -> dict[str, float]:
    """Multiply-accumulates of one pair by operator kind; operators without products are left out.

    A deformable convolution counts its products with the weights, not its sampling.
    """
    counts: dict[str, float] = {}

    def counting(kind: str, products):
        def call(inputs, attrs):
            result = OPERATORS[kind](inputs, attrs)
            counts[kind] = counts.get(kind, 0) + products(inputs, result)
            return result

        return call

    def of_output(inputs, result):  # each output value: one product for each weight that it takes
        weight = next(x for x in inputs[1:] if x.dim() == 4 and x.shape[0] == result.shape[1])
        return result.numel() * math.prod(weight.shape[1:])

    def of_input(inputs, result):
        return inputs[0].numel() * math.prod(inputs[1].shape[1:])

    def of_matches(inputs, result):
        return result.numel() * inputs[0].shape[1]

    kinds = {
        "Convolution": of_output,
        "Deconvolution": of_input,
        "Correlation": of_matches,
        "_contrib_DeformableConvolution": lambda inputs, result: of_output([inputs[0], inputs[2]], result),
    }
    graph = graph_of("network", network=network, flow_multiplier=1.0, pyramid="paper")
    module = GraphModule(graph, {**OPERATORS, **{k: counting(k, p) for k, p in kinds.items()}})
    counts.clear()  # of what was folded
    images = [torch.rand(1, 3, SIDE, SIDE) for _ in range(2)]
    with torch.no_grad():
        module(*images)
    return {kind: count * height * width / SIDE**2 for kind, count in counts.items()}


def mxnet_call(name: str, images):
    """A function that runs MXNet's network, and its parameters."""
    from maskflownet.engine.mxnet.engine import build_network  # noqa: PLC0415 - only where it is compared
    from maskflownet.network.compat import mx  # noqa: PLC0415

    network = build_network(name, 1.0, "paper")
    network.initialize(mx.init.MSRAPrelu(slope=SLOPE))
    network.hybridize(static_alloc=True)
    arrays = [mx.nd.array(image.numpy()) for image in images]

    def call():
        return network(*arrays)[0][-1].asnumpy()

    call()
    structural = network._collect_params_with_prefix().items()
    return call, {k: torch.from_numpy(p.data().asnumpy()) for k, p in structural}


def on_cpu(args) -> None:
    threads = torch.get_num_threads()
    from maskflownet.network.compat import mx  # noqa: PLC0415 - only where it is compared

    torch.set_num_threads(threads)  # MXNet's import halves them
    print(f"{platform.machine()}, MXNet {mx.__version__}, PyTorch {torch.__version__}, NumPy "
          f"{np.__version__}, {args.size[0]}x{args.size[1]}, median of {args.repeats}, "
          f"{threads} threads of PyTorch")  # fmt: skip
    images = [torch.rand(1, 3, *args.size) - 0.5 for _ in range(2)]
    for name in NETWORKS:
        mxnet_network, parameters = mxnet_call(name, images)
        graph = graph_of("network", network=name, flow_multiplier=1.0, pyramid="paper")
        module = executor(graph, torch.device("cpu"), "float32")
        module.load_state_dict(parameters)
        getattr(module, "parameters_changed", lambda: None)()

        def torch_network(module=module):
            with torch.inference_mode():
                return module(*images)[4].numpy()

        difference = np.abs(torch_network() - mxnet_network()).max()
        times: dict = {"mxnet": [], "torch": []}
        calls, rates = {"mxnet": mxnet_network, "torch": torch_network}, []
        for repeat in range(args.repeats):
            rates.append(gemm_rate())
            # In turn, so that neither always runs on the warmer machine.
            for engine in sorted(calls, reverse=bool(repeat % 2)):
                times[engine].append(seconds(calls[engine]))
        gmac = 1e-9 * sum(multiply_accumulates(name, *args.size).values())
        typical = {engine: median(t) for engine, t in times.items()}
        for engine, t in typical.items():
            rate = 2 * gmac / t
            print(f"{name} {engine}: {1000 * t:.0f} ms, {gmac:.1f} GMAC, {rate:.0f} GFLOP/s = "
                  f"{100 * rate / median(rates):.0f} % of the matrix product's "
                  f"{median(rates):.0f} GFLOP/s")  # fmt: skip
        print(f"{name}: torch is {typical['mxnet'] / typical['torch']:.2f} times as fast; largest "
              f"difference {difference:.1e} px", flush=True)  # fmt: skip


def on_gpu(args) -> None:
    from maskflownet.benchmarks import gpu  # noqa: PLC0415 - needs a GPU

    (device, *others) = devices(args.gpus)
    if others or device.type != "cuda":
        raise UserError(f"-g {args.gpus} is not one GPU")
    torch.cuda.set_device(device)
    peaks = {"tf32": gpu.matrix_peak(torch.float32), "bf16": gpu.matrix_peak(torch.bfloat16)}
    print(f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}, {args.size[0]}x"
          f"{args.size[1]}, median of {args.repeats}; matrix product "
          + ", ".join(f"{name} {peak:.0f} TFLOP/s" for name, peak in peaks.items()))  # fmt: skip
    for name in NETWORKS:
        gmac = 1e-9 * sum(multiply_accumulates(name, *args.size).values())
        graph = graph_of("network", network=name, flow_multiplier=1.0, pyramid="paper")
        for precision in args.precisions.split(","):
            network = executor(graph, device, precision)
            network.initialise(0)
            for batch in map(int, args.batches.split(",")):
                images = [torch.rand(batch, 3, *args.size, device=device) - 0.5 for _ in range(2)]
                gpu.forget_memory()
                with torch.inference_mode(), computing(precision, search=True):
                    graph_of_call = gpu.capture(lambda n=network, i=images: n(*i))
                taken = gpu.milliseconds(graph_of_call.replay, args.repeats)
                rate = 2 * gmac * batch / taken  # GFLOP / ms
                share = ""
                if precision in peaks:
                    share = f", {100 * rate / peaks[precision]:.0f} % of the matrix product"
                print(f"{name} {precision} {batch} pair{'s' * (batch > 1)}: {taken:.2f} ms, "
                      f"{rate:.1f} TFLOP/s{share}, {gpu.peak_memory()}",
                      flush=True)  # fmt: skip
                del graph_of_call
    if args.peer:
        gpu.forget_memory()
        gpu.run_peer(*args.peer)


def main(arguments):
    parser = Parser(prog="inference.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("-g", "--gpus", metavar="ID", help="a GPU; default: the CPU")
    add("--size", type=height_width, default=(448, 1024), metavar="H,W")
    add("--repeats", type=count, default=21)
    add("--batches", default="1,8", help="pairs at a time, on a GPU")
    add("--precisions", default="float32,tf32,bf16", help="on a GPU")
    add("--peer", nargs=2, metavar=("SCRIPT", "PACKAGES"), help="timing script of another one")
    args = parser.parse_args(arguments)
    (on_cpu if args.gpus is None else on_gpu)(args)


if __name__ == "__main__":
    sys.exit(run(main))
