"""The three columns of the published augmentation with their shapes, and random inputs."""

import numpy as np
from maskflownet.network.compat import mx
from maskflownet.network.draws import AugmentationRanges

CHAIRS = {
    "rotation": 17,
    "zoom": [0.5, 1 / 0.9],
    "aspect": [0.9, 1 / 0.9],
    "translation": 0.1,
    "relative_rotation": 0.25 * 17,
    "relative_translation": 0.25 * 0.1,
    "relative_scale": [0.96, 1 / 0.96],
    "contrast": [-0.4, 0.8],
    "brightness": 0.1,
    "gain": [0.8, 1.4],
    "noise": 0.04,
    "saturation": 0.5,
    "hue": 0.5,
}
SINTEL = {**CHAIRS, "zoom": [1 / 1.5, 1 / 0.9], "noise": 0}
KITTI = {
    "rotation": 5,
    "zoom": [1 / 1.25, 1 / 0.95],
    "aspect": [0.95, 1 / 0.95],
    "translation": 0.05,
    "relative_rotation": 0.25 * 5,
    "relative_translation": 0.25 * 0.05,
    "relative_scale": [0.98, 1 / 0.98],
    "contrast": [-0.2, 0.4],
    "brightness": 0.05,
    "gain": [0.9, 1.2],
    "noise": 0.02,
    "saturation": 0.25,
    "hue": 0.1,
    "gamma": [-0.5, 0.5],
}
NOTHING = {
    **dict.fromkeys(CHAIRS, 0),
    **dict.fromkeys(("zoom", "aspect", "relative_scale", "gain"), [1, 1]),
    "contrast": [0, 0],
}
COLUMNS = {"chairs": CHAIRS, "sintel": SINTEL, "kitti": KITTI}
SHAPES = {  # original, target, (H, W)
    "chairs": ((384, 512), (320, 448)),
    "sintel": ((436, 1024), (384, 768)),
    "kitti": ((576, 1280), (320, 896)),
}


def ranges(column: dict, **changes) -> AugmentationRanges:
    return AugmentationRanges(**{**column, **changes})


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
