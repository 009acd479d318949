"""A checkpoint at half its size, to hand on: the parameters as float16, the same record.

python -m maskflownet.tools.halve -c CHECKPOINT [--folder DIR]
"""

import sys
from pathlib import Path

from maskflownet.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from maskflownet.errors import UserError
from maskflownet.settings.cli import Parser, add_checkpoint, run
from maskflownet.settings.folders import WEIGHTS


def main(arguments: list[str]) -> None:
    parser = Parser(
        prog="python -m maskflownet.tools.halve",
        description="Write a checkpoint's parameters as float16, under the same name.",
    )
    add_checkpoint(parser, required=True)
    parser.add_argument("--folder", type=Path, default=WEIGHTS, metavar="DIR", help="where to write (default: weights)")
    args = parser.parse_args(arguments)
    checkpoint = read_checkpoint(args.checkpoint)
    path = args.folder / checkpoint.path.name
    if path.exists():
        raise UserError(f"{path} exists already: give another --folder")
    args.folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, checkpoint.parameters, checkpoint.record, "float16")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(run(main))
