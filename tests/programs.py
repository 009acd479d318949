"""Python in a process of its own."""

import subprocess
import sys

from maskflownet.settings.folders import ROOT


def python(*arguments, cwd=ROOT, **options) -> subprocess.CompletedProcess:
    """Run it to its end, by default in the checkout: exit code and both outputs."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300, **options)
