"""What is computed: operators, the two networks, losses and augmentation, as Gluon blocks."""

from maskflownet.errors import UserError


def import_mxnet(otherwise: str):
    """MXNet; where it cannot be imported, an error that ends with what else would do."""
    try:
        from maskflownet.network.compat import mx  # noqa: PLC0415
    except (ImportError, OSError) as error:  # OSError: a library that it needs is missing
        raise UserError(
            f"MXNet cannot be imported ({error}): pip install --no-deps mxnet==1.9.1, or {otherwise}"
        ) from error
    return mx
