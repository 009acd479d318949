"""The operators of the two networks as small HybridBlocks.

All tensors are NCHW. Flow inside the network has its channels in the order (y, x).
"""

from maskflownet.network.architecture import SLOPE
from maskflownet.network.compat import mx


def leaky_relu(F, x):
    return F.LeakyReLU(x, act_type="leaky", slope=SLOPE)


def plain_conv(channels: int, in_channels: int, stride: int = 1, dilation: int = 1, **kwargs):
    """3x3 convolution padded by its dilation, without activation; keys `NAME.weight`."""
    return mx.gluon.nn.Conv2D(
        channels, 3, stride, padding=dilation, dilation=dilation, in_channels=in_channels, **kwargs
    )


def conv(channels: int, in_channels: int, stride: int = 1, dilation: int = 1, active=True, **kwargs):
    """3x3 convolution, then LeakyReLU if `active`; keys `NAME.0.weight`."""
    block = mx.gluon.nn.HybridSequential(**kwargs)
    with block.name_scope():
        block.add(plain_conv(channels, in_channels, stride, dilation))
        if active:
            block.add(mx.gluon.nn.LeakyReLU(SLOPE))
    return block


def upfeat(channels: int, in_channels: int, **kwargs):
    """4x4 transposed convolution that doubles height and width, then LeakyReLU."""
    block = mx.gluon.nn.HybridSequential(**kwargs)
    with block.name_scope():
        block.add(mx.gluon.nn.Conv2DTranspose(channels, 4, 2, padding=1, in_channels=in_channels))
        block.add(mx.gluon.nn.LeakyReLU(SLOPE))
    return block


class Correlation(mx.gluon.HybridBlock):
    """Cost volume of two feature maps.

    ``out[(dy + radius)(2 radius + 1) + dx + radius, y, x] = mean_c a[c, y, x] b[c, y + dy, x + dx]`` with zeros
    outside `b`: (N, C, H, W) twice -> (N, (2 radius + 1)^2, H, W).
    """

    def __init__(self, radius: int, **kwargs):
        super().__init__(**kwargs)
        self.radius = radius

    def hybrid_forward(self, F, a, b):
        fixed = {"kernel_size": 1, "stride1": 1, "stride2": 1, "is_multiply": True}
        return F.Correlation(a, b, max_displacement=self.radius, pad_size=self.radius, **fixed)


class DeformableConv(mx.gluon.HybridBlock):
    """3x3 deformable convolution whose nine taps share one offset, here the flow.

    (N, C, H, W) features and (N, 2, H, W) offsets in feature pixels, (y, x) -> (N, channels, H, W).
    """

    def __init__(self, channels: int, in_channels: int, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.weight = self.params.get("weight", shape=(channels, in_channels, 3, 3))
        self.bias = self.params.get("bias", shape=(channels,), init="zeros")

    def hybrid_forward(self, F, x, offset, weight, bias):
        return F.contrib.DeformableConvolution(
            x,
            F.tile(offset, reps=(1, 9, 1, 1)),  # (N, 18, H, W)
            weight,
            bias,
            kernel=(3, 3),
            pad=(1, 1),
            num_filter=self.channels,
        )


class Upsample(mx.gluon.HybridBlock):
    """Linear upsampling by a whole factor, aligned to the first sample, edge held.

    ``out[o] = lerp(x[o // f], x[min(o // f + 1, n - 1)], (o mod f) / f)`` along both axes:
    (N, channels, H, W) -> (N, channels, f H, f W). Every channel is one group of a transposed
    convolution, whose triangular kernel is computed in the graph and is no parameter.
    """

    def __init__(self, factor: int, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.channels = channels

    def hybrid_forward(self, F, x):
        f, c = self.factor, self.channels
        # 2f taps with the peak at index f: with one row of edge padding the output has f n rows.
        triangle = 1 - F.abs(F.arange(2 * f) - f) / f
        kernel = F.dot(triangle.reshape((2 * f, 1)), triangle.reshape((1, 2 * f)))
        kernel = F.tile(kernel.reshape((1, 1, 2 * f, 2 * f)), reps=(c, 1, 1, 1))
        padded = F.pad(x, mode="edge", pad_width=(0, 0, 0, 0, 0, 1, 0, 1))
        return F.Deconvolution(
            padded, kernel, kernel=(2 * f, 2 * f), stride=(f, f), pad=(f, f), num_filter=c, num_group=c, no_bias=True
        )


class Warp(mx.gluon.HybridBlock):
    """Backward warping: ``out(p) = x(p + flow(p))``, bilinear.

    (N, C, H, W) and flow (N, 2, H, W) in pixels, (y, x) -> (N, C, H, W). Samples outside are zero,
    with a partial weight at the border; with `clamp` the nearest border pixel instead.
    """

    def __init__(self, clamp: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.clamp = clamp

    def hybrid_forward(self, F, x, flow):
        grid = F.GridGenerator(F.flip(flow, axis=1), transform_type="warp")
        if self.clamp:
            grid = F.clip(grid, -1, 1)
        return F.BilinearSampler(x, grid)
