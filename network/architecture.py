"""The numbers of the two networks (Zhao et al., CVPR 2020, section 3). Nothing here imports MXNet."""

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
