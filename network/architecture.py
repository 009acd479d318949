"""The numbers of the two networks (Zhao et al., CVPR 2020, section 3). Nothing here imports MXNet."""

import math
import re

import numpy as np

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
EPE_EPSILON = 1e-8  # px^2 in the root of an end-point error, px in the robust measure
LOSS_WEIGHTS = (0.005, 0.01, 0.02, 0.08, 0.32)  # of the five flows, coarse to fine
INITIAL = ("fan_avg", "fan_in", "head")  # how new parameters begin


def initial_deviation(name: str, shape: tuple, initial: str = "fan_avg") -> float:
    """Standard deviation of the normal distribution that a new parameter is drawn from; 0 for biases.

    By the variance 2 / (1 + SLOPE^2) / n of He et al. (ICCV 2015). "fan_avg", as the authors: n is the average of a
    weight's inputs and outputs; features then shrink from level to level of the pyramid, and cost volumes begin some
    hundred times smaller. "fan_in": n are the inputs of one output, so that features keep their size; the first
    layer brings images to a deviation of about 1, and the predictions begin near zero. "head": as "fan_in", before
    `copies_of_head` takes the place of a second stage.
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


def copies_of_head(head: dict[str, np.ndarray], shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
    """A second stage of MaskFlownet, parameters of `shapes`, that is like its head, a MaskFlownet_S, as far as can be.

    Of the head's 9 x 9 cost volume it has the middle 5 x 5; what it has beyond the head, the mask beside image 2, the
    second cost volume and the head's flow, has weights of 0. Level 6 begins with the head's flow and does not deform.
    """
    matches, none = np.arange(81).reshape(9, 9)[2:7, 2:7].ravel(), [-1] * 25
    # By level the inputs of a dense block, and of conv1x, by their numbers in the head's; -1 is none.
    inputs = {k: [*range(81, 97 + n), *matches, *none, 97 + n, 98 + n, -1, -1] for k, n in PYRAMID_CHANNELS.items()}
    inputs |= {6: [*matches, *none, -1, -1], 1: [0, 1, 2, -1]}
    middle = np.eye(PYRAMID_CHANNELS[6], dtype=np.float32)[..., None, None]
    copies = {"deform6.weight": np.pad(middle, [(0, 0), (0, 0), (1, 1), (1, 1)])}
    for name in shapes.keys() - {"deform6.weight", "deform6.bias"}:
        values, shape = head[re.sub("^(conv.)([xyz])", lambda m: m[1] + "abc"["xyz".index(m[2])], name)], shapes[name]
        if values.shape != tuple(shape):
            axis = 0 if name.startswith("upfeat") else 1
            level = 2 if name.startswith("dc_conv1") else int(re.search(r"\d", name)[0]) + name.startswith("upfeat")
            start = shape[axis] - len(inputs[level])  # after what the block has put before its inputs
            index = [*range(start), *(start + i if i >= 0 else -1 for i in inputs[level])]
            values = np.concatenate([values, np.zeros_like(values.take([0], axis))], axis).take(index, axis)
        copies[name] = 0 * values if name.startswith("pred_flow6") else values
    return copies
