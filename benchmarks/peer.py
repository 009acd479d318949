"""Run a peer's timing script, with the peak of GPU memory beside each line that it prints.

python benchmarks/peer.py SCRIPT [ARGUMENTS of the script]
"""

import builtins
import runpy
import sys

import torch


def print_with_memory(*values, **options):
    peak = torch.cuda.max_memory_allocated() / 2**30
    builtins.print(*values, f"{peak:.2f} GiB", **options)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], {"print": print_with_memory}, "__main__")
