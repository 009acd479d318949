"""MaskFlownet-S and MaskFlownet (Zhao et al., CVPR 2020, sections 3.1 to 3.3).

Layers are attributes of the network itself, created by level, because their names are the keys of
the ``.params`` files: `conv{level}{letter}`, `conv{level}_{i}`, `upfeat{level}`, `deform{level}`,
`pred_flow{level}`, `pred_mask{level}`, `dc_conv{i}`. The torch engine fuses layers by these names
(`engine.torch.fused.plan`).

Images are (N, 3, H, W), RGB in [0, 1] minus the mean of both images per sample and channel; height
and width are multiples of 64. Flows are (N, 2, H / stride, W / stride), (y, x).
"""

from maskflownet.network.architecture import (
    CONTEXT_CHANNELS,
    CONTEXT_DILATIONS,
    DENSE_CHANNELS,
    LEVELS,
    PIXELS_PER_UNIT,
    PYRAMID_CHANNELS,
    PYRAMIDS,
    UPFEAT_CHANNELS,
)
from maskflownet.network.compat import mx
from maskflownet.network.layers import Correlation, DeformableConv, Upsample, Warp, conv, leaky_relu, plain_conv, upfeat


class FlowNetwork(mx.gluon.HybridBlock):
    """What both stages share: pyramid, decoder over the levels, context network.

    A subclass says what enters each level's dense block. `decoder_inputs` has, by level, the number of its
    channels; `deform_levels` have a deformable convolution; `flow_multiplier` is pixels per unit of the network's flow,
    divided by 20.
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
        channels = self.dense_channels(decoder_inputs[LEVELS[-1]])
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
    def dense_channels(channels: int) -> int:
        """Channels after a dense block that `channels` enter."""
        return channels + sum(DENSE_CHANNELS)

    def _add_dense_block(self, level, channels):
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
        """Run the decoder: the flows of levels 6 to 2 in flow units, each (N, 2, h, w), (y, x).

        At each level come `inputs`, the dense block, `on_level`, then the flow.

        The prediction of level 6 is added to `flow` (N, 2, H/64, W/64), if there is one.
        `inputs(level, features, flow)` gives the input (N, C, h, w) of a level's dense block; features (N, 16, h, w)
        and flow (N, 2, h, w) come from the level above, None and the first flow at level 6.
        `on_level(level, x)` is called with the output of each dense block.
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


class MaskFlownet_S(FlowNetwork):
    """The first stage: asymmetric occlusion-aware feature matching.

    Call with two images; `outputs` of the call:

    * flows: five predictions in px, coarse (stride 64) to fine (stride 4)
    * mask: (N, 1, H/4, W/4) in [0, 1], 1 = visible in image 2
    * for the second stage: features of image 1 and of image 2 and the flows in flow units, levels
      6 to 2 each, and the logit of the mask.
    """

    RADIUS = 4

    def __init__(self, flow_multiplier: float = 1.0, **kwargs):
        matches = (2 * self.RADIUS + 1) ** 2
        channels = {
            level: matches + (PYRAMID_CHANNELS[level] + UPFEAT_CHANNELS + 2 if level < 6 else 0) for level in LEVELS
        }
        super().__init__(channels, LEVELS[1:], flow_multiplier, **kwargs)
        self.add_cost_volume("correlation", self.RADIUS)
        self.add_pyramid("abc", in_channels=3)
        for level in LEVELS[:-1]:
            self.add(f"pred_mask{level}", plain_conv, 1, self.dense_channels(channels[level]))
        for level in LEVELS[1:]:
            level_channels = PYRAMID_CHANNELS[level]
            self.add(f"upsample_mask{level}", Upsample, 2, channels=1)
            # The paper's mu, added to the masked features: it stands in for what the mask hides.
            self.add(f"conv{level}f", conv, level_channels, UPFEAT_CHANNELS, active=False)

    def hybrid_forward(self, F, image_1, image_2):
        c1, c2 = self.pyramid(F, image_1, image_2, "abc")
        mask = None  # logit; `predict_mask` sets it, the next level's `inputs` upsamples it

        def inputs(level, features, flow):
            nonlocal mask
            if level == LEVELS[0]:
                return self.cost_volume(F, f"correlation{level}", c1[level], c2[level])
            mask = self.layer(f"upsample_mask{level}")(mask)
            warped = F.broadcast_mul(self.deform(level, c2[level], flow), F.sigmoid(mask))
            warped = leaky_relu(F, warped + self.layer(f"conv{level}f")(features))
            matches = self.cost_volume(F, f"correlation{level}", c1[level], warped)
            return F.concat(matches, c1[level], features, flow, dim=1)

        def predict_mask(level, x):
            nonlocal mask
            if level > LEVELS[-1]:
                mask = self.layer(f"pred_mask{level}")(x)

        flows = self.decode(F, None, inputs, predict_mask)
        second_stage = [*([c[level] for level in LEVELS] for c in (c1, c2)), flows, mask]
        return [flow * self.scale for flow in flows], F.sigmoid(mask), second_stage


class SecondStageImages(mx.gluon.HybridBlock):
    """The two 4-channel images of the second stage (section 3.3), without parameters.

    Images (N, 3, H, W), flow (N, 2, H/4, W/4) in px and mask logit (N, 1, H/4, W/4) -> (N, 4, H, W)
    twice: image 1 with a zero channel, image 2 warped by the flow with the mask minus 0.5.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.upsample_flow = Upsample(4, channels=2)
        self.upsample_mask = Upsample(4, channels=1)
        self.warp = Warp()

    def hybrid_forward(self, F, image_1, image_2, flow, mask):
        visible = F.sigmoid(self.upsample_mask(mask))
        warped = self.warp(image_2, self.upsample_flow(flow))
        return (F.concat(image_1, F.zeros_like(visible), dim=1), F.concat(warped, visible - 0.5, dim=1))


# The released second stage reads these levels of image 2 from image 1 (`pyramid: released`).
SWAPPED_LEVELS = (2, 3)


class MaskFlownet(FlowNetwork):
    """The cascade: `MaskFlownet_S` as the head, then dual pyramids that refine its flow.

    Returns the five flows in px, coarse to fine, and the head's mask (N, 1, H/4, W/4).

    The `pyramid` "paper" matches image 2; "released" reproduces the network of the authors' checkpoints,
    in which levels 2 and 3 of image 2 are the features of image 1 in this stage.
    """

    RADIUS = 2

    def __init__(self, flow_multiplier: float = 1.0, pyramid: str = "paper", **kwargs):
        if pyramid not in PYRAMIDS:
            raise ValueError(f"pyramid must be one of {', '.join(PYRAMIDS)}, not {pyramid!r}")
        matches = 2 * (2 * self.RADIUS + 1) ** 2
        channels = {
            level: matches + (PYRAMID_CHANNELS[level] + UPFEAT_CHANNELS + 4 if level < 6 else 2) for level in LEVELS
        }
        super().__init__(channels, LEVELS, flow_multiplier, **kwargs)
        self.swapped = SWAPPED_LEVELS if pyramid == "released" else ()
        self.add("MaskFlownet_S", MaskFlownet_S, flow_multiplier)
        self.add("second_stage_images", SecondStageImages)
        self.add_cost_volume("correlation_first", self.RADIUS)
        self.add_cost_volume("correlation_second", self.RADIUS)
        self.add_pyramid("xyz", in_channels=4)

    def hybrid_forward(self, F, image_1, image_2):
        head_flows_px, mask, second_stage = self.MaskFlownet_S(image_1, image_2)
        c1, c2, head_flows, mask_logit = second_stage
        second_1, second_2 = self.second_stage_images(image_1, image_2, head_flows_px[-1], mask_logit)
        c1, c2 = dict(zip(LEVELS, c1)), dict(zip(LEVELS, c2))
        c2.update({level: c1[level] for level in self.swapped})
        c3, c4 = self.pyramid(F, second_1, second_2, "xyz")
        head_flow = dict(zip(LEVELS, head_flows))

        def inputs(level, features, flow):
            warped = leaky_relu(F, self.deform(level, c2[level], flow))
            first = self.cost_volume(F, f"correlation_first{level}", c1[level], warped)
            second = self.cost_volume(F, f"correlation_second{level}", c3[level], c4[level])
            if level == LEVELS[0]:
                return F.concat(first, second, flow, dim=1)
            return F.concat(c1[level], features, first, second, flow, head_flow[level], dim=1)

        flows = self.decode(F, head_flow[LEVELS[0]], inputs)
        return [flow * self.scale for flow in flows], mask
