"""A MaskFlownet checkpoint with the first stage of another checkpoint.

python -m engine.replace_head -c CHECKPOINT --head CHECKPOINT [--folder DIR]

For a first stage that has been trained further: the second one goes on from where it was.
"""

from __future__ import annotations

import sys

from engine.cli import Parser, add_folder, run
from engine.derived import save_derived
from engine.loading import read_checkpoint


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
    parent = f"{checkpoint.path.stem} with the first stage of {head.path.stem}"
    save_derived(args.folder, found.parameters, found.record, parent)


if __name__ == "__main__":
    sys.exit(run(main))
