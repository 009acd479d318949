"""Optical flow by MaskFlownet (CVPR 2020).

>>> import maskflownet
>>> predictor = maskflownet.load()  # or load("MaskFlownet_S", gpus="0")
>>> flow, mask, warped = predictor(image_1, image_2)  # uint8 RGB arrays (H, W, 3) -> flow (H, W, 2), px, (u, v)
"""

from importlib import import_module

__version__ = "0.2.0"
__all__ = ["Predictor", "UserError", "__version__", "consistency", "flow_to_colour", "load", "torch_network", "warp"]
_SOURCES = {
    "Predictor": "maskflownet.inference.predictor",
    "UserError": "maskflownet.errors",
    "consistency": "maskflownet.engine.torch.network",
    "flow_to_colour": "maskflownet.reader.colour",
    "load": "maskflownet.inference.predictor",
    "torch_network": "maskflownet.engine.torch.network",
    "warp": "maskflownet.engine.torch.network",
}


def __getattr__(name):
    """Import what is asked for: a part of the package does not wait for the whole."""
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_SOURCES[name]), name)


def __dir__():
    return __all__
