"""The devices of `-g`."""

from __future__ import annotations

from engine.errors import UserError
from network.mx import mx


def contexts(gpus: str) -> list:
    """MXNet contexts of comma-separated device ids; the CPU without any.

    Raises
    ------
    UserError
        The ids are malformed or repeated, this MXNet has no CUDA, or there is no such device.
    """
    if not gpus.strip():
        return [mx.cpu()]
    try:
        ids = [int(part) for part in gpus.split(",")]
    except ValueError:
        ids = [-1]
    if min(ids) < 0 or len(set(ids)) != len(ids):
        raise UserError(f"-g {gpus} is no list of device ids: write them as in -g 0,1")
    if not mx.runtime.Features().is_enabled("CUDA"):
        raise UserError(
            f"-g {gpus} needs an MXNet with CUDA, but this one ({mx.__version__}) is for CPUs: "
            "install requirements-cu117.txt, or leave out -g to use the CPU"
        )
    count = mx.context.num_gpus()
    if max(ids) >= count:
        raise UserError(f"there is no GPU {max(ids)}: MXNet finds {count}, numbered from 0")
    return [mx.gpu(i) for i in ids]
