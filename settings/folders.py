"""The folders of a checkout that programs read and write by name."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "config_folder"
WEIGHTS = ROOT / "weights"
LOGS = ROOT / "logs"
FLOWS = ROOT / "flows"
