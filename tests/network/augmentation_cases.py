"""The published ranges of the augmentation with their shapes, and random inputs."""

import numpy as np
from maskflownet.network.compat import mx
from maskflownet.settings.configs import AugmentationRanges
from maskflownet.settings.datasets import load_data_config

CONFIGS = {name: load_data_config(name) for name in ("chairs", "sintel", "kitti")}
COLUMNS = {name: config.augmentation for name, config in CONFIGS.items()}
SHAPES = {name: (config.orig_shape, config.target_shape) for name, config in CONFIGS.items()}  # (H, W)
CHAIRS, KITTI = COLUMNS["chairs"], COLUMNS["kitti"]
NOTHING = AugmentationRanges(
    rotation=0, zoom=(1, 1), aspect=(1, 1), translation=0, relative_rotation=0, relative_translation=0,
    relative_scale=(1, 1), contrast=(0, 0), brightness=0, gain=(1, 1), noise=0, saturation=0, hue=0,
)  # fmt: skip


def run(block, *arrays):
    return [out.asnumpy() for out in block(*(mx.nd.array(a, dtype="float32") for a in arrays))]


def scene(rng, batch, shape):
    img1, img2 = (rng.random((batch, 3, *shape)) for _ in range(2))
    flow = rng.normal(0, 5, (batch, 2, *shape))
    mask = (rng.random((batch, 1, *shape)) < 0.3).astype(float)
    return img1, img2, flow, mask


def pair(seed, batch=1, shape=(24, 40)):
    rng = np.random.default_rng(seed)
    images = [rng.random((batch, 3, *shape)) for _ in range(2)]
    return [*images, *(rng.standard_normal((batch, 3, *shape)) for _ in range(2))]
