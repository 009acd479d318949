"""The torch engine: golden predictions, equality with MXNet's, devices, programs without MXNet."""

# ruff: noqa: E402 - nothing of PyTorch is imported where the tests are skipped

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from maskflownet.checkpoints.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from maskflownet.checkpoints.params import write_params
from maskflownet.checkpoints.records import Record
from maskflownet.engine.contract import Sizing
from maskflownet.engine.load import load_engine, load_into, make_engine
from maskflownet.engine.torch.devices import check_precision, devices
from maskflownet.engine.torch.engine import TorchEngine, pad, resize
from maskflownet.engine.torch.module import computing
from maskflownet.errors import UserError
from maskflownet.inference.metrics import measure, summarise
from maskflownet.reader.formats import write_image
from maskflownet.settings.cli import run
from maskflownet.settings.configs import load_network_config

import main
import run_stages
from tests.training_runs import NETWORK, write_configs

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
NETWORKS = ("MaskFlownet_S", "MaskFlownet")


def engine_of(path, config=None, devices=(CPU,), precision="float32"):
    checkpoint = load_checkpoint(path)
    config = load_network_config(config or checkpoint.record.network)
    engine = TorchEngine(config, devices, precision=precision)
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
def test_golden_torch_prediction(golden, golden_engines, network, suffix):
    images = golden.pairs(100, 150, [20])
    sizing = Sizing((192, 256) if suffix else None)
    prediction = golden_engines[network].predict(*images, sizing)
    golden.check(network, f"flow{suffix}", prediction.flow[0])
    golden.check(network, f"warped{suffix}", prediction.warped[0])
    if network == "MaskFlownet_S":
        golden.check(network, f"mask_full{suffix}", prediction.mask[0])


@pytest.mark.parametrize("network", NETWORKS)
def test_golden_torch_validation(golden, golden_engines, network):
    values = golden.arrays(network)
    images = golden.pairs(64, 128, (30, 31, 32))
    flows = golden_engines[network].predict(*images).flow
    truth = zip(values["valid_flow_xy"].astype("f4"), values["valid_mask"])
    totals = summarise([measure(flow, *of_flow) for flow, of_flow in zip(flows, truth)])
    golden.check(network, "valid_epe", totals["epe"])


@pytest.fixture(scope="module")
def engine(random_checkpoints):
    return engine_of(random_checkpoints["MaskFlownet_S"])


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (3, 70, 100, 3), np.uint8) for _ in range(2)]


@pytest.mark.parametrize("sizing", [Sizing(), Sizing((128, 192)), Sizing(pad=True)])
@pytest.mark.parametrize("network", NETWORKS)
def test_both_engines_predict_the_same(random_checkpoints, images, network, sizing):
    pytest.importorskip("mxnet")
    config = load_network_config(network)
    checkpoint = read_checkpoint(random_checkpoints[network])
    torchs, mxnets = (
        load_engine(config, checkpoint, engine=name).predict(*images, sizing) for name in ("torch", "mxnet")
    )
    for ours, theirs in zip(torchs, mxnets):
        assert ours.shape == theirs.shape
        assert ours.dtype == np.float32
        assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_a_torch_batch_is_its_pairs_on_any_number_of_devices(random_checkpoints, engine, images):
    two = engine_of(random_checkpoints["MaskFlownet_S"], devices=[CPU, CPU])
    together, shared = engine.predict(*images), two.predict(*images)
    for i in range(3):
        alone = two.predict(images[0][i : i + 1], images[1][i : i + 1])  # fewer than devices
        for a, b, c in zip(together, shared, alone):
            assert_allclose(a[i], c[0], rtol=0, atol=1e-4)
            assert_allclose(b[i], c[0], rtol=0, atol=1e-4)


def test_torch_gives_what_is_asked_for(engine, images):
    flow, mask, warped = engine.predict(*images)
    for with_mask in (False, True):
        some = engine.predict(*images, mask=with_mask, warped=not with_mask)
        assert (some.flow == flow).all()
        assert (some.mask is None) != with_mask
        assert (some.warped is None) == with_mask
    assert (engine.predict(*images, mask=False).warped == warped).all()
    assert (engine.predict(*images, warped=False).mask == mask).all()
    assert 0 <= mask.min() <= mask.max() <= 1


def test_torch_colour_order_of_the_record(random_checkpoints, tmp_path, images):
    source = load_checkpoint(random_checkpoints["MaskFlownet_S"])
    save_checkpoint(tmp_path / "x.params", source.parameters, Record("MaskFlownet_S", colour="BGR"))
    reversed_images = [image[..., ::-1] for image in images]
    rgb = engine_of(random_checkpoints["MaskFlownet_S"]).predict(*images)
    bgr = engine_of(tmp_path / "x.params").predict(*reversed_images)
    assert_allclose(bgr.flow, rgb.flow, rtol=0, atol=1e-4)
    assert_allclose(bgr.warped, rgb.warped[..., ::-1], rtol=0, atol=1e-4)


def test_torch_pyramid_follows_the_record(random_checkpoints, tmp_path, images):
    source = load_checkpoint(random_checkpoints["MaskFlownet"])
    save_checkpoint(tmp_path / "x.params", source.parameters, Record("MaskFlownet", "paper"))
    paper = engine_of(tmp_path / "x.params").predict(*images).flow
    released = engine_of(random_checkpoints["MaskFlownet"]).predict(*images).flow
    assert np.abs(paper - released).max() > 1e-4


def test_what_torch_saves_is_what_it_loaded(random_checkpoints, tmp_path):
    path = random_checkpoints["MaskFlownet"]
    engine = engine_of(path)
    save_checkpoint(tmp_path / "again.params", engine.parameters(), engine.record)
    again, source = load_checkpoint(tmp_path / "again.params"), load_checkpoint(path)
    assert set(again.parameters) == set(source.parameters)
    for name, array in source.parameters.items():
        assert (again.parameters[name] == array).all(), name


def test_torch_scaling_and_padding_come_back_to_image_pixels():
    fit, unfit = Sizing((128, 256)).fitting(64, 64, pad, resize)
    assert fit(torch.ones(1, 3, 64, 64)).shape == (1, 3, 128, 256)
    assert unfit(torch.ones(1, 2, 128, 256))[1] == (0.5, 0.25)
    x = torch.arange(70.0 * 100).reshape(1, 1, 70, 100)
    fit, unfit = Sizing(pad=True).fitting(70, 100, pad, resize)
    assert fit(x).shape == (1, 1, 128, 128)
    assert fit(x)[0, 0, 0, 0] == x[0, 0, 0, 0]
    assert (unfit(fit(x))[0] == x).all()


def test_new_parameters_count_at_once(random_checkpoints, images):
    engine = engine_of(random_checkpoints["MaskFlownet_S"])
    before = engine.predict(*images).flow
    engine.assign({name: 0 * array for name, array in engine.parameters().items()})
    assert np.abs(before).max() > 0
    assert (engine.predict(*images).flow == 0).all()


def test_seeds_decide_the_fresh_parameters():
    config = load_network_config("MaskFlownet_S")
    a, b, c = (TorchEngine(config, [CPU], seed).parameters() for seed in (1, 1, 2))
    name = "conv1a.0.weight"
    assert (a[name] == b[name]).all()
    assert (a[name] != c[name]).any()


@pytest.mark.parametrize("gpus", ["a", "0,", "-1", "0,0", "0;1"])
def test_torch_device_ids_are_checked(gpus):
    with pytest.raises(UserError, match="no list of device ids"):
        devices(gpus)


def test_devices_and_precisions_that_are_not_there():
    assert devices("") == [CPU]
    with pytest.raises(UserError, match="PyTorch"):
        devices("99")
    assert check_precision(None, [CPU]) == "float32"
    with pytest.raises(UserError, match="--precision tf32 is for GPUs"):
        check_precision("tf32", [CPU])
    with pytest.raises(UserError, match="--precision bf16 is for --engine torch"):
        make_engine(load_network_config("MaskFlownet_S"), engine="mxnet", precision="bf16")


def test_computing_leaves_the_settings_as_they_were():
    def settings():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = settings()
    for precision, allowed in (("float32", False), ("tf32", True)):
        with computing(precision):
            assert settings() == (allowed, allowed)
            with computing("float32"):
                assert settings() == (False, False)
        assert settings() == before


def test_a_size_that_does_not_fit_is_one_sentence(engine):
    image = np.broadcast_to(np.uint8(0), (4096, 16384, 16384, 3))  # one byte
    with pytest.raises(UserError, match="cannot predict 4096 pairs of 16384x16384: the memory"):
        engine.predict(image, image)


def test_programs_without_torch_say_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    write_configs(tmp_path)
    line = [str(tmp_path / "network.yaml"), "--dataset_cfg", str(tmp_path / "data.yaml")]
    assert run(main.main, [*line, "--engine", "torch", "--output_root", str(tmp_path)]) == 2
    assert "pip install torch" in capsys.readouterr().err


WITHOUT_MXNET = """
import sys
sys.modules["mxnet"] = None
from maskflownet.settings.cli import run
import main, predict_new_data
config, data, out, a, b, checkpoint = sys.argv[1:]
ends = ["--engine", "torch"]
codes = [
    run(main.main, [config, "--dataset_cfg", data, "--output_root", out, "--steps", "1", *ends]),
    run(main.main, [config, "--dataset_cfg", data, "--output_root", out, "--valid",
                    "-c", checkpoint + ".params", *ends]),
    run(predict_new_data.main, [out + "/flow.flo", "MaskFlownet", "-c", checkpoint + "2.params",
                                "--image_1", a, "--image_2", b, *ends]),
    run(main.main, [config, "--dataset_cfg", data, "--output_root", out, "--steps", "1"]),
]
assert codes == [0, 0, 0, 2], codes
"""


def test_everything_runs_where_mxnet_cannot_be_imported(random_checkpoints, tmp_path, images):
    write_configs(tmp_path, augmentation=None, target_shape=[64, 64], orig_shape=[64, 64], validation=["synthetic"])
    weights = tmp_path / "weights"
    weights.mkdir()
    for name, network in (("run", "MaskFlownet_S"), ("run2", "MaskFlownet")):
        (weights / f"{name}.params").write_bytes(random_checkpoints[network].read_bytes())
    for name, image in zip("ab", images):
        write_image(tmp_path / f"{name}.png", image[0])
    files = ["network.yaml", "data.yaml", ".", "a.png", "b.png", "weights/run"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MXNET, *files],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "flow.flo").stat().st_size == 12 + 70 * 100 * 8
    assert "error: MXNet cannot be imported" in done.stderr


def test_stages_with_torch(tmp_path):
    """The S network, then the full one that takes it as its head."""
    stages = []
    for network in NETWORKS:
        write_configs(tmp_path / network, {**NETWORK, "network": {"class": network}})
        files = {part: str(tmp_path / network / f"{part}.yaml") for part in ("network", "data")}
        stages.append({"network": files["network"], "dataset": files["data"]})
    (tmp_path / "stages.yaml").write_text(yaml.safe_dump({"stages": stages}))
    line = [str(tmp_path / "stages.yaml"), "--output_root", str(tmp_path), "--scale", "0.01"]
    assert run(run_stages.main, [*line, "--engine", "torch"]) == 0
    first, second = sorted((tmp_path / "weights").glob("*_1.params"), key=lambda p: p.stat().st_mtime)
    assert load_checkpoint(second).record.parent == first.stem
    assert load_checkpoint(second).record.engine == "torch"
