"""What both networks are made of: a feature pyramid and a coarse-to-fine decoder.

Layers are attributes of the network itself, created by level, because their names are the keys of
the ``.params`` files: `conv{level}{letter}`, `conv{level}_{i}`, `upfeat{level}`, `deform{level}`,
`pred_flow{level}`, `dc_conv{i}`.
"""

from __future__ import annotations

from network.layers import (
    Correlation,
    DeformableConv,
    Upsample,
    conv,
    leaky_relu,
    plain_conv,
    upfeat,
)
from network.mx import mx

PYRAMID_CHANNELS = {1: 16, 2: 32, 3: 64, 4: 96, 5: 128, 6: 196}
LEVELS = (6, 5, 4, 3, 2)  # of the decoder, coarse to fine; level l has stride 2^l
STRIDES = tuple(2**level for level in LEVELS)
DENSE_CHANNELS = (128, 128, 96, 64, 32)
UPFEAT_CHANNELS = 16
CONTEXT_CHANNELS = (128, 128, 128, 96, 64, 32)
CONTEXT_DILATIONS = (1, 2, 4, 8, 16, 1)
PIXELS_PER_UNIT = 20.0  # the network's flow unit is 20 px x flow_multiplier


class FlowNetwork(mx.gluon.HybridBlock):
    """Pyramid, dense decoder and context network, without the wiring between the levels.

    Parameters
    ----------
    decoder_inputs : dict of int to int
        Number of channels that enter the dense block of each level.
    deform_levels : tuple of int
        Levels with a deformable convolution.
    flow_multiplier : float
        Pixels per unit of the network's flow, divided by 20.
    """

    def __init__(self, decoder_inputs, deform_levels, flow_multiplier=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = PIXELS_PER_UNIT * flow_multiplier
        for level in LEVELS:
            self._add_dense_block(level, decoder_inputs[level])
        for level in LEVELS[1:]:
            self.add(f"upsample_flow{level}", Upsample, 2, channels=2)
        for level in deform_levels:
            channels = PYRAMID_CHANNELS[level]
            self.add(f"deform{level}", DeformableConv, channels, channels)
        channels = self.dense_outputs(decoder_inputs[LEVELS[-1]])
        for i, (outputs, dilation) in enumerate(zip(CONTEXT_CHANNELS, CONTEXT_DILATIONS), 1):
            self.add(f"dc_conv{i}", conv, outputs, channels, dilation=dilation)
            channels = outputs
        self.add("dc_conv7", plain_conv, 2, channels)

    def add(self, name: str, make, *args, **kwargs) -> None:
        """Create a layer as attribute `name`, which becomes its parameter key and node name.

        Every use of an operator is a layer of its own, also where it has no parameters: two nodes
        of one name would make the traced graph ambiguous.
        """
        with self.name_scope():
            setattr(self, name, make(*args, prefix=f"{name}_", **kwargs))

    def layer(self, name: str):
        return getattr(self, name)

    @staticmethod
    def dense_outputs(inputs: int) -> int:
        """Channels after the dense block of a level that `inputs` channels enter."""
        return inputs + sum(DENSE_CHANNELS)

    def _add_dense_block(self, level, inputs):
        channels = inputs
        for i, outputs in enumerate(DENSE_CHANNELS):
            self.add(f"conv{level}_{i}", conv, outputs, channels)
            channels += outputs
        self.add(f"pred_flow{level}", plain_conv, 2, channels)
        if level > LEVELS[-1]:
            self.add(f"upfeat{level - 1}", upfeat, UPFEAT_CHANNELS, channels)

    def add_cost_volume(self, name: str, radius: int) -> None:
        """Create `{name}{level}` for all levels, with (2 radius + 1)^2 channels each."""
        for level in LEVELS:
            self.add(f"{name}{level}", Correlation, radius)

    def add_pyramid(self, letters: str, in_channels: int) -> None:
        """Create `conv{level}{letter}` for levels 1 to 6; the first letter halves the size."""
        channels = in_channels
        for level, outputs in PYRAMID_CHANNELS.items():
            for i, letter in enumerate(letters):
                self.add(f"conv{level}{letter}", conv, outputs, channels, 2 if i == 0 else 1)
                channels = outputs

    def pyramid(self, F, image_1, image_2, letters: str):
        """Features of both images, computed in one pass over a batch of twice the size.

        (N, C, H, W) twice -> two dicts of decoder level to (N, channels, H / 2^level, W / 2^level).
        """
        x = F.concat(image_1, image_2, dim=0)
        first, second = {}, {}
        for level in PYRAMID_CHANNELS:
            for letter in letters:
                x = self.layer(f"conv{level}{letter}")(x)
            if level in LEVELS:
                first[level], second[level] = F.split(x, num_outputs=2, axis=0)
        return first, second

    def cost_volume(self, F, name: str, a, b):
        return leaky_relu(F, self.layer(name)(a, b))

    def deform(self, level: int, x, flow):
        """Align features (N, C, h, w) to image 1 by a flow (N, 2, h, w) in flow units."""
        return self.layer(f"deform{level}")(x, flow * (self.scale / 2**level))

    def dense_block(self, F, level: int, x):
        for i in range(len(DENSE_CHANNELS)):
            x = F.concat(self.layer(f"conv{level}_{i}")(x), x, dim=1)
        return x

    def context(self, x):
        for i in range(1, len(CONTEXT_CHANNELS) + 2):
            x = self.layer(f"dc_conv{i}")(x)
        return x

    def decode(self, F, flow, inputs, on_level=None):
        """Run the decoder from level 6 to level 2.

        Parameters
        ----------
        flow : array or None
            What the prediction of level 6 is added to, (N, 2, H/64, W/64); None for nothing.
        inputs : callable(level, features, flow)
            The input (N, C, h, w) of the level's dense block; features (N, 16, h, w) and flow
            (N, 2, h, w) come from the level above, None and the first flow at level 6.
        on_level : callable(level, x), optional
            Called with the output of each dense block.

        Returns
        -------
        list of (N, 2, h, w)
            Flows of levels 6 to 2 in flow units, (y, x).
        """
        flows, features, x = [], None, None
        for level in LEVELS:
            if level < LEVELS[0]:
                flow = self.layer(f"upsample_flow{level}")(flow)
                features = self.layer(f"upfeat{level}")(x)
            x = self.dense_block(F, level, inputs(level, features, flow))
            if on_level is not None:
                on_level(level, x)
            residual = self.layer(f"pred_flow{level}")(x)
            flow = residual if flow is None else flow + residual
            if level == LEVELS[-1]:
                flow = flow + self.context(x)
            flows.append(flow)
        return flows
