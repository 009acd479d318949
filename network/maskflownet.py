"""MaskFlownet-S and MaskFlownet (Zhao et al., CVPR 2020, sections 3.1 to 3.3).

Images are (N, 3, H, W), RGB in [0, 1] minus the mean of both images per sample and channel; height
and width are multiples of 64. Flows are (N, 2, H / stride, W / stride), (y, x).
"""

from __future__ import annotations

from network.decoder import LEVELS, PYRAMID_CHANNELS, UPFEAT_CHANNELS, FlowNetwork
from network.layers import Upsample, Warp, conv, leaky_relu, plain_conv
from network.mx import mx

PYRAMIDS = ("paper", "released")
# The released second stage reads these levels of image 2 from image 1 (spec of the checkpoints).
SWAPPED_LEVELS = (2, 3)


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
        inputs = {
            level: matches + (PYRAMID_CHANNELS[level] + UPFEAT_CHANNELS + 2 if level < 6 else 0)
            for level in LEVELS
        }
        super().__init__(inputs, LEVELS[1:], flow_multiplier, **kwargs)
        self.add_cost_volume("correlation", self.RADIUS)
        self.add_pyramid("abc", in_channels=3)
        for level in LEVELS[:-1]:
            self.add(f"pred_mask{level}", plain_conv, 1, self.dense_outputs(inputs[level]))
        for level in LEVELS[1:]:
            channels = PYRAMID_CHANNELS[level]
            self.add(f"upsample_mask{level}", Upsample, 2, channels=1)
            self.add(f"conv{level}f", conv, channels, UPFEAT_CHANNELS, active=False)

    def hybrid_forward(self, F, image_1, image_2):
        c1, c2 = self.pyramid(F, image_1, image_2, "abc")
        mask = None  # logit of the current level

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
        return (
            F.concat(image_1, F.zeros_like(visible), dim=1),
            F.concat(warped, visible - 0.5, dim=1),
        )


class MaskFlownet(FlowNetwork):
    """The cascade: `MaskFlownet_S` as the head, then dual pyramids that refine its flow.

    Returns the five flows in px, coarse to fine, and the head's mask (N, 1, H/4, W/4).

    Parameters
    ----------
    pyramid : {"paper", "released"}
        "paper" matches image 2; "released" reproduces the network of the authors' checkpoints,
        in which levels 2 and 3 of image 2 are the features of image 1 in this stage.
    """

    RADIUS = 2

    def __init__(self, flow_multiplier: float = 1.0, pyramid: str = "paper", **kwargs):
        if pyramid not in PYRAMIDS:
            raise ValueError(f"pyramid must be one of {', '.join(PYRAMIDS)}, not {pyramid!r}")
        matches = 2 * (2 * self.RADIUS + 1) ** 2
        inputs = {
            level: matches + (PYRAMID_CHANNELS[level] + UPFEAT_CHANNELS + 4 if level < 6 else 2)
            for level in LEVELS
        }
        super().__init__(inputs, LEVELS, flow_multiplier, **kwargs)
        self.swapped = SWAPPED_LEVELS if pyramid == "released" else ()
        self.add("MaskFlownet_S", MaskFlownet_S, flow_multiplier)
        self.add("second_stage_images", SecondStageImages)
        self.add_cost_volume("correlation_first", self.RADIUS)
        self.add_cost_volume("correlation_second", self.RADIUS)
        self.add_pyramid("xyz", in_channels=4)

    def hybrid_forward(self, F, image_1, image_2):
        head_flows_px, mask, second_stage = self.MaskFlownet_S(image_1, image_2)
        c1, c2, head_flows, mask_logit = second_stage
        second_1, second_2 = self.second_stage_images(
            image_1, image_2, head_flows_px[-1], mask_logit
        )
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
