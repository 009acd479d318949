"""Network configs: which network, its loss and its learning-rate schedule."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Iterable

from engine.errors import UserError, nearest
from engine.folders import CONFIGS
from engine.schema import number, one_of, option, optional, parse, positive, read_yaml

NETWORKS = ("MaskFlownet_S", "MaskFlownet")
PYRAMIDS = ("paper", "released")
LOSS_WEIGHTS = (0.005, 0.01, 0.02, 0.08, 0.32)


def _loss_weights(value):
    if not isinstance(value, list) or len(value) != len(LOSS_WEIGHTS):
        raise ValueError(f"must be a list of {len(LOSS_WEIGHTS)} numbers, coarse to fine")
    return tuple(number(weight, low=0) for weight in value)


def _beginnings(value):
    if not isinstance(value, list) or not value or not all(v and type(v) is str for v in value):
        raise ValueError("must be a list of names of parameters, or of what they begin with")
    return tuple(value)


def _schedule(value):
    """[[last step, rate], ...] with growing steps -> tuple of (int, float)."""
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of [last step, rate] pairs")
    schedule = []
    for entry in value:
        if not isinstance(entry, list) or len(entry) != 2:
            raise ValueError(f"must be a list of [last step, rate] pairs, not {entry!r}")
        step, rate = number(entry[0], above=0), positive(entry[1])
        if step != int(step):
            raise ValueError(f"needs whole steps, not {entry[0]!r}")
        if schedule and step <= schedule[-1][0]:
            raise ValueError(f"needs growing steps, but {int(step)} follows {schedule[-1][0]}")
        schedule.append((int(step), rate))
    return tuple(schedule)


@dataclass(frozen=True)
class Network:
    class_: str = option(one_of(*NETWORKS))
    # Pixels per unit of the network's output, divided by 20.
    flow_multiplier: float = option(positive, default=1.0)
    # Weights of the five scales in the loss, coarse to fine.
    mw: tuple = option(_loss_weights, default=LOSS_WEIGHTS)
    # Second stage of a newly trained MaskFlownet; a checkpoint's record has precedence.
    pyramid: str = option(one_of(*PYRAMIDS), default="paper")


@dataclass(frozen=True)
class Optimizer:
    learning_rate: tuple = option(_schedule)
    # Exponent of the robust loss for fine-tuning; without it the loss is the end-point error.
    q: float = option(optional(positive), default=None)
    # Weight decay of the weights, not of the biases.
    wd: float = option(lambda value: number(value, low=0), default=0.0)
    # Adam's. The gradients of masks and of the coarsest level are as small as 1e-9 to 1e-7, above
    # all with q: at the default, the published one, they are trained more slowly than the rest.
    epsilon: float = option(positive, default=1e-8)
    # Beginnings of the names of parameters: only these are trained, the others stay as they are.
    trained: tuple = option(optional(_beginnings), default=None)

    def chosen(self, names: Iterable[str]) -> set[str]:
        """Those of the parameters `names` that are trained.

        Raises
        ------
        UserError
            One of the beginnings in `trained` fits none of them.
        """
        names = set(names)
        if self.trained is None:
            return names
        for beginning in self.trained:
            if not any(name.startswith(beginning) for name in names):
                raise UserError(
                    f"optimizer.trained: no parameter to train has a name that begins with "
                    f"{beginning}"
                )
        return {name for name in names if name.startswith(self.trained)}


@dataclass(frozen=True)
class NetworkConfig:
    network: Network = option(Network)
    optimizer: Optimizer = option(Optimizer)
    path: Path = field(default=None)  # of the file; no key


def find_config(name, folder: Path = CONFIGS) -> Path:
    """Path of a config given as a path or as a name in `config_folder/`, `.yaml` optional."""
    for candidate in (Path(name), folder / name, folder / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    known = sorted(path.name for path in folder.glob("*.yaml"))
    raise UserError(
        f"no config {name}{nearest(name, known)} (neither a file nor one of {', '.join(known)})"
    )


def load_network_config(name) -> NetworkConfig:
    """Read and check the config of a network, by name or path."""
    path = find_config(name)
    content = read_yaml(path)
    if not isinstance(content.get("network"), dict):
        raise UserError(f"{path} is no network config: it has no key network")
    return replace(parse(NetworkConfig, content, path), path=path)
