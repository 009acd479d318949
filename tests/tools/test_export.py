"""Whole models as users export and run them, beside the torch engine."""

import re
from runpy import run_path

import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import Record, read_checkpoint, save_checkpoint, sha256
from maskflownet.engine.contract import Sizing
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.load import load_engine
from maskflownet.inference.predictor import Predictor
from maskflownet.reader.formats import read_flow, read_image, read_images, write_image
from maskflownet.settings.cli import run
from maskflownet.settings.configs import load_network_config
from maskflownet.settings.folders import ROOT
from maskflownet.tools.export import deformable_convolution

import main
from tests.programs import python

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
from maskflownet.engine.torch.operators import OPERATORS  # noqa: E402
from maskflownet.examples.run_onnx import read_images as example_images  # noqa: E402

SIZE = (64, 192)
NETWORKS = ("MaskFlownet_S", "MaskFlownet")
RECORDS = {
    "MaskFlownet_S": Record("MaskFlownet_S", colour="BGR", run="abcNov22-1200", step=7),
    "MaskFlownet": Record("MaskFlownet", pyramid="released", run="fffNov22-1300", step=0),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Random parameters whose flows leave the picture, by network."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {}
    for network in NETWORKS:
        graph = graph_of("network", network=network, pyramid=RECORDS[network].pyramid)
        arrays = {}
        for name, shape in graph.parameters.items():
            fan_in = np.prod(shape[1:]) if len(shape) > 1 else 1e4
            gain = 200 if name.endswith(("pred_flow6.weight", "pred_flow5.weight")) else 2
            arrays[name] = rng.standard_normal(shape) * np.sqrt(gain / fan_in)
        paths[network] = folder / f"{network}.params"
        save_checkpoint(paths[network], arrays, RECORDS[network])
    return paths


@pytest.fixture(scope="module")
def models(checkpoints):
    """The command's files, by network."""
    paths = {network: path.with_suffix(".onnx") for network, path in checkpoints.items()}
    for network, path in paths.items():
        line = [network, "-c", str(checkpoints[network]), "--export", str(path)]
        assert run(main.main, [*line, "--resize", "64,192"]) == 0
    return paths


def images(count, size=SIZE):
    """Pairs of pictures that are no noise to the coarse levels."""
    rng = np.random.default_rng(count)
    shape = (count, size[0] // 8, size[1] // 8, 3)
    small = (rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))
    return [image.repeat(8, axis=1).repeat(8, axis=2) for image in small]


def run_model(path, image_1, image_2):
    """uint8 (N, H, W, 3) twice -> flow (N, H, W, 2), mask (N, H, W, 1)."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {
        name: image.transpose(0, 3, 1, 2) / np.float32(255) for name, image in (("img1", image_1), ("img2", image_2))
    }
    return [output.transpose(0, 2, 3, 1) for output in session.run(["flow", "mask"], feeds)]


def engine_of(network, checkpoint):
    return load_engine(load_network_config(network), read_checkpoint(checkpoint), "", "torch", None)


def share_outside(flow) -> float:
    """Of the pixels whose flow leads out of the picture."""
    height, width = flow.shape[1:3]
    x, y = np.arange(width) + flow[..., 0], np.arange(height)[:, None] + flow[..., 1]
    return ((x < 0) | (x >= width) | (y < 0) | (y >= height)).mean()


@pytest.mark.parametrize("network", NETWORKS)
def test_the_model_predicts_what_the_engine_does(network, checkpoints, models):
    """Also where flows leave the picture, for 1 and 3 pairs with one file."""
    engine = engine_of(network, checkpoints[network])
    pairs = images(3)
    prediction = engine.predict(*pairs, warped=False)
    assert 0.1 < np.ptp(prediction.mask) <= 1
    for count in (1, 3):
        flow, mask = run_model(models[network], *(image[:count] for image in pairs))
        assert 0.2 < share_outside(flow) < 0.9
        assert np.abs(flow - prediction.flow[:count]).max() < 1e-3
        assert np.abs(mask - prediction.mask[:count]).max() < 1e-5


@pytest.mark.parametrize("network", NETWORKS)
def test_the_file_says_what_it_is(network, checkpoints, models):
    model = onnx.load(str(models[network]))
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["network"] == network
    assert facts["pyramid"] == RECORDS[network].pyramid
    assert (facts["height"], facts["width"], facts["batch"]) == ("64", "192", "any")
    assert facts["checkpoint_sha256"] == sha256(checkpoints[network].read_bytes())
    assert facts["run"] == RECORDS[network].run
    assert "px, (u, v)" in facts["flow"]
    assert "1 = the pixel of img1 is visible" in facts["mask"]
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    image, flow, mask = (["N", channels, *SIZE] for channels in (3, 2, 1))
    assert shapes == {"img1": image, "img2": image, "flow": flow, "mask": mask}
    assert all("float32" in value.doc_string for value in model.graph.input)


def test_the_command_says_how_to_run_it(checkpoints, tmp_path, capsys):
    """The head of a MaskFlownet, for two pairs at a time."""
    path = tmp_path / "head.onnx"
    line = ["MaskFlownet_S", "-c", str(checkpoints["MaskFlownet"]), "--export", str(path)]
    assert run(main.main, [*line, "--resize", "64,64", "--batch", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert f"wrote {path}: MaskFlownet_S for 2 pair(s) of 64x64 px" in lines[0]
    assert "opset 17" in lines[0]
    assert f"{path.stat().st_size / 1e6:.1f} MB" in lines[0]
    assert "flow (2, 2, 64, 64), px (u, v)" in lines[1]
    assert f"InferenceSession('{path}').run(" in lines[2]  # the example has one pair
    assert [p.name for p in tmp_path.iterdir()] == ["head.onnx"]
    pair = images(2, (64, 64))
    engine = engine_of("MaskFlownet_S", checkpoints["MaskFlownet"])
    assert np.abs(run_model(path, *pair)[0] - engine.predict(*pair).flow).max() < 1e-3


def test_a_program_of_torch_export_needs_nothing_of_this_code(checkpoints, tmp_path, capsys):
    """The head of a MaskFlownet, for any number of pairs."""
    path = tmp_path / "head.pt2"
    line = ["MaskFlownet_S", "-c", str(checkpoints["MaskFlownet"]), "--export", str(path)]
    with torch._dynamo.config.patch(fake_tensor_cache_enabled=False):  # the cache costs a third of the time
        assert run(main.main, [*line, "--resize", "64,128"]) == 0
    assert "torch.export.load(" in capsys.readouterr().out.splitlines()[2]
    pair = images(3, (64, 128))
    code = """if True:
        import sys, torch, torch.export
        sys.modules["maskflownet"] = None
        facts = {"facts.json": ""}
        program = torch.export.load("head.pt2", extra_files=facts)
        torch.save(program.module()(*torch.load("in.pt")), "out.pt")
        print(facts)
    """
    torch.save([torch.from_numpy(image.transpose(0, 3, 1, 2) / np.float32(255)) for image in pair], tmp_path / "in.pt")
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0 and '"network": "MaskFlownet_S"' in done.stdout, done.stderr
    expected = engine_of("MaskFlownet_S", checkpoints["MaskFlownet"]).predict(*pair)
    for found, array in zip(torch.load(tmp_path / "out.pt"), expected):
        np.testing.assert_allclose(found.detach().permute(0, 2, 3, 1), array, rtol=0, atol=1e-3)


@pytest.mark.parametrize("missing", ["onnx", "torch"])
def test_a_missing_package_is_one_sentence_that_says_what_to_install(missing, checkpoints, tmp_path):
    code = (
        f"import sys; sys.modules['{missing}'] = sys.modules['mxnet'] = None; "
        "import main; from maskflownet.settings.cli import run; sys.exit(run(main.main))"
    )
    line = ["MaskFlownet_S", "-c", checkpoints["MaskFlownet_S"], "--export", tmp_path / "x.onnx"]
    done = python("-c", code, *line)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install torch onnx onnxruntime" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(1, 2), (2, 4), (3, 5), (9, 12)])
@pytest.mark.parametrize("reach", [1, 4, 50])
def test_the_deformable_convolution_keeps_the_border_rule(size, reach):
    """Offsets in and out of the picture, whole pixels, where the rule jumps, and what is no number."""
    random = np.random.default_rng(reach)
    x, weight, bias, offset = (
        random.standard_normal(shape, np.float32) for shape in ((3, 5, *size), (4, 5, 3, 3), (4,), (3, 2, *size))
    )
    offset = np.where(random.random((3, 1, *size)) > 0.7, np.rint(offset * reach), offset * reach)
    offset[:, :, 0, :2] = random.choice([np.nan, np.inf, -np.inf, 1e9, 0.0], (3, 2, min(2, size[1])))
    inputs = [torch.from_numpy(array) for array in (x, np.tile(offset, (1, 9, 1, 1)), weight, bias)]
    name, attrs = "_contrib_DeformableConvolution", {"kernel": (3, 3), "num_filter": 4, "pad": (1, 1)}
    torch.testing.assert_close(deformable_convolution(inputs, attrs), OPERATORS[name](inputs, attrs), rtol=0, atol=1e-4)


def test_the_example_reads_pictures_as_everything_else_does(shared):
    cases = shared / "cases"
    ten_bit = [cases / "sixteen_bit" / f"ten_bit_{i}.png" for i in (1, 2)]
    grey = [cases / "run_onnx_reader" / f"g16_{i}.png" for i in (1, 2)]
    for paths in (ten_bit, grey, [cases / "run_onnx_reader" / "rotated.jpg"]):
        for found, expected in zip(example_images([str(path) for path in paths]), read_images(paths)):
            np.testing.assert_array_equal(np.rint(found * 255), expected.transpose(2, 0, 1))
    with pytest.raises(ValueError, match="as a picture"):
        example_images([str(cases / "README.md")])


def test_the_example_runs_with_no_other_code(checkpoints, models, tmp_path):
    """From another folder, for pictures of the model's size and of another one.

    Those have one colour each: the mean is taken before resizing by the engines, after it by the
    model, and here both are the same.
    """

    def example(image_1, image_2, *arguments):
        for i, image in enumerate((image_1, image_2)):
            write_image(tmp_path / f"{i}.png", image)
        line = [models["MaskFlownet_S"], "0.png", "1.png", *arguments]
        done = python("-I", ROOT / "examples/run_onnx.py", *line, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"wrote {' and '.join(arguments[::2])}: the speed is" in done.stdout

    predict = Predictor(engine_of(*list(checkpoints.items())[0]), Sizing(SIZE))
    pair = [image[0] for image in images(1)]
    example(*pair, "flow.flo", "--mask", "mask.png")
    flow, mask, _ = predict(*pair)
    assert np.abs(read_flow(tmp_path / "flow.flo")[0] - flow).max() < 1e-3
    assert np.abs(read_image(tmp_path / "mask.png") - mask * 255).max() <= 0.5 + 1e-2
    pair = [np.full((50, 90, 3), colour, np.uint8) for colour in ((9, 99, 199), (200, 30, 60))]
    example(*pair, "flow.flo")
    flow = predict(*pair).flow
    assert np.ptp(flow) > 5
    assert np.abs(read_flow(tmp_path / "flow.flo")[0] - flow).max() < 1e-3
    example(*pair, "flow.png")
    assert read_image(tmp_path / "flow.png").shape == (50, 90, 3)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["a.txt", "a.txt", "a.txt", "x.flo"], "cannot read a.txt as a picture of 8 or 16 bit"),
        (["a.txt", "a.png", "a.png", "x.flo"], "cannot run a.txt: .*INVALID_PROTOBUF.*"),
        (["no", "a.png", "a.png", "x.flo"], "there is no file no"),
        (["a.txt", "a.png", "a.png", "./a.png"], "./a.png is an input, or named twice"),
        (["a.txt", "a.png", "a.png", "x.png", "--mask", "x.png"], "x.png is an input, or named twice"),
        (["a.txt", "a.png", "b.png", "x.flo"], "the pictures differ in size"),
        (["a.txt", "a.png", "a.jpg", "x.flo"], "cannot read a.jpg: the JPEG ends early"),
        ([None, "a.png", "a.png", "no/x.png"], "cannot write no/x.png: there is no such folder, .*"),
        ([None, "a.png", "a.png", "no/x.flo"], r"\[Errno 2\] No such file or directory: 'no/x.flo'"),
    ],
)
def test_what_is_wrong_with_the_example_s_input_is_one_sentence(models, tmp_path, monkeypatch, capfd, line, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("no picture, no model")
    for name, side in (("a", 64), ("b", 32)):
        write_image(tmp_path / f"{name}.png", np.zeros((64, side, 3), np.uint8))
    write_image(tmp_path / "a.jpg", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-40])
    line = [name or models["MaskFlownet_S"] for name in line]
    monkeypatch.setattr("sys.argv", ["run_onnx.py", *map(str, line)])
    with pytest.raises(SystemExit, match="^2$"):
        run_path(str(ROOT / "examples/run_onnx.py"), run_name="__main__")
    assert re.fullmatch(f"error: {said}\n", capfd.readouterr().err)
