"""A MaskFlownet checkpoint with the first stage of another checkpoint.

python -m engine.replace_head -c CHECKPOINT --head CHECKPOINT [--folder DIR]

For a first stage that has been trained further: the second one goes on from where it was.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from engine.average import is_taken
from engine.checkpoint import save_checkpoint
from engine.cli import Parser, add_folder, run
from engine.loading import read_checkpoint
from engine.run_log import new_run_id


def main(arguments: list[str]) -> None:
    parser = Parser(
        prog="python -m engine.replace_head",
        description="Write a MaskFlownet checkpoint with the first stage of another checkpoint, "
        "under a new run id.",
    )
    add = parser.add_argument
    add("-c", "--checkpoint", required=True, help="of MaskFlownet: the second stage")
    add("--head", required=True, metavar="CHECKPOINT", help="of either network: the first stage")
    add_folder(parser)
    args = parser.parse_args(arguments)
    checkpoint, head = read_checkpoint(args.checkpoint), read_checkpoint(args.head)
    found = checkpoint.with_head(head)
    record = replace(
        found.record,
        parent=f"{checkpoint.path.stem} with the first stage of {head.path.stem}",
        time=time.strftime("%Y-%m-%d %H:%M:%S"),
        metrics={},
        sha256=None,
    )
    name = new_run_id(lambda run: is_taken(run, args.folder))
    path = args.folder / f"{name}_{record.step}.params"
    args.folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, found.parameters, replace(record, run=name))
    print(f"{path}: {record.parent}")


if __name__ == "__main__":
    sys.exit(run(main))
