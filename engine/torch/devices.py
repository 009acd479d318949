"""The devices of `-g` and what they can compute, for PyTorch."""

from __future__ import annotations

import torch
from maskflownet.errors import UserError

CPU = torch.device("cpu")
BF16_CAPABILITY = (8, 0)  # of the first GPUs with matrix units for it


def devices(gpus: str) -> list[torch.device]:
    """PyTorch devices of comma-separated ids; the CPU without any.

    Raises
    ------
    UserError
        The ids are malformed or repeated, this PyTorch has no CUDA, or there is no such device.
    """
    if not gpus.strip():
        return [CPU]
    try:
        ids = [int(part) for part in gpus.split(",")]
    except ValueError:
        ids = [-1]
    if min(ids) < 0 or len(set(ids)) != len(ids):
        raise UserError(f"-g {gpus} is no list of device ids: write them as in -g 0,1")
    if not torch.backends.cuda.is_built():
        raise UserError(
            f"-g {gpus} needs a PyTorch with CUDA, but this one ({torch.__version__}) has none: "
            "install one that has, or leave out -g to use the CPU"
        )
    count = torch.cuda.device_count()
    if max(ids) >= count:
        raise UserError(f"there is no GPU {max(ids)}: PyTorch finds {count}, numbered from 0")
    return [torch.device("cuda", i) for i in ids]


def check_precision(precision: str | None, devices: list[torch.device]) -> str:
    """The precision of the networks on these devices: tf32 on GPUs, float32 on the CPU by default.

    Raises
    ------
    UserError
        The devices cannot have the one that is asked for.
    """
    if devices[0].type == "cpu":
        if precision not in {None, "float32"}:
            raise UserError(f"--precision {precision} is for GPUs: the CPU computes in float32")
        return "float32"
    if precision == "bf16":
        for device in devices:
            if torch.cuda.get_device_capability(device) < BF16_CAPABILITY:
                name = torch.cuda.get_device_name(device)
                raise UserError(f"--precision bf16 needs a GPU from Ampere on, {name} is older")
    return precision or "tf32"
