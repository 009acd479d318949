"""How far engines and precisions lie apart on real pairs, and what that does to their errors.

    python -m maskflownet.benchmarks.precision CONFIG -c CHECKPOINT PAIRS [-g 0] [--save FLOWS.npz | --load ...]

PAIRS is a folder as `--data_root pairs=` takes it. Without -g both engines run on the CPU, and
--save keeps MXNet's flows; with it the torch engine runs on the GPU at each precision, beside the
flows of --load (MXNet's, from a machine that has it) or those of the torch engine on the CPU.
"""

import sys

import numpy as np
from maskflownet.checkpoints.checkpoint import read_checkpoint
from maskflownet.engine.load import load_engine
from maskflownet.reader.pairs import Pairs
from maskflownet.settings.cli import Parser, run
from maskflownet.settings.configs import load_network_config


def flows_of(engine, pairs) -> list[np.ndarray]:
    samples = [pairs[i] for i in range(len(pairs))]
    return [engine.predict(s.img1[None], s.img2[None], mask=False, warped=False).flow[0] for s in samples]


def mean_error(flows, pairs) -> float:
    """Mean over pairs of the mean end-point error of their valid pixels, px."""
    errors = []
    for i, flow in enumerate(flows):
        sample = pairs[i]
        distance = np.linalg.norm(flow - sample.flow, axis=2)
        errors.append(distance[sample.mask[..., 0] > 0].mean())
    return float(np.mean(errors))


def main(arguments):
    parser = Parser(prog="precision.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("config")
    add("pairs", help="folder of pairs with their flow")
    add("-c", "--checkpoint", required=True)
    add("-g", "--gpus", default="", metavar="ID")
    add("--save", metavar="FILE", help="keep MXNet's flows")
    add("--load", metavar="FILE", help="compare with these")
    args = parser.parse_args(arguments)
    config, checkpoint = load_network_config(args.config), read_checkpoint(args.checkpoint)
    pairs = Pairs(args.pairs)
    if args.load:
        kept = np.load(args.load)
        reference = [kept[str(i)] for i in range(len(pairs))]
        print(f"reference: {args.load}, {mean_error(reference, pairs):.4f} px", flush=True)
    else:
        name = "torch" if args.gpus else "mxnet"
        reference = flows_of(load_engine(config, checkpoint, "", name), pairs)
        print(f"reference: {name} on the CPU, {mean_error(reference, pairs):.4f} px", flush=True)
    if args.save:
        np.savez_compressed(args.save, **{str(i): flow for i, flow in enumerate(reference)})
    for precision in ("float32", "tf32", "bf16") if args.gpus else (None,):
        engine = load_engine(config, checkpoint, args.gpus, "torch", precision)
        flows = flows_of(engine, pairs)
        largest = max(np.abs(a - b).max() for a, b in zip(flows, reference))
        print(f"torch {precision or 'on the CPU'}: {mean_error(flows, pairs):.4f} px, largest "
              f"difference {largest:.1e} px", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
