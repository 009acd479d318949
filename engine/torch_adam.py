"""Adam as MXNet computes it, over all parameters at once."""

from __future__ import annotations

import math
from typing import Mapping, Sequence

import numpy as np
import torch

BETA_1, BETA_2 = 0.9, 0.999
ALIGNMENT = 64  # floats: every parameter begins where kernels read fastest


class FlatAdam:
    """Adam (Kingma and Ba, ICLR 2015) on one flat tensor each of values, gradients and moments.

    The parameters become views of the values, so that an update is a handful of kernels and a sum
    over processes one call. As in MXNet, epsilon is added to the root of the uncorrected variance:
    ``w -= rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)``.

    Parameters
    ----------
    parameters : mapping of str to torch.nn.Parameter
        All on one device.
    decay : float
        Weight decay, of weights and not of biases: this times the weight is added to its gradient.
    extra : int
        Numbers behind the gradients that are summed over the processes with them.
    epsilon : float
        Gradients that are not far above it move a parameter less than others do.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        decay: float = 0.0,
        extra: int = 0,
        epsilon: float = 1e-8,
    ):
        self.epsilon = epsilon
        # Weights first, so that those that decay are one stretch.
        ordered = sorted(parameters, key=lambda name: name.endswith("bias"))
        self.decay, self.parameters = decay, {name: parameters[name] for name in ordered}
        self.starts, size, self.decayed = {}, 0, 0
        for name in ordered:
            self.starts[name] = size
            size += -(-parameters[name].numel() // ALIGNMENT) * ALIGNMENT
            if not name.endswith("bias"):
                self.decayed = size
        device = parameters[ordered[0]].device
        self.values, self.means, self.variances = (torch.zeros(size, device=device) for _ in "123")
        self.summed = torch.zeros(size + extra, device=device)
        self.gradients, self.extra = self.summed[:size], self.summed[size:]
        self._padding = torch.zeros(ALIGNMENT, device=device)
        for name, parameter in self.parameters.items():
            view = self._view(self.values, name)
            view.copy_(parameter.detach())
            parameter.data = view

    def _view(self, flat: torch.Tensor, name: str) -> torch.Tensor:
        parameter, start = self.parameters[name], self.starts[name]
        return flat[start : start + parameter.numel()].view(parameter.shape)

    @torch.no_grad()
    def set_gradients(self, gradients: Sequence[torch.Tensor]) -> None:
        """Take the gradients, in the order of `parameters`."""
        pieces = []
        for gradient in gradients:
            pieces.append(gradient.reshape(-1))
            gap = -gradient.numel() % ALIGNMENT
            if gap:
                pieces.append(self._padding[:gap])
        torch.cat(pieces, out=self.gradients)

    @torch.no_grad()
    def update(self, rate: torch.Tensor, wanted: torch.Tensor) -> None:
        """Update the parameters, or leave everything as it is.

        Parameters
        ----------
        rate : () float32 tensor
            See `corrected_rate`.
        wanted : () bool tensor
            On the device like the rate: the host does not wait for either.
        """
        gradients = self.gradients
        if self.decay:
            weights = slice(self.decayed)
            gradients[weights].add_(self.values[weights], alpha=self.decay)
        gradients.masked_fill_(~wanted, 0.0)
        self.means.mul_(torch.where(wanted, BETA_1, 1.0)).add_(gradients, alpha=1 - BETA_1)
        self.variances.mul_(torch.where(wanted, BETA_2, 1.0))
        self.variances.addcmul_(gradients, gradients, value=1 - BETA_2)
        change = self.variances.sqrt().add_(self.epsilon)
        torch.div(self.means, change, out=change)
        self.values.sub_(change.mul_(torch.where(wanted, rate, 0.0)))

    def state(self) -> dict[str, np.ndarray]:
        """`mean.NAME` and `var.NAME` of every parameter, copies on the host."""
        return {
            f"{kind}.{name}": self._view(flat, name).cpu().numpy().copy()
            for name in self.parameters
            for kind, flat in (("mean", self.means), ("var", self.variances))
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        for name in self.parameters:
            for kind, flat in (("mean", self.means), ("var", self.variances)):
                self._view(flat, name).copy_(torch.from_numpy(np.array(state[f"{kind}.{name}"])))


def corrected_rate(rate: float, step: int) -> float:
    """The learning rate with the corrections for the moments' start at 0, after `step` steps."""
    t = step + 1
    return rate * math.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
