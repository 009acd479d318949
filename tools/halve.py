"""A checkpoint at half its size, to hand on: the parameters as float16, the same record.

python -m maskflownet.tools.halve -c CHECKPOINT [--folder DIR]
"""

from __future__ import annotations

import sys

from maskflownet.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from maskflownet.errors import UserError
from maskflownet.settings.cli import Parser, add_folder, run


def main(arguments: list[str]) -> None:
    parser = Parser(
        prog="python -m maskflownet.tools.halve",
        description="Write a checkpoint's parameters as float16, under the same name.",
    )
    add = parser.add_argument
    add("-c", "--checkpoint", required=True, help="run id, unique prefix, or path of a .params")
    add_folder(parser)
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
