"""Where programs read and write by name."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
CONFIGS = PACKAGE / "config_folder"
SHIPPED = PACKAGE / "weights" / "97fNov30-0847_8600.params"  # MaskFlownet; holds a MaskFlownet_S, too

# What is written goes into the checkout, or where the package is installed without one, into the working folder.
ROOT = PACKAGE if (PACKAGE / "pyproject.toml").is_file() else Path()
WEIGHTS, LOGS, FLOWS = ROOT / "weights", ROOT / "logs", ROOT / "flows"
