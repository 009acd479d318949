"""The augmentation of image pairs and their labels on the device.

Deterministic blocks: what is random comes in as arrays, drawn by `maskflownet.network.draws`.
"""

from collections.abc import Mapping

from maskflownet.network.compat import mx
from maskflownet.network.draws import COLOUR_COLUMNS, GEOMETRY_COLUMNS, Shape

# A pixel that takes less than this share from valid pixels has no label; it is above the rounding
# of the sampling positions (1e-4 px), which would otherwise make labels out of next to nothing.
LEAST_SHARE = 1e-3


def _columns(F, params, columns: Mapping[str, tuple[int, int]], key: str):
    begin, end = columns[key]
    return F.slice_axis(params, axis=1, begin=begin, end=end)


def _per_channel(F, row):
    return F.reshape(row, shape=(0, -1, 1, 1))  # (N, C) -> (N, C, 1, 1)


def _mix_channels(F, x, matrix, channels: int):
    """Multiply the channels by `matrix`, (N, channels^2) column by column, in plain float32.

    Written out because matrix products may run at reduced precision on a GPU.
    """
    mixed = None
    for i in range(channels):
        column = F.slice_axis(matrix, axis=1, begin=channels * i, end=channels * (i + 1))
        channel = F.slice_axis(x, axis=1, begin=i, end=i + 1)
        term = F.broadcast_mul(channel, _per_channel(F, column))
        mixed = term if mixed is None else F.broadcast_add(mixed, term)
    return mixed


class GeometryAugmentation(mx.gluon.HybridBlock):
    """Sample both images through affine windows of the `target` size (H, W); label and mask follow exactly.

    Inputs: images (N, 3, Ho, Wo), flow (N, 2, Ho, Wo) px (u, v), mask (N, 1, Ho, Wo) with 1 =
    valid, and the (N, 22) of `draw_geometry` made for the same two shapes. The flow must be finite,
    also where the mask is 0.

    Outputs: images (N, 3, Ht, Wt), image 2 zero outside the picture; flow (N, 2, Ht, Wt) px (u, v),
    0 where the mask is 0; mask (N, 1, Ht, Wt), the share in [0, 1] that valid pixels have in the
    bilinear sample, to be used as the loss's weight.
    """

    def __init__(self, target: Shape, **kwargs):
        super().__init__(**kwargs)
        self._target = tuple(target)

    def _affine(self, F, params, key: str):
        affine = _columns(F, params, GEOMETRY_COLUMNS, key)
        return F.GridGenerator(affine, transform_type="affine", target_shape=self._target)

    def hybrid_forward(self, F, img1, img2, flow, mask, params):  # noqa: PLR0917
        # Rounding must not push a sample of image 1 over the border.
        grid1 = F.clip(self._affine(F, params, "grid1"), -1, 1)  # (N, 2, Ht, Wt), (x, y)
        grid2 = self._affine(F, params, "grid2")
        # One call, so that flow and mask are summed with bitwise the same weights.
        first = F.concat(img1, F.broadcast_mul(flow, mask), mask, dim=1)  # (N, 6, Ho, Wo)
        first = F.BilinearSampler(first, grid1)
        img1 = F.slice_axis(first, axis=1, begin=0, end=3)
        flow = F.slice_axis(first, axis=1, begin=3, end=5)
        mask = F.slice_axis(first, axis=1, begin=5, end=6)
        img2 = F.BilinearSampler(img2, grid2)

        flow = F.broadcast_div(flow, F.maximum(mask, LEAST_SHARE))
        matrix = _columns(F, params, GEOMETRY_COLUMNS, "flow")
        # GridGenerator evaluates the affine map at each target pixel.
        label = F.broadcast_add(_mix_channels(F, flow, matrix, 2), self._affine(F, params, "windows"))
        valid = mask > LEAST_SHARE
        return img1, img2, F.broadcast_mul(label, valid), F.broadcast_mul(mask, valid)


class ColourAugmentation(mx.gluon.HybridBlock):
    """Change colours, the same for both images, and add noise, another for each.

    Order: saturation and hue, noise, contrast with gain and brightness, clip to [0, 1], gamma.

    Inputs: images (N, 3, H, W) RGB in [0, 1], standard normal noise of the same shape for each
    (see `Draws.noise_seeds`), and the (N, 18) of `draw_colour`. Outputs: both images.
    """

    def hybrid_forward(self, F, img1, img2, noise1, noise2, params):  # noqa: PLR0917
        return self._colour(F, img1, noise1, params), self._colour(F, img2, noise2, params)

    @staticmethod
    def _colour(F, img, noise, params):
        def value(key: str):
            return _per_channel(F, _columns(F, params, COLOUR_COLUMNS, key))

        img = _mix_channels(F, img, _columns(F, params, COLOUR_COLUMNS, "hue"), 3)
        img = F.broadcast_add(img, F.broadcast_mul(noise, value("noise")))
        mean = F.mean(img, axis=(2, 3), keepdims=True)  # (N, 3, 1, 1)
        offset = F.broadcast_add(F.broadcast_mul(mean, value("mean")), value("brightness"))
        img = F.broadcast_add(F.broadcast_mul(img, value("scale")), offset)
        return F.broadcast_power(F.clip(img, 0, 1), value("gamma"))
