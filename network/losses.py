"""Training loss and metric: the multi-scale end-point error of PWC-Net (Sun et al., CVPR 2018, sections 3 and 4).

Predictions are upsampled to the label, which PWC-Net shrinks instead. Both share one channel order; masks are the
weight of the label, 0 to 1.
"""

from maskflownet.network.architecture import EPE_EPSILON, LOSS_WEIGHTS, STRIDES
from maskflownet.network.compat import mx
from maskflownet.network.layers import Upsample


def masked_mean(F, error, mask):
    """Mean of each sample weighted by the mask: (N, 1, H, W) twice -> (N,); 0 where all of it is 0."""
    total = F.sum(error * mask, axis=0, exclude=True)
    count = F.sum(mask, axis=0, exclude=True)
    return total / (count + (count == 0))


class EndPointError(mx.gluon.HybridBlock):
    """Average end-point error of a prediction at `stride`, per sample.

    (N, 2, H / stride, W / stride), label (N, 2, H, W), mask (N, 1, H, W) -> (N,), px.

    With `q` the robust measure of fine-tuning instead: ``(sum |difference| + 1e-8)^q``.
    """

    def __init__(self, stride: int, q: float | None = None, **kwargs):
        super().__init__(**kwargs)
        self.q = q
        self.upsample = Upsample(stride, channels=2)

    def hybrid_forward(self, F, prediction, label, mask):
        difference = self.upsample(prediction) - label
        if self.q is None:
            error = F.sqrt(F.sum(F.square(difference), axis=1, keepdims=True) + EPE_EPSILON)
        else:
            error = (F.sum(F.abs(difference), axis=1, keepdims=True) + EPE_EPSILON) ** self.q
        return masked_mean(F, error, mask)


class MultiscaleEPE(mx.gluon.HybridBlock):
    """Weighted sum of the end-point errors of the five predictions, (N,) per sample."""

    def __init__(self, weights=LOSS_WEIGHTS, q: float | None = None, **kwargs):
        super().__init__(**kwargs)
        self.weights = tuple(weights)
        if len(self.weights) != len(STRIDES):
            raise ValueError(f"{len(STRIDES)} weights are needed, coarse to fine, not {weights!r}")
        for stride in STRIDES:
            setattr(self, f"error{stride}", EndPointError(stride, q))

    def hybrid_forward(self, F, label, mask, *predictions):
        loss = 0
        for weight, stride, prediction in zip(self.weights, STRIDES, predictions):
            loss = loss + weight * getattr(self, f"error{stride}")(prediction, label, mask)
        return loss
