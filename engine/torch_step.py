"""A training step as CUDA graphs, which launch its thousands of kernels at once."""

from __future__ import annotations

from typing import Callable, Sequence

import numpy as np
import torch

from engine.torch_gradients import Gradients, Inputs

WARM_UP = 2  # steps before a capture: cuDNN times its algorithms, kernels are compiled


class CapturedStep:
    """The two halves of a step, captured when the first batch is there.

    Between them gradients may be summed over processes, on the same stream.

    Parameters
    ----------
    gradients : Gradients
    update : callable
        Changes the parameters by the gradients, but nothing where the mean loss is no number.
    device : torch.device
    stream : torch.cuda.Stream
        On which all methods are called.
    """

    def __init__(
        self,
        gradients: Gradients,
        update: Callable[[], None],
        device: torch.device,
        stream: torch.cuda.Stream,
    ):
        self._gradients, self._update = gradients, update
        self.device, self.stream = device, stream
        self._generator = torch.Generator(device)
        self._inputs: Inputs | None = None

    def compute_gradients(self, sent: Sequence[torch.Tensor], seeds) -> torch.Tensor:
        """Queue the gradients of a batch; its losses (N,), overwritten by the next call.

        Parameters
        ----------
        sent : sequence of tensors
            The fields of `Inputs` but for the noise, on the device.
        seeds : list
            Of each sample's noise, none for no noise.
        """
        if self._inputs is None:
            self._capture(sent, seeds)
        self._fill(sent, seeds)
        self._gradient_graph.replay()
        return self._losses

    def update(self) -> None:
        """Queue the update."""
        self._update_graph.replay()

    def _fill(self, sent, seeds) -> None:
        for static, given in zip(self._inputs, sent):
            static.copy_(given)
        for row, seed in enumerate(seeds):
            self._generator.manual_seed(_seed_of(seed))
            self._inputs.noise[row].normal_(generator=self._generator)

    def _capture(self, sent, seeds) -> None:
        fields = [torch.empty_like(given) for given in sent]
        if seeds:
            shape = (len(seeds), 2, 3, *self._gradients.settings.target)
            fields.append(torch.empty(shape, device=self.device))
        self._inputs = Inputs(*fields)
        self._fill(sent, seeds)
        for _ in range(WARM_UP):
            self._gradients(self._inputs)
        self._gradient_graph = torch.cuda.CUDAGraph()
        # Thread by thread, because NCCL's own thread asks the device for its state meanwhile.
        with torch.cuda.graph(
            self._gradient_graph, stream=self.stream, capture_error_mode="thread_local"
        ):
            self._losses = self._gradients(self._inputs)
        # The same for the update, with a loss that makes it change nothing.
        extra = self._gradients.adam.extra
        extra.fill_(float("nan"))
        self._update()
        self._update_graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            self._update_graph, stream=self.stream, capture_error_mode="thread_local"
        ):
            self._update()


def _seed_of(entropy: list[int]) -> int:
    """A seed of 63 bits for a device's generator."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
