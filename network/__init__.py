"""What is computed: operators, the two networks, losses and augmentation, as Gluon blocks."""

from maskflownet.errors import imported


def import_mxnet(otherwise: str):
    """MXNet; where it cannot be imported, an error that ends with what else would do."""
    advice = f"pip install --no-deps mxnet==1.9.1, or {otherwise}"
    return imported("maskflownet.network.compat", "MXNet cannot be imported", advice).mx
