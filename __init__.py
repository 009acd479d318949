"""Optical flow by MaskFlownet (CVPR 2020), from Python: see `load`."""

from importlib import import_module

__version__ = "0.2.0"
_SOURCES = {
    "Predictor": "maskflownet.inference.predictor",
    "flow_to_colour": "maskflownet.reader.colour",
    "load": "maskflownet.inference.predictor",
}
__all__ = ["Predictor", "__version__", "flow_to_colour", "load"]


def __getattr__(name):
    """Import what is asked for, so that a part of the package does not wait for the whole."""
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_SOURCES[name]), name)
