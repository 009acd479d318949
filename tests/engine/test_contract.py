"""What every engine does alike: golden predictions, sizes, colours, devices, checkpoints."""

import gc
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import Checkpoint, Record, load_checkpoint, save_checkpoint
from maskflownet.engine.contract import Drawing, Sizing, device_ids
from maskflownet.errors import UserError
from maskflownet.inference.metrics import measure, summarise
from maskflownet.inference.predictor import Predictor
from maskflownet.reader.colour import flow_to_colour
from numpy.testing import assert_allclose

from tests.known_engine import make, on_gpu

NETWORKS = ("MaskFlownet_S", "MaskFlownet")
KINDS = ("mxnet", "torch", on_gpu("gpu"))
TORCH_KINDS = ("torch", on_gpu("gpu"))
# A GPU predicts a size operation by operation, twice, then captures it, then replays it.
REPEATS = {"gpu": range(4), "mxnet": range(1), "torch": range(1)}


@pytest.fixture(scope="module")
def checkpoints(golden) -> dict[str, Checkpoint]:
    """As files without a record are read."""
    records = {network: Record(network, pyramid="released", found=False) for network in NETWORKS}
    return {n: Checkpoint(Path(f"{n}.params"), golden.parameters(n), record) for n, record in records.items()}


@pytest.fixture(scope="module")
def engine_of(checkpoints):
    """Engines that a test does not change, by kind and network."""
    made = {}

    def engine_of(kind, network="MaskFlownet_S"):
        if (kind, network) not in made:
            made[kind, network] = make(kind, checkpoints[network])
        return made[kind, network]

    return engine_of


def images_of(*shape, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for _ in range(2)]


def assert_same(ours, theirs, **bounds):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype == np.float32
        assert_allclose(a, b, **{"rtol": 0, "atol": 1e-3, **bounds})


@pytest.mark.parametrize("suffix", ["", "_resize192x256"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", ["mxnet", "torch"])
def test_golden_prediction(golden, engine_of, kind, network, suffix):
    images = golden.pairs(100, 150, [20])
    prediction = engine_of(kind, network).predict(*images, Sizing((192, 256) if suffix else None))
    golden.check(network, f"flow{suffix}", prediction.flow[0])
    golden.check(network, f"warped{suffix}", prediction.warped[0])
    if network == "MaskFlownet_S":
        golden.check(network, f"mask_full{suffix}", prediction.mask[0])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", ["mxnet", "torch"])
def test_golden_validation(golden, engine_of, kind, network):
    values = golden.arrays(network)
    images = golden.pairs(64, 128, (30, 31, 32))
    images_measured = []
    for part in (slice(0, 2), slice(2, 3)):
        flows = engine_of(kind, network).predict(*(i[part] for i in images)).flow
        for flow, label, mask in zip(flows, values["valid_flow_xy"][part], values["valid_mask"][part]):
            images_measured.append(measure(flow, label.astype("f4"), mask))
    means = summarise(images_measured)
    golden.check(network, "valid_epe", means["epe"])
    golden.check(network, "valid_fl_per_image", means["fl"])


@pytest.mark.parametrize("sizing", [Sizing(), Sizing((64, 128)), Sizing(pad=True)])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", ["mxnet", on_gpu("gpu")])
def test_all_engines_predict_the_same_at_the_images_size(engine_of, kind, network, sizing):
    images = images_of(2, 70, 100)
    expected = engine_of("torch", network).predict(*images, sizing)
    flow, mask, warped = expected
    assert (flow.shape, mask.shape, warped.shape) == ((2, 70, 100, 2), (2, 70, 100, 1), (2, 70, 100, 3))
    assert np.abs(flow).max() > 0.1
    assert 0 <= mask.min() <= mask.max() <= 1
    for _ in REPEATS[kind]:
        assert_same(engine_of(kind, network).predict(*images, sizing), expected)


@pytest.mark.parametrize("kind", ["mxnet", "torch", on_gpu("gpu", gpus=2)])
def test_a_batch_is_its_pairs_on_any_number_of_devices(checkpoints, engine_of, kind):
    one, two = engine_of(kind), make(kind, checkpoints["MaskFlownet_S"], devices=2)
    images = images_of(3, 70, 100)
    together, shared = one.predict(*images), two.predict(*images)
    for i in range(3):
        alone = two.predict(*(image[i : i + 1] for image in images))  # fewer pairs than devices
        for a, b, c in zip(together, shared, alone):
            assert_allclose(a[i], c[0], rtol=0, atol=1e-4)
            assert_allclose(b[i], c[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_that_are_not_asked_for_are_absent(engine_of, kind):
    engine, images = engine_of(kind), images_of(2, 70, 100)
    flow, mask, warped = engine.predict(*images)
    for with_mask in (False, True):
        some = engine.predict(*images, mask=with_mask, warped=not with_mask)
        assert_allclose(some.flow, flow, rtol=0, atol=1e-4)
        assert (some.mask is None) != with_mask
        assert (some.warped is None) == with_mask
        given = (some.mask, mask) if with_mask else (some.warped, warped)
        assert_allclose(*given, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drawing", [Drawing(2.5, False), Drawing(2.5, True), Drawing(None, True)])
def test_a_flow_is_drawn_where_it_is(engine_of, kind, drawing):
    engine, images = engine_of(kind), images_of(2, 70, 100)
    for _ in REPEATS[kind]:
        drawn = engine.submit(*images, None, True, False, drawing)()
        flow, mask, _ = engine.predict(*images, warped=False)
        assert_allclose(drawn.mask, mask, rtol=0, atol=1e-4)
        assert_allclose(drawn.largest, np.hypot(flow[..., 0], flow[..., 1]).max((1, 2)), rtol=0, atol=1e-4)
        assert (drawn.flow is not None) == drawing.vectors and drawn.warped is None
        if drawing.max_flow:
            expected = np.stack([flow_to_colour(each, 2.5) for each in flow]).astype(int)
            assert np.mean(np.abs(drawn.colours - expected) > 1) < 1e-3  # one that the jump at the scale parts
        else:
            assert drawn.colours is None


@pytest.mark.parametrize("kind", KINDS)
def test_warped_is_the_second_image_moved_by_the_flow(checkpoints, kind):
    engine = make(kind, checkpoints["MaskFlownet_S"])
    zeros = {n: 0 * a for n, a in engine.parameters().items() if n.startswith(("pred_flow", "dc_conv7"))}
    image_1, image_2 = images_of(1, 64, 64)
    for _ in REPEATS[kind]:  # so that the new parameters must count at once
        assert np.ptp(engine.predict(image_1, image_2).flow) > 0
    # A constant flow of (u, v) = (2, -1) px at the network's size, which is the images' here.
    engine.assign({**zeros, "pred_flow6.bias": np.array([-1 / 20, 2 / 20])})
    flow, _, warped = engine.predict(image_1, image_2)
    assert_allclose(flow[..., 0], 2, rtol=0, atol=1e-4)
    assert_allclose(flow[..., 1], -1, rtol=0, atol=1e-4)
    rows, columns = np.clip(np.arange(64) - 1, 0, 63), np.clip(np.arange(64) + 2, 0, 63)
    assert_allclose(warped[0], image_2[0][rows][:, columns] / 255.0, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_colour_order_of_the_record(checkpoints, engine_of, kind):
    checkpoint, images = checkpoints["MaskFlownet_S"], images_of(1, 70, 100)
    bgr = make(kind, replace(checkpoint, record=replace(checkpoint.record, colour="BGR")))
    flow, mask, warped = bgr.predict(*(image[..., ::-1] for image in images))
    assert_same((flow, mask, warped[..., ::-1]), engine_of(kind).predict(*images), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pyramid_follows_the_record(checkpoints, engine_of, kind):
    checkpoint, images = checkpoints["MaskFlownet"], images_of(1, 64, 64)
    paper = make(kind, replace(checkpoint, record=replace(checkpoint.record, pyramid="paper")))
    released = engine_of(kind, "MaskFlownet")  # as files without a record
    assert np.abs(paper.predict(*images).flow - released.predict(*images).flow).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_keeps_its_order(engine_of, kind):
    pairs = [tuple(image[0] for image in images_of(1, 64, 64, seed=seed)) for seed in range(8)]
    for pair, prediction in zip(pairs, Predictor(engine_of(kind)).stream(pairs)):
        assert_same(prediction, Predictor(engine_of("torch"))(*pair))


@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_sizes_do_not_mix_and_captured_ones_are_bounded(checkpoints, engine_of, kind):
    engine, most = make(kind, checkpoints["MaskFlownet_S"]), import_module("maskflownet.engine.torch.engine").GRAPHS
    sizes = [(64, 64 * (i + 1)) for i in range(most + 2 if kind == "gpu" else 3)]
    pairs = {size: images_of(1, *size) for size in sizes}
    expected = {size: engine_of("torch").predict(*pair).flow for size, pair in pairs.items()}
    for _ in REPEATS[kind]:
        for size in (*sizes, *sizes[::-1]):
            assert_allclose(engine.predict(*pairs[size]).flow, expected[size], rtol=0, atol=1e-3)
    (runner,) = engine._runners
    assert len(getattr(runner, "graphs", ())) == (most if kind == "gpu" else 0)


@pytest.mark.parametrize("precision", ["float32", on_gpu("tf32"), on_gpu("bf16")])
def test_lower_precisions_stay_near(checkpoints, engine_of, precision):
    kind = "torch" if precision == "float32" else "gpu"
    engine = make(kind, checkpoints["MaskFlownet_S"], precision=precision)
    images = images_of(1, 128, 192)
    expected = engine_of("torch").predict(*images).flow
    for _ in REPEATS[kind]:
        difference = np.abs(engine.predict(*images).flow - expected).mean()
        assert (difference > 0) == (precision != "float32")
        assert difference < 0.1 * np.abs(expected).mean()


@contextmanager
def little_memory(kind):
    """A batch and a sizing for which the memory does not suffice."""
    torch = import_module("torch")
    if kind == "torch":
        image = np.broadcast_to(np.uint8(0), (4096, 16384, 16384, 3))  # one byte
        yield (image, image), Sizing()
        return
    gc.collect()  # engines of other tests
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved(0) + 2 * 2**30  # bytes
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory, 0)
    try:
        yield images_of(2, 64, 64), Sizing((3072, 3072))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)


@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_a_batch_beyond_the_memory_is_one_sentence(checkpoints, kind):
    engine = make(kind, checkpoints["MaskFlownet_S"])
    with little_memory(kind) as (images, sizing):
        count, height, width, _ = images[0].shape
        said = f"PyTorch cannot predict {count} pairs of {height}x{width}: the memory does not suffice; a smaller"
        with pytest.raises(UserError, match=said):
            engine.predict(*images, sizing)
        assert engine.predict(*images_of(2, 64, 64)).flow.shape == (2, 64, 64, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_file_holds_the_same_network(checkpoints, engine_of, tmp_path, kind):
    engine, images = engine_of(kind), images_of(1, 64, 64)
    flow = engine.predict(*images).flow
    for dtype, bound in (("float32", 1e-4), ("float16", 0.02 * np.abs(flow).max())):
        save_checkpoint(tmp_path / "x.params", engine.parameters(), engine.record, dtype)
        again = load_checkpoint(tmp_path / "x.params")
        assert_allclose(make(kind, again).predict(*images).flow, flow, rtol=0, atol=bound)
        for name, array in checkpoints["MaskFlownet_S"].parameters.items():
            assert (again.parameters[name] == array.astype(dtype)).all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_of_a_full_checkpoint_is_a_checkpoint_of_S(checkpoints, kind):
    full, images = checkpoints["MaskFlownet"], images_of(1, 64, 64)
    head, alone = make(kind, full, "MaskFlownet_S"), make(kind, full.head())
    assert head.record.network == "MaskFlownet_S"
    assert_same(head.predict(*images), alone.predict(*images), atol=1e-5)


@pytest.mark.parametrize(
    ("record", "config", "said"),
    [
        ({}, "MaskFlownet", r"use it with MaskFlownet_S\.yaml"),
        ({"flow_multiplier": 2.0, "found": True}, "MaskFlownet_S", r"trained with flow_multiplier 2\.0"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(checkpoints, record, config, said):
    checkpoint = checkpoints["MaskFlownet_S"]
    with pytest.raises(UserError, match=said):
        make("torch", replace(checkpoint, record=replace(checkpoint.record, **record)), config)


def test_padding_is_symmetric_and_comes_back_to_image_pixels():
    engine = import_module("maskflownet.engine.torch.network")
    x = import_module("torch").arange(7000.0).reshape(1, 1, 70, 100)
    fit, unfit = Sizing(pad=True).fitting(70, 100, engine.pad, engine.resize)
    assert fit(x).shape == (1, 1, 128, 128)
    assert fit(x)[0, 0, 0, 0] == x[0, 0, 0, 0]
    assert (fit(x)[..., 29:99, 14:114] == x).all()
    assert (unfit(fit(x))[0] == x).all()


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        *((gpus, "no list of different device ids") for gpus in ("a", "0,", "-1", "0,0", "0;1")),
        ("99", "there is no GPU 99: .* finds|needs CUDA, for which this .* was not built: install one that was"),
    ],
)
@pytest.mark.parametrize(("module", "function"), [("mxnet", "contexts"), ("torch.devices", "devices")])
def test_device_ids_are_checked(module, function, gpus, said):
    devices = getattr(import_module(f"maskflownet.engine.{module}"), function)
    assert "cpu" in str(devices("")[0])
    with pytest.raises(UserError, match=said):
        devices(gpus)
    assert device_ids("1,0", "it", lambda: 2) == [1, 0]


@pytest.mark.parametrize(("size", "network"), [((436, 1024), (448, 1024)), ((64, 64), (64, 64)), ((1, 65), (64, 128))])
def test_the_network_sees_the_next_multiples_of_64(size, network):
    assert Sizing().network_size(*size) == network


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *(({"resize": size}, "must be multiples of 64") for size in ((100, 128), (64, 0), (63, 64), (-64, 64))),
        ({"resize": (64, 64), "pad": True}, "exclude each other"),
    ],
)
def test_other_sizes_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        Sizing(**settings)
