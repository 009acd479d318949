"""The one place that imports MXNet: ``from network.mx import mx``."""

from network import compat, cuda_libraries

compat.restore()
cuda_libraries.preload()

import mxnet as mx  # noqa: E402

__all__ = ["mx"]
