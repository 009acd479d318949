import flow_vis
import numpy as np
import pytest
from maskflownet.reader.colour import colour_scale, colour_table, colour_wheel, flow_to_colour, usual_motion

from tests.known_engine import on_gpu


@pytest.fixture
def flow():
    return np.random.RandomState(0).standard_normal((40, 50, 2)).astype(np.float32) * 20


def hostile(kind):
    """(300, 400, 2) float32 in units of the scale."""
    random = np.random.default_rng(0)
    normal = random.standard_normal((300, 400, 2)).astype(np.float32)
    match kind:
        case "extreme":
            return (normal * 10.0 ** random.uniform(-37, 36, (300, 400, 1))).astype(np.float32)
        case "at the scale":
            return normal / np.hypot(normal[..., :1], normal[..., 1:])
        case "along the axes":  # the colour jumps at u > 0 between v = 0.0 and v = -0.0
            normal[..., 1] = random.choice([0, -0.0, 1e-30, -1e-30, 1e-8, -1e-8, 1e-45, -1e-45], (300, 400))
    return normal


@pytest.mark.parametrize("kind", ["random", "extreme", "at the scale", "along the axes"])
@pytest.mark.parametrize("where", ["numpy", "cpu", on_gpu("cuda")])
def test_agrees_with_flow_vis(kind, where):
    """By one level at most, wherever it is drawn: the flow and a tenth of it."""
    flow = hostile(kind)
    for scale in (np.float32(1), np.float32(10)):
        with np.errstate(all="ignore"):
            expected = flow_vis.flow_uv_to_colors(flow[..., 0] / scale, flow[..., 1] / scale)
            if where == "numpy":
                drawn = flow_to_colour(flow, float(scale) - 1e-5)
            else:
                torch = pytest.importorskip("torch")
                from maskflownet.engine.torch.engine import colours_of  # noqa: PLC0415 - needs PyTorch

                tensors = (torch.from_numpy(np.asarray(a)).to(where) for a in (flow, scale, colour_table()))
                drawn = colours_of(*tensors).cpu().numpy()
        assert np.abs(drawn.astype(int) - expected).max() <= 1


def test_the_scale_is_that_of_flow_vis(flow):
    expected = flow_vis.flow_to_color(flow).astype(int)
    largest = np.hypot(flow[..., 0], flow[..., 1]).max()
    for scale in (largest, None):
        colour = flow_to_colour(flow, max_flow=scale)
        assert colour.shape == (40, 50, 3) and colour.dtype == np.uint8
        assert np.abs(colour - expected).max() <= 1


def test_rest_is_white_and_its_noise_nearly():
    assert (flow_to_colour(np.zeros((3, 4, 2), np.float32)) == 255).all()
    assert (flow_to_colour(np.zeros((3, 4, 2), np.float32), max_flow=10) == 255).all()
    flow = np.random.default_rng(0).uniform(-0.3, 0.3, (30, 40, 2)).astype(np.float32)
    assert flow_to_colour(flow).min() > 140 and flow_to_colour(flow).mean() > 220
    assert colour_scale(0.2, 480, 640) == 1
    assert colour_scale(0.2, 2160, 3840) == 4.41
    assert colour_scale(16.111, 480, 640) == 16.12
    assert usual_motion(np.array([[np.nan, 1], [3, 4]])) == 5
    assert usual_motion(np.empty((0, 2))) == 0


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1)])
def test_unknown_is_black_and_does_not_set_the_scale(flow, shape):
    expected = flow_to_colour(flow[:, 1:])
    mask = np.full((40, 50), 255, np.uint8)
    mask[:, 0] = 0
    flow[:, 0] = 1e6
    flow[3, 0] = np.nan
    colour = flow_to_colour(flow, valid=mask.reshape(shape))
    assert (colour[:, 0] == 0).all()
    np.testing.assert_array_equal(colour[:, 1:], expected)


@pytest.mark.filterwarnings("error")
def test_not_finite_is_black(flow):
    flow[0, 0, 0], flow[0, 1, 1], flow[0, 2] = np.nan, np.inf, -np.inf
    colour = flow_to_colour(flow)
    assert (colour[0, :3] == 0).all()
    assert (colour[1:].max(axis=2) > 0).all()
    assert (flow_to_colour(np.full((2, 2, 2), np.nan, np.float32)) == 0).all()


@pytest.mark.parametrize("shape", [(2, 33000), (33000, 2)])
def test_larger_than_opencv_maps(shape):
    flow = np.random.default_rng(0).standard_normal((*shape, 2)).astype(np.float32)
    piece = np.s_[-2:, -2:]
    np.testing.assert_array_equal(flow_to_colour(flow, 3)[piece], flow_to_colour(flow[piece], 3))


def test_an_integer_flow(flow):
    whole = np.rint(flow) + 0.0  # integers have no -0.0
    np.testing.assert_array_equal(flow_to_colour(whole.astype(np.int16)), flow_to_colour(whole.astype(np.float32)))


def test_refused(flow):
    for wrong in (flow[0], flow[..., :1]):
        with pytest.raises(ValueError, match="a flow is"):
            flow_to_colour(wrong)
    for scale in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="above 0"):
            flow_to_colour(flow, max_flow=scale)
    with pytest.raises(ValueError, match="does not fit"):
        flow_to_colour(flow, valid=np.ones((50, 40)))


@pytest.mark.parametrize("size", [1, 64, 101])
def test_colour_wheel(size):
    wheel = colour_wheel(size)
    assert wheel.shape == (size, size, 3) and wheel.dtype == np.uint8
    assert (wheel[size // 2, size // 2] > 240).all()
    if size > 1:
        assert (wheel[0, 0] == 255).all()
        red, green, blue = wheel[size // 2, -1]
        assert red > 240 and green < 30 and blue < 30
