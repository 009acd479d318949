"""At which size the network sees an image, and how its flow gets back to the image's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from engine.errors import UserError

LARGEST = 16384  # px a side
MULTIPLE = 64  # the coarsest pyramid level has stride 64


def _round_up(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE


@dataclass(frozen=True)
class Sizing:
    """The size of the network's input.

    Without options the next multiples of 64; `resize` (H, W) instead; or with `pad` the image is
    not scaled but its edges are repeated, the same amount on both sides, to multiples of 64.
    """

    resize: tuple[int, int] | None = None
    pad: bool = False

    def __post_init__(self):
        if self.pad and self.resize:
            raise UserError("--resize and --pad exclude each other")
        if self.resize and max(self.resize) > LARGEST:
            raise UserError(f"--resize is at most {LARGEST} px a side, not {max(self.resize)}")
        if self.resize and any(side < MULTIPLE or side % MULTIPLE for side in self.resize):
            height, width = self.resize
            raise UserError(
                f"--resize {height},{width} is not possible: height and width must be multiples "
                f"of {MULTIPLE}, such as {_round_up(max(height, 1))},{_round_up(max(width, 1))}"
            )

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        return self.resize or (_round_up(height), _round_up(width))

    def padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Pixels to add at the top, bottom, left and right."""
        extra_h, extra_w = _round_up(height) - height, _round_up(width) - width
        return extra_h // 2, extra_h - extra_h // 2, extra_w // 2, extra_w - extra_w // 2

    def fitting(self, height: int, width: int, pad: Callable, resize: Callable):
        """Functions that bring images (N, C, H, W) to the network's size, and its outputs back.

        The second one returns the outputs and the factors (y, x) from network to image pixels.

        Parameters
        ----------
        height, width : int
            Of the images, px.
        pad : callable(x, top, bottom, left, right)
            An engine's repetition of the edges.
        resize : callable(x, height, width)
            An engine's bilinear resizing, corners aligned.
        """
        if self.pad:
            sides = self.padding(height, width)
            top, _, left, _ = sides

            def fit(x):
                return pad(x, *sides)

            def unfit(x):
                return x[:, :, top : top + height, left : left + width], (1, 1)

        else:
            size = self.network_size(height, width)

            def fit(x):
                return resize(x, *size)

            def unfit(x):
                return resize(x, height, width), (height / size[0], width / size[1])

        return fit, unfit
