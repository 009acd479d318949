"""Time of one pair through both networks with MXNet, by graph and by operator.

    python -m maskflownet.benchmarks.mxnet_graph [--size 448,1024] [--repeats 7] [--operators]

Compares the engine's graph with the plain one (a pyramid pass per image, no static memory),
alternating between the two.
"""

import platform
import sys
import time
from statistics import median

import numpy as np
from maskflownet.benchmarks.arithmetic import multiply_accumulates
from maskflownet.network.architecture import PYRAMID_CHANNELS, SLOPE
from maskflownet.network.compat import mx
from maskflownet.network.maskflownet import MaskFlownet, MaskFlownet_S
from maskflownet.settings.cli import Parser, count, height_width, run


def one_pass_per_image(network):
    """The same network with its pyramids computed image by image."""

    def pyramid(_, image_1, image_2, letters):
        features = []
        for image in (image_1, image_2):
            x, levels = image, {}
            for level in PYRAMID_CHANNELS:
                for letter in letters:
                    x = network.layer(f"conv{level}{letter}")(x)
                levels[level] = x
            features.append(levels)
        return features

    network.pyramid = pyramid
    return network


def seconds(function) -> float:
    started = time.perf_counter()
    function()
    mx.nd.waitall()
    return time.perf_counter() - started


def gemm_rate(size=2048, repeats=5) -> float:
    """GFLOP/s of NumPy's float32 matrix product."""
    a, b = (np.random.rand(size, size).astype(np.float32) for _ in range(2))
    a @ b
    return 2e-9 * size**3 / min(seconds(lambda: a @ b) for _ in range(repeats))


def operator_table(call) -> str:
    """Total milliseconds by operator of one call, costliest first."""
    mx.profiler.set_config(profile_imperative=True, profile_symbolic=True, aggregate_stats=True,
                           filename="profile.json")  # fmt: skip
    mx.profiler.dumps(reset=True)
    mx.profiler.set_state("run")
    call()
    mx.nd.waitall()
    mx.profiler.set_state("stop")
    totals: dict[str, float] = {}
    for line in mx.profiler.dumps(reset=True).splitlines():
        fields = line.split()
        is_operator = len(fields) == 6 and fields[1].isdigit()
        if is_operator and not fields[0].startswith(("Memory", "MX", "DeleteVariable")):
            totals[fields[0]] = totals.get(fields[0], 0) + float(fields[2])
    rows = sorted(totals.items(), key=lambda item: -item[1])
    return "\n".join(f"    {milliseconds:8.1f} ms  {name}" for name, milliseconds in rows)


def main(arguments):
    parser = Parser(prog="mxnet_graph.py", description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=height_width, default=(448, 1024), metavar="H,W")
    parser.add_argument("--repeats", type=count, default=7)
    parser.add_argument("--operators", action="store_true", help="also time each operator")
    args = parser.parse_args(arguments)
    print(f"{platform.machine()}, MXNet {mx.__version__}, NumPy {np.__version__}, "
          f"{args.size[0]}x{args.size[1]}, median of {args.repeats}")  # fmt: skip
    images = [mx.nd.random.uniform(-0.5, 0.5, shape=(1, 3, *args.size)) for _ in range(2)]
    for make in (MaskFlownet_S, MaskFlownet):
        engine, plain = make(), one_pass_per_image(make())
        for network in (engine, plain):
            network.initialize(mx.init.MSRAPrelu(slope=SLOPE))
        gmac = 1e-9 * sum(multiply_accumulates(make.__name__, *args.size).values())
        engine.hybridize(static_alloc=True)
        plain.hybridize()
        times: dict = {engine: [], plain: []}
        rates = []
        for repeat in range(args.repeats + 1):
            rates.append(gemm_rate(repeats=2))
            # In turn, so that neither always runs on the warmer machine.
            for network in (engine, plain) if repeat % 2 else (plain, engine):
                took = seconds(lambda network=network: network(*images))
                if repeat:  # the first call plans and allocates
                    times[network].append(took)
        rate = 2 * gmac / median(times[engine])
        print(
            f"{make.__name__}: {1000 * median(times[engine]):.0f} ms "
            f"({1000 * median(times[plain]):.0f} ms the plain graph), {gmac:.1f} GMAC, "
            f"{rate:.0f} GFLOP/s = {100 * rate / median(rates):.0f} % of the matrix product's "
            f"{median(rates):.0f} GFLOP/s",
            flush=True,
        )
        if args.operators:
            # One entry per operator instead of fused segments.
            engine.hybridize(static_alloc=True, forward_bulk_size=1)
            engine(*images)
            print(operator_table(lambda network=engine: network(*images)))


if __name__ == "__main__":
    sys.exit(run(main))
