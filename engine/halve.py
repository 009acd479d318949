"""A checkpoint at half its size, to hand on: the parameters as float16, the same record.

python -m engine.halve -c CHECKPOINT [--folder DIR]
"""

from __future__ import annotations

import sys

from engine.checkpoint import save_checkpoint
from engine.cli import Parser, add_folder, run
from engine.errors import UserError
from engine.loading import read_checkpoint


def main(arguments: list[str]) -> None:
    parser = Parser(
        prog="python -m engine.halve",
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
