"""The synthetic teacher: exact labels, reproducible scenes, the statistics that the specification asks for."""

import dataclasses
from contextlib import closing
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from maskflownet.errors import UserError
from maskflownet.reader.loader import Order
from maskflownet.scenes import render as rendering
from maskflownet.scenes.draw import SceneOptions, draw
from maskflownet.scenes.render import SceneBatches, render
from maskflownet.scenes.synthetic import Synthetic, Textures

from tests.known_engine import on_gpu

DEVICES = ["cpu", on_gpu("cuda")]
CLEAN = {"photometric": 0, "noise": 0, "defocus_share": 0, "motion_blur_share": 0, "fog_share": 0}
SPECIAL = [
    {},
    {"travel_share": 1},
    {"dart_share": 1},
    {"vehicle_share": 1, "composite_share": 1},
    {"deformation": 3, "rotation": 3, "zoom": 4},
    {"thin_share": 1},
]
SIZE = (140, 189)  # no whole tiles


@pytest.fixture(autouse=True)
def _one_thread(torch_threads):
    """Small tensors: several threads would wait for each other."""
    torch_threads(1)


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    """Photographs that bilinear sampling reproduces almost without error, and one cut-out."""
    folder = tmp_path_factory.mktemp("smooth")
    rng = np.random.default_rng(0)
    for number in range(3):
        coarse = rng.integers(0, 256, (14, 18, 3), np.uint8)
        picture = cv2.GaussianBlur(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC), (0, 0), 6)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    disc = cv2.circle(np.zeros((480, 640), np.uint8), (320, 240), 200, 255, -1, cv2.LINE_AA)
    cv2.imwrite(str(folder / "cut.png"), np.dstack([picture, disc]))
    return folder


@pytest.fixture(scope="module")
def bundled():
    return Textures()


def made(textures, scenes, options, device="cpu", size=SIZE):
    """Scenes as arrays: img1, img2, flow, occlusion."""
    return rendered(draw(textures.bank(), 0, scenes, size, options), textures, device)


def rendered(draws, textures, device):
    texels = torch.as_tensor(textures.bank().texels).to(device)
    return [values.cpu().numpy() for values in render(draws, texels)]


def warped(image, flow):
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return cv2.remap(image.astype(np.float32), x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("special", SPECIAL, ids=str)
def test_flow_moves_frame_2_onto_frame_1(smooth, special, device):
    options = SceneOptions(**CLEAN, **special)
    img1, img2, flow, occlusion = made(Textures(smooth), np.arange(5), options, device)
    for a, b, f, hidden in zip(img1, img2, flow, occlusion):
        layers = cv2.morphologyEx(np.linalg.norm(f, axis=2), cv2.MORPH_GRADIENT, np.ones((5, 5))) > 1.0
        inner = ~cv2.dilate((hidden | layers).astype(np.uint8), np.ones((5, 5))).astype(bool)
        error = np.abs(warped(b, f) - a).max(axis=2)[inner]
        assert error.size > 500
        assert np.percentile(error, 90) < 3  # grey levels; a shift by 0.5 px makes about 3 on average


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("special", SPECIAL, ids=str)
def test_motion_is_its_formula_and_frame_2_its_inverse(smooth, special, device):
    """Both against float64 at every pixel of a tile, small objects and strong deformations included."""
    options = SceneOptions(**special, object_scale=0.5, motion_scale=2)
    draws = draw(Textures(smooth).bank(), 1, np.arange(20), (320, 448), options)
    c = draws.columns
    count = len(c["centre"])
    square = {name: c[name].reshape(count, 2, 2) for name in ("linear", "axes")}
    corner = np.floor(np.random.default_rng(0).uniform(0, 320, (count, 2)))
    pixels = corner[..., None] + np.stack(np.meshgrid(np.arange(16.0), np.arange(16.0))).reshape(2, -1)

    def forward(x):  # (M, 2, n) about the centre
        phase = np.einsum("mkc,mcn->mkn", c["wave"].reshape(count, -1, 2), x) + c["phase"][..., None]
        bend = np.einsum("mkn,mkc->mcn", np.sin(phase), c["amplitude"].reshape(count, -1, 2))
        return square["linear"] @ x + bend + c["shift"][..., None]

    rows = {**c, "at": corner - c["centre"]}
    rows = {name: torch.from_numpy(v.astype(np.float32)).to(device) for name, v in rows.items()}
    about = pixels - c["centre"][..., None]
    assert np.abs(rendering._locate_1(rows)[1].cpu().numpy() - (forward(about) - about)).max() < 2e-3
    before = np.swapaxes(square["axes"], 1, 2) @ rendering._locate_2(rows).cpu().numpy().astype(np.float64)
    error = np.abs(forward(before) - about).max((1, 2))
    assert np.median(error) < 1e-4 and error.max() < 1e-2


@pytest.mark.parametrize("device", DEVICES)
def test_occlusion_is_what_a_nearer_layer_covers_or_leaves(smooth, device):
    """One object over a background at rest, both rigid: the mask from the silhouettes of both frames."""
    options = SceneOptions(**CLEAN, rotation=0, zoom=0, deformation=0, min_objects=1, max_objects=1, camera_share=0)
    draws = draw(Textures(smooth).bank(), 5, np.arange(8), SIZE, options)
    shift = draws.columns["shift"]
    shift[:] = np.rint(shift)  # px: silhouettes of both frames are the same pixels
    shift[draws.rank == 0] = 0
    flow, occlusion = rendered(draws, Textures(smooth), device)[2:]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for scene, (dx, dy) in enumerate(shift[draws.rank == 1].astype(int)):
        shape = (flow[scene] == (dx, dy)).all(-1)
        inside = (x + dx >= 0) & (x + dx < SIZE[1]) & (y + dy >= 0) & (y + dy < SIZE[0])
        came_from = (x - dx >= 0) & (x - dx < SIZE[1]) & (y - dy >= 0) & (y - dy < SIZE[0])
        covered = np.zeros(SIZE, bool)
        covered[came_from] = shape[y[came_from] - dy, x[came_from] - dx]
        expected = np.where(shape, ~inside, covered)
        known = came_from | shape  # what comes in from outside is not seen in frame 1
        assert (occlusion[scene] == expected)[known].all()
    assert np.abs(shift).max() > 5 and occlusion.any()


@pytest.mark.parametrize("device", DEVICES)
def test_a_scene_does_not_depend_on_its_batch(bundled, device):
    options = SceneOptions(vehicle_share=0.3, travel_share=0.3, motion_blur_share=0.5, composite_share=0.3)
    together = made(bundled, [7, 3, 11, 4, 9], options, device)
    for row, scene in enumerate((7, 3, 11)):
        alone = made(bundled, [scene], options, device)
        for a, b in zip(alone[:2], together[:2]):
            difference = np.abs(a[0].astype(int) - b[row])
            assert difference.max() <= 2 and (difference > 0).mean() < 1e-3
        np.testing.assert_allclose(alone[2][0], together[2][row], atol=1e-3)
        assert (alone[3][0] != together[3][row]).mean() < 1e-3


@pytest.mark.parametrize("device", DEVICES[1:])
def test_a_scene_does_not_depend_on_the_device(bundled, device):
    for a, b in zip(made(bundled, [0, 1, 2], SceneOptions()), made(bundled, [0, 1, 2], SceneOptions(), device)):
        differs = np.abs(a.astype(np.float64) - b) > (0.01 if a.dtype == np.float32 else 2)
        assert differs.mean() < 2e-3


def test_motion_is_heavy_tailed(bundled):
    """Median about 10 px, mean 11 to 19 px, about 1 % above 75 px, small motions well represented."""
    bank = bundled.bank()
    options = SceneOptions(**CLEAN)
    lengths = []
    for start in range(0, 240, 24):
        flow = render(draw(bank, 0, np.arange(start, start + 24), (80, 112), options), bank.texels).flow
        lengths.append(4 * torch.linalg.norm(flow, dim=-1).flatten()[::5])  # px at 320x448
    length = torch.cat(lengths).numpy()
    assert 8 < np.median(length) < 13
    assert 11 < length.mean() < 19
    assert 0.003 < (length > 75).mean() < 0.035
    assert (length < 1).mean() > 0.04 and (length < 3).mean() > 0.12


# fmt: off
CHANGES = {
    "min_objects": 9, "max_objects": 4, "object_scale": 2.0, "vehicle_share": 1, "thin_share": 1, "composite_share": 1,
    "cutout_share": 0, "motion_scale": 2, "small_motion_share": 1, "camera_share": 0, "travel_share": 1,
    "dart_share": 1, "rotation": 0, "zoom": 0, "deformation": 0, "photometric": 3, "noise": 20, "defocus_share": 1,
    "motion_blur_share": 1, "fog_share": 1, "plain_share": 1,
}
# fmt: on


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SceneOptions)])
def test_every_option_has_an_effect(smooth, name):
    textures, size = Textures(smooth), (96, 128)
    before = made(textures, np.arange(3), SceneOptions(), size=size)
    after = made(textures, np.arange(3), SceneOptions(**{name: CHANGES[name]}), size=size)
    assert (before[0] != after[0]).mean() + (before[1] != after[1]).mean() > 0.01


@pytest.mark.parametrize(
    ("name", "value"),
    [("thin_share", 1.5), ("noise", -1), ("noise", float("nan")), ("zoom", float("inf")), ("min_objects", 2.0),
     ("min_objects", 11), ("max_objects", 200), ("object_scale", 0.0), ("fog_share", "much"), ("rotation", True)],
)  # fmt: skip
def test_wrong_options_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        SceneOptions(**{name: value})


@pytest.mark.parametrize("extreme", [
    {"min_objects": 0, "max_objects": 0}, {"min_objects": 60, "max_objects": 60}, {"object_scale": 0.05},
    {"object_scale": 4, "motion_scale": 20},
    {"deformation": 50, "rotation": 50, "zoom": 50, "motion_scale": 5, "travel_share": 1},
    {"photometric": 5, "noise": 100, "fog_share": 1, "defocus_share": 1, "motion_blur_share": 1},
])  # fmt: skip
def test_extreme_options_still_make_scenes(bundled, extreme):
    img1, img2, flow, _ = made(bundled, [0, 1], SceneOptions(**extreme), size=(64, 96))
    assert np.isfinite(flow).all() and img1.std() > 0 and img2.std() > 0


@pytest.mark.parametrize(
    ("seed", "size", "length"), [(-1, (64, 64), 1), (0, (8, 64), 1), (0, (64, 15), 1), (0, (64, 64), 0)]
)
def test_wrong_arguments_are_refused(seed, size, length):
    with pytest.raises(UserError):
        Synthetic(length, *size, seed)


def test_a_data_set_is_of_scenes():
    dataset = Synthetic(5, *SIZE, seed=3)
    sample = dataset[4]
    assert len(dataset) == 5 and (sample.mask == 255).all() and sample.name == "synthetic_3/00004"
    _, occlusion, noc = dataset.labelled(4)
    assert occlusion.shape == (*SIZE, 1) and set(np.unique(occlusion)) == {0, 255} and noc is None
    np.testing.assert_array_equal(dataset[-1].img1, sample.img1)
    with pytest.raises(IndexError):
        dataset[5]


@pytest.mark.parametrize("device", DEVICES)
def test_batches_are_a_function_of_the_step(device):
    dataset = Synthetic(100, *SIZE, seed=3)
    order = Order(echo=2, machine=(1, 2), process=(1, 2))
    with (
        closing(SceneBatches(dataset, 4, device, order, start=5).batches()) as straight,
        closing(SceneBatches(dataset, 4, device, order, start=5).batches(3)) as resumed,
    ):
        batches = list(islice(straight, 5))
        for before, after in zip(batches[3:], resumed):
            assert before.names == after.names and all(map(torch.equal, before[:4], after[:4]))
    # Of every 8 scenes machine 1 has the last 4, of which process 1 has 2; each batch is used twice.
    assert [batch.names[0] for batch in batches] == [f"synthetic_3/{5 + 6 + 8 * (step // 2):05d}" for step in range(5)]
    img1, _, flow, mask = (values[1].cpu().numpy() for values in batches[0][:4])
    assert np.abs(img1.astype(int) - dataset[12].img1).max() <= 2 and (mask == 255).all()
    np.testing.assert_allclose(flow, dataset[12].flow, atol=1e-3)
