"""The numbers of the two networks (Zhao et al., CVPR 2020, section 3). Nothing here imports MXNet."""

import math

NETWORKS = ("MaskFlownet_S", "MaskFlownet")
PYRAMIDS = ("paper", "released")  # which features of image 2 the second stage matches at levels 2 and 3
HEAD = "MaskFlownet_S."  # prefix of the parameter names of the first stage, the head, in MaskFlownet
SLOPE = 0.1  # of every LeakyReLU
PYRAMID_CHANNELS = {1: 16, 2: 32, 3: 64, 4: 96, 5: 128, 6: 196}  # by level; level l has stride 2^l
LEVELS = (6, 5, 4, 3, 2)  # of the decoder, coarse to fine
STRIDES = tuple(2**level for level in LEVELS)
MULTIPLE = max(STRIDES)  # height and width of the network's images are multiples of it
DENSE_CHANNELS = (128, 128, 96, 64, 32)
UPFEAT_CHANNELS = 16  # of the features that are upsampled to the next level
CONTEXT_CHANNELS = (128, 128, 128, 96, 64, 32)
CONTEXT_DILATIONS = (1, 2, 4, 8, 16, 1)
PIXELS_PER_UNIT = 20.0  # the network's flow unit is 20 px x flow_multiplier
LOSS_WEIGHTS = (0.005, 0.01, 0.02, 0.08, 0.32)  # of the five flows, coarse to fine
INITIAL = ("fan_avg", "fan_in")  # how new parameters are drawn


def initial_deviation(name: str, shape: tuple, initial: str = "fan_avg") -> float:
    """Standard deviation of the normal distribution that a new parameter is drawn from; 0 for biases.

    By the variance 2 / (1 + SLOPE^2) / n of He et al. (ICCV 2015). "fan_avg", as the authors: n is the average of a
    weight's inputs and outputs; features then shrink from level to level of the pyramid, and cost volumes begin some
    hundred times smaller. "fan_in": n are the inputs of one output, so that features keep their size; the first
    layer brings images to a deviation of about 1, and the predictions begin near zero.
    """
    if name.endswith("bias"):
        return 0.0
    layer, (outputs, inputs, *kernel) = name.removeprefix(HEAD), shape
    taps = math.prod(kernel)
    if initial == "fan_avg":
        return math.sqrt(2 / (1 + SLOPE**2) / ((outputs + inputs) / 2 * taps))
    if layer.startswith("upfeat"):  # transposed, with stride 2: the shape begins with the inputs
        inputs, taps = outputs, taps / 4
    factor = 5 if layer.startswith(("conv1a", "conv1x")) else 1
    factor = 0.05 if layer.startswith(("pred_", "dc_conv7")) else factor
    return factor * math.sqrt(2 / (1 + SLOPE**2) / (inputs * taps))
