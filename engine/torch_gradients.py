"""From a batch as the loader gives it to the gradients of all parameters, on one device."""

from __future__ import annotations

from typing import NamedTuple

import torch

from engine.graphs import graph_of
from engine.interface import TrainingSettings
from engine.torch_adam import FlatAdam
from engine.torch_fusion import computing, module_of
from engine.torch_prediction import centred, to_float

METRIC_STRIDE = 4  # of the finest prediction


class Inputs(NamedTuple):
    """A batch of N samples on the device, and its draws; None without augmentation or noise."""

    img1: torch.Tensor  # (N, H, W, 3) uint8, RGB
    img2: torch.Tensor
    flow: torch.Tensor  # (N, H, W, 2) float32, px, (u, v)
    mask: torch.Tensor  # (N, H, W, 1) uint8, 255 = valid
    geometry: torch.Tensor | None = None  # (N, 22) float32
    colour: torch.Tensor | None = None  # (N, 18) float32
    noise: torch.Tensor | None = None  # (N, 2, 3, target H, target W) float32, standard normal


class Gradients:
    """Computes the gradients of the mean loss, and means of loss and end-point error.

    All is float32 save the network, forward and backward. The means are over the samples of all
    processes: each contributes its part, and a sum over the processes makes them whole.

    Parameters
    ----------
    network : torch.nn.Module
    adam : FlatAdam
        Takes the gradients; its two extra numbers take the means.
    settings : TrainingSettings
    precision : {"float32", "tf32", "bf16"}
    colour : {"RGB", "BGR"}
    """

    def __init__(
        self,
        network: torch.nn.Module,
        adam: FlatAdam,
        settings: TrainingSettings,
        precision: str,
        colour: str,
    ):
        self.network, self.adam, self.settings = network, adam, settings
        self.precision, self.colour_order = precision, colour
        self.trained = list(adam.parameters.values())
        device = self.trained[0].device
        graphs = {
            "loss": {"weights": settings.loss_weights, "q": settings.optimizer.q},
            "metric": {"stride": METRIC_STRIDE},
        }
        if settings.augmentation is not None:
            graphs.update(geometry={"target": settings.target}, colour={})
        self.modules = {
            kind: module_of(graph_of(kind, **options), device) for kind, options in graphs.items()
        }

    def __call__(self, inputs: Inputs) -> torch.Tensor:
        """Put gradients and means into `adam`; the loss of each sample, (N,)."""
        with computing("float32"):
            with torch.no_grad():
                images, label, mask = self._prepare(inputs)
            with computing(self.precision, search=True):
                *flows, _ = self.network(*images)
            # Cut in two, so that the loss is differentiated in float32, too.
            leaves = [flow.detach().float().requires_grad_() for flow in flows]
            (losses,) = self.modules["loss"](label, mask, *leaves)
            parts = self.settings.world * self.settings.share[1]
            loss = losses.sum() / (len(losses) * parts)
            towards = torch.autograd.grad(loss, leaves)
            towards = [part.to(flow.dtype) for part, flow in zip(towards, flows)]
            with computing(self.precision, search=True):
                gradients = torch.autograd.grad(flows, self.trained, towards)
            self.adam.set_gradients(gradients)
            with torch.no_grad():
                (errors,) = self.modules["metric"](leaves[-1], label, mask)
                self.adam.extra[0] = loss.detach()
                self.adam.extra[1] = errors.mean() / parts
            return losses.detach()

    def _prepare(self, inputs: Inputs):
        """Two centred images (N, 3, H, W), label (N, 2, H, W) (y, x), px, and mask."""
        images = [to_float(image) for image in (inputs.img1, inputs.img2)]
        flow = inputs.flow.permute(0, 3, 1, 2).contiguous()  # (u, v)
        mask = to_float(inputs.mask)
        if inputs.geometry is not None:
            geometry, colour = self.modules["geometry"], self.modules["colour"]
            *images, flow, mask = geometry(*images, flow, mask, inputs.geometry)
            if inputs.noise is None:
                noises = [torch.zeros_like(image) for image in images]
            else:
                noises = [inputs.noise[:, i] for i in range(2)]
            images = colour(*images, *noises, inputs.colour)
        return centred(images, self.colour_order), flow.flip(1), mask
