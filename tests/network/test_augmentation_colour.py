"""The colour augmentation against the equation in float64."""

import numpy as np
from maskflownet.network.augmentation import ColourAugmentation
from maskflownet.network.draws import colour_parameters, draw_colour, hue_matrix

from tests.network.augmentation_cases import KITTI, NOTHING, pair, ranges, run


def colour(batch=1, **draws):
    neutral = {
        "hue": hue_matrix(np.ones(batch), np.zeros(batch)),
        "noise": np.zeros(batch),
        "contrast": np.zeros(batch),
        "gain": np.ones((batch, 3)),
        "brightness": np.zeros(batch),
        "exponent": np.ones(batch),
    }
    changed = {key: np.array(value, dtype=float) for key, value in draws.items()}
    return colour_parameters(**{**neutral, **changed})


def test_colour_identity():
    inputs = pair(1)
    for params in (colour(), draw_colour(np.random.default_rng(1), 1, ranges(NOTHING))):
        for got, want in zip(run(ColourAugmentation(), *inputs, params), inputs):
            assert np.abs(got - want).max() < 1e-6


def test_colour_follows_the_equation_step_by_step():
    rng = np.random.default_rng(2)
    inputs = pair(2, batch=4)
    hue = hue_matrix(rng.uniform(0.5, 1.5, 4), rng.uniform(-1, 1, 4))
    noise, contrast = np.full(4, 0.03), rng.uniform(-0.4, 0.8, 4)
    gain, brightness = rng.uniform(0.8, 1.4, (4, 3)), rng.normal(0, 0.1, 4)
    exponent = np.exp(rng.uniform(-0.5, 0.5, 4))
    params = colour_parameters(
        hue=hue, noise=noise, contrast=contrast, gain=gain, brightness=brightness, exponent=exponent
    )
    outputs = run(ColourAugmentation(), *inputs, params)
    for i in range(2):
        for n in range(4):
            x = np.tensordot(hue[n], inputs[i][n], 1) + noise[n] * inputs[2 + i][n]
            m, g = x.mean((1, 2), keepdims=True), gain[n][:, None, None]
            x = (x - m) * (1 + contrast[n]) * g + m * g + brightness[n]
            assert x.min() < 0
            assert x.max() > 1
            expected = np.clip(x, 0, 1) ** exponent[n]
            # A steep power near 0 widens the rounding of x.
            assert np.abs(outputs[i][n] - expected).max() < 1e-3
            assert np.abs(outputs[i][n] ** (1 / exponent[n]) - np.clip(x, 0, 1)).max() < 1e-5


def test_images_share_all_draws_except_the_noise():
    img, _, noise1, noise2 = pair(3, batch=2)
    params = draw_colour(np.random.default_rng(3), 2, ranges(KITTI))
    one, two = run(ColourAugmentation(), img, img, noise1, noise1, params)
    assert np.array_equal(one, two)
    one, two = run(ColourAugmentation(), img, img, noise1, noise2, params)
    assert np.abs(one - two).max() > 0.01


def test_contrast_turns_about_the_mean_and_noise_has_its_sigma():
    grey = np.full((1, 3, 64, 64), 0.5)
    quiet = np.zeros_like(grey)
    noise = np.random.default_rng(4).standard_normal(grey.shape)
    flat, _ = run(ColourAugmentation(), grey, grey, quiet, quiet, colour(contrast=[0.8]))
    assert np.abs(flat - 0.5).max() < 1e-6
    noisy, clean = run(ColourAugmentation(), grey, grey, noise, quiet, colour(noise=[0.04]))
    assert abs(noisy.std() - 0.04) < 1e-3
    assert np.abs(clean - 0.5).max() < 1e-6


def test_clip_comes_before_gamma():
    img = np.linspace(0, 1, 3 * 64).reshape(1, 3, 8, 8)
    params = colour(brightness=[-0.25], exponent=[0.5])
    got, _ = run(ColourAugmentation(), img, img, 0 * img, 0 * img, params)
    assert np.abs(got - np.sqrt(np.clip(img - 0.25, 0, 1))).max() < 1e-5
    got, _ = run(ColourAugmentation(), img, img, 0 * img, 0 * img, colour(gain=[[2, 2, 2]]))
    assert got.max() == 1
