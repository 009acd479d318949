"""The one place that imports MXNet: ``from network.mx import mx``."""

from network import compat

compat.restore()

import mxnet as mx  # noqa: E402

__all__ = ["mx"]
