"""The MXNet engine: golden predictions, sizes, colours, devices, loading and saving."""

import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from maskflownet.checkpoints.params import write_params
from maskflownet.checkpoints.records import Record
from maskflownet.engine.contract import Sizing
from maskflownet.engine.load import load_into
from maskflownet.engine.mxnet.engine import MXNetEngine, build_network, contexts, pad, resize
from maskflownet.errors import UserError
from maskflownet.inference.metrics import measure, summarise
from maskflownet.network.compat import mx
from maskflownet.settings.configs import load_network_config
from numpy.testing import assert_allclose

CPU = [mx.cpu()]
NETWORKS = ("MaskFlownet_S", "MaskFlownet")


def engine_of(path, config=None, devices=CPU):
    checkpoint = load_checkpoint(path)
    engine = MXNetEngine(load_network_config(config or checkpoint.record.network), devices)
    load_into(engine, checkpoint)
    return engine


@pytest.fixture(scope="module")
def golden_engines(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    engines = {}
    for network in NETWORKS:
        write_params(folder / f"{network}.params", golden.parameters(network))
        engines[network] = engine_of(folder / f"{network}.params")
    return engines


@pytest.mark.parametrize("suffix", ["", "_resize192x256"])
@pytest.mark.parametrize("network", NETWORKS)
def test_golden_prediction(golden, golden_engines, network, suffix):
    images = golden.pairs(100, 150, [20])
    sizing = Sizing((192, 256) if suffix else None)
    prediction = golden_engines[network].predict(*images, sizing)
    golden.check(network, f"flow{suffix}", prediction.flow[0])
    golden.check(network, f"warped{suffix}", prediction.warped[0])
    if network == "MaskFlownet_S":
        golden.check(network, f"mask_full{suffix}", prediction.mask[0])


@pytest.mark.parametrize("network", NETWORKS)
def test_golden_validation(golden, golden_engines, network):
    values = golden.arrays(network)
    images = golden.pairs(64, 128, (30, 31, 32))
    measured = []
    for part in (slice(0, 2), slice(2, 3)):
        flows = golden_engines[network].predict(*(i[part] for i in images)).flow
        labels, masks = values["valid_flow_xy"][part], values["valid_mask"][part]
        for flow, label, mask in zip(flows, labels, masks):
            measured.append(measure(flow, label.astype("f4"), mask))
    means = summarise(measured)
    golden.check(network, "valid_epe", means["epe"])
    golden.check(network, "valid_fl_per_image", means["fl"])


@pytest.fixture(scope="module")
def engine(random_checkpoints):
    return engine_of(random_checkpoints["MaskFlownet_S"])


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (3, 70, 100, 3), np.uint8) for _ in range(2)]


def test_a_batch_is_its_pairs(engine, images):
    together = engine.predict(*images)
    for i in range(3):
        alone = engine.predict(images[0][i : i + 1], images[1][i : i + 1])
        for a, b in zip(together, alone):
            assert_allclose(a[i], b[0], rtol=0, atol=1e-4)


def test_several_devices_predict_what_one_does(random_checkpoints, engine, images):
    two = engine_of(random_checkpoints["MaskFlownet_S"], devices=[mx.cpu(0), mx.cpu(1)])
    for a, b in zip(two.predict(*images), engine.predict(*images)):
        assert_allclose(a, b, rtol=0, atol=1e-4)
    one_pair = two.predict(images[0][:1], images[1][:1])  # fewer pairs than devices
    assert one_pair.flow.shape == (1, 70, 100, 2)


@pytest.mark.parametrize("sizing", [Sizing(), Sizing((128, 192)), Sizing(pad=True)])
def test_lesson_29_outputs_have_the_images_size(engine, images, sizing):
    flow, mask, warped = engine.predict(*images, sizing)
    assert flow.shape == (3, 70, 100, 2)
    assert mask.shape == (3, 70, 100, 1)
    assert warped.shape == (3, 70, 100, 3)
    for array in (flow, mask, warped):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert 0 <= mask.min() <= mask.max() <= 1


def test_outputs_that_are_not_asked_for_are_absent(engine, images):
    flow, mask, warped = engine.predict(*images, mask=False, warped=False)
    assert mask is None
    assert warped is None
    assert (flow == engine.predict(*images).flow).all()


def test_scaling_brings_flow_back_to_image_pixels():
    fit, unfit = Sizing((128, 256)).fitting(64, 64, pad, resize)
    assert fit(mx.nd.ones((1, 3, 64, 64))).shape == (1, 3, 128, 256)
    flow, factors = unfit(mx.nd.ones((1, 2, 128, 256)))
    assert flow.shape == (1, 2, 64, 64)
    assert factors == (0.5, 0.25)


def test_padding_is_cut_off_again():
    x = mx.nd.arange(70 * 100).reshape((1, 1, 70, 100))
    fit, unfit = Sizing(pad=True).fitting(70, 100, pad, resize)
    padded = fit(x)
    assert padded.shape == (1, 1, 128, 128)
    assert padded[0, 0, 0, 0].asscalar() == x[0, 0, 0, 0].asscalar()
    assert (unfit(padded)[0] == x).asnumpy().all()


def test_warped_is_the_second_image_moved_by_the_flow(random_checkpoints, images):
    engine = engine_of(random_checkpoints["MaskFlownet_S"])
    for name, parameter in engine.network._collect_params_with_prefix().items():
        if name.startswith(("pred_flow", "dc_conv7")):
            parameter.set_data(mx.nd.zeros(parameter.shape))
    # A constant flow of (u, v) = (2, -1) px at the network's size, which is the images' here.
    engine.network.pred_flow6.bias.set_data(mx.nd.array([-1 / 20, 2 / 20]))
    image_1, image_2 = (i[:1, :64, :64] for i in images)
    flow, _, warped = engine.predict(image_1, image_2)
    assert_allclose(flow[..., 0], 2, rtol=0, atol=1e-4)
    assert_allclose(flow[..., 1], -1, rtol=0, atol=1e-4)
    rows, columns = np.clip(np.arange(64) - 1, 0, 63), np.clip(np.arange(64) + 2, 0, 63)
    expected = image_2[0][rows][:, columns] / 255.0
    assert_allclose(warped[0], expected, rtol=0, atol=1e-3)


def test_colour_order_of_the_record(random_checkpoints, tmp_path, images):
    source = load_checkpoint(random_checkpoints["MaskFlownet_S"])
    save_checkpoint(tmp_path / "bgr.params", source.parameters, Record("MaskFlownet_S", colour="BGR"))
    reversed_images = [image[..., ::-1] for image in images]
    rgb = engine_of(random_checkpoints["MaskFlownet_S"]).predict(*images)
    bgr = engine_of(tmp_path / "bgr.params").predict(*reversed_images)
    assert_allclose(bgr.flow, rgb.flow, rtol=0, atol=1e-4)
    assert_allclose(bgr.warped, rgb.warped[..., ::-1], rtol=0, atol=1e-4)


def test_lesson_26_the_pyramid_follows_the_record(random_checkpoints, tmp_path, images):
    source = load_checkpoint(random_checkpoints["MaskFlownet"])
    flows = {}
    for pyramid in ("paper", "released"):
        path = tmp_path / f"{pyramid}.params"
        save_checkpoint(path, source.parameters, Record("MaskFlownet", pyramid))
        flows[pyramid] = engine_of(path).predict(*images).flow
    without_record = engine_of(random_checkpoints["MaskFlownet"]).predict(*images).flow
    assert (without_record == flows["released"]).all()
    assert np.abs(flows["paper"] - flows["released"]).max() > 1e-4


def test_a_saved_file_holds_the_same_network(random_checkpoints, tmp_path, images):
    engine = engine_of(random_checkpoints["MaskFlownet"])
    save_checkpoint(tmp_path / "again.params", engine.parameters(), engine.record)
    assert (tmp_path / "again.params").read_bytes() == random_checkpoints["MaskFlownet"].read_bytes()
    flow = engine.predict(*images).flow
    save_checkpoint(tmp_path / "half.params", engine.parameters(), engine.record, "float16")
    half = engine_of(tmp_path / "half.params").predict(*images).flow
    assert_allclose(half, flow, rtol=0, atol=0.02 * np.abs(flow).max())


@pytest.mark.parametrize("network", NETWORKS)
def test_gluon_itself_loads_a_saved_file_by_the_same_names(random_checkpoints, tmp_path, network):
    engine = engine_of(random_checkpoints[network])
    save_checkpoint(tmp_path / "x.params", engine.parameters(), engine.record)
    fresh = build_network(network, 1.0, "paper")
    fresh.load_parameters(str(tmp_path / "x.params"))
    fresh.save_parameters(str(tmp_path / "y.params"))
    theirs = load_checkpoint(tmp_path / "y.params").parameters
    for name, array in engine.parameters().items():
        assert (theirs[name] == array).all(), name


def test_the_head_of_a_full_checkpoint_is_a_checkpoint_of_S(random_checkpoints, images):
    head = engine_of(random_checkpoints["MaskFlownet"], "MaskFlownet_S")
    alone = engine_of(random_checkpoints["MaskFlownet_S"])
    assert head.record.network == "MaskFlownet_S"
    assert (head.predict(*images).flow == alone.predict(*images).flow).all()


def test_S_checkpoint_with_the_full_config(random_checkpoints):
    with pytest.raises(UserError, match=r"use it with MaskFlownet_S\.yaml"):
        engine_of(random_checkpoints["MaskFlownet_S"], "MaskFlownet")


def test_another_flow_multiplier_is_refused(random_checkpoints, tmp_path):
    source = load_checkpoint(random_checkpoints["MaskFlownet_S"])
    record = Record("MaskFlownet_S", flow_multiplier=2.0)
    save_checkpoint(tmp_path / "x.params", source.parameters, record)
    with pytest.raises(UserError, match=r"trained with flow_multiplier 2\.0"):
        engine_of(tmp_path / "x.params")


@pytest.mark.parametrize("gpus", ["a", "0,", "-1", "0,0", "0;1"])
def test_device_ids_are_checked(gpus):
    with pytest.raises(UserError, match="no list of device ids"):
        contexts(gpus)


def test_no_gpu_means_the_cpu():
    assert contexts("") == [mx.cpu()]


@pytest.mark.skipif(mx.runtime.Features().is_enabled("CUDA"), reason="this MXNet has CUDA")
def test_gpu_without_cuda_says_what_to_install():
    with pytest.raises(UserError, match=r"requirements-cu117\.txt"):
        contexts("0")
