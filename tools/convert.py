"""A checkpoint in another format: for MXNet, PyTorch, the ports of this network, or at half the size.

python -m maskflownet.tools.convert IN OUT [--head] [--float16] [--rgb | --bgr]
"""

import sys
from pathlib import Path

from maskflownet.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from maskflownet.checkpoints.params import SUFFIXES
from maskflownet.errors import UserError
from maskflownet.settings.cli import Parser, add_colour, run


def main(arguments: list[str]) -> None:
    parser = Parser(description="Write a checkpoint in another format.")
    add = parser.add_argument
    add("checkpoint", metavar="IN", help="as -c of the other programs: a file, run id, or unique prefix of one")
    formats = (
        ".params (MXNet), .safetensors (with its record inside), .pth or .ckpt (PyTorch, with the names of cattaneod's "
        "and ptlflow's ports)"
    )
    add("output", type=Path, metavar="OUT", help=f"file to write; its suffix chooses: {formats}")
    add("--head", action="store_true", help="only the MaskFlownet_S inside a MaskFlownet")
    add("--float16", action="store_true", help="half the size; every program here reads it")
    add_colour(parser)
    args = parser.parse_args(arguments)
    path = args.output
    if path.suffix not in SUFFIXES:
        raise UserError(f"cannot write {path}: its suffix is none of {', '.join(SUFFIXES)}")
    written = (path,) if path.suffix == ".safetensors" else (path, path.with_suffix(".yaml"))
    for file in written:
        if file.exists():
            raise UserError(f"{file} exists already: give another name than {path}")
    for other in (path.with_suffix(suffix) for suffix in SUFFIXES if suffix != ".safetensors"):
        if len(written) > 1 and other.exists():  # without a record
            raise UserError(f"{written[1]} would pass for the record of {other}: give another name than {path}")
    checkpoint = read_checkpoint(args.checkpoint, colour=args.colour)
    if args.head:
        if checkpoint.record.network == "MaskFlownet_S":
            raise UserError(f"{checkpoint.path} is a MaskFlownet_S already: leave out --head")
        checkpoint = checkpoint.head()
    record = checkpoint.record
    save_checkpoint(path, checkpoint.parameters, record, "float16" if args.float16 else "float32")
    print(f"{path}: {record.network}, {path.stat().st_size / 1e6:.1f} MB")
    if path.suffix in {".pth", ".ckpt"} and record.network == "MaskFlownet" and record.pyramid != "released":
        print(
            f"note: it was trained with pyramid: {record.pyramid}, which the ports do not have: their flow is worse",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(run(main))
