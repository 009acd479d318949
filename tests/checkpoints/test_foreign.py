"""Checkpoints of other programs: made from the golden parameters, they give the golden flows; or they are refused."""

import argparse
import os
import pickle
import re
import sys

import maskflownet
import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import RELEASED, find_checkpoint, load_checkpoint, read_record
from maskflownet.checkpoints.params import params_bytes, read_params
from maskflownet.errors import UserError
from maskflownet.network.architecture import HEAD
from maskflownet.settings.folders import SHIPPED
from maskflownet.tools import convert
from safetensors.numpy import save_file

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

S, FULL = "MaskFlownet_S", "MaskFlownet"
NOT_ZIP = {"_use_new_zipfile_serialization": False}  # PyTorch before 1.6


def tensors(arrays):
    return {name: torch.tensor(array) for name, array in arrays.items()}


def of_ports(arrays):
    return tensors({re.sub(r"(upfeat[2-5])\.0", r"\1", name): array for name, array in arrays.items()})


def of_mmflow(arrays):
    """As mmflow's MaskFlowNetS has them: its names, and weights for a sum in place of a mean over the channels."""
    levels, found = {6: 196, 5: 128, 4: 96, 3: 64, 2: 32}, {}
    decoder = "decoder.decoders.level"
    for level in range(1, 7):
        for i, letter in enumerate("abc"):
            found[f"conv{level}{letter}.0"] = f"encoder.layers.{level - 1}.layers.{i}.conv"
    for level in levels:
        for i in range(5):
            found[f"conv{level}_{i}.0"] = f"{decoder}{level}.dense_net.layers.{i}.layers.conv"
        found |= {f"pred_{kind}{level}": f"{decoder}{level}.predict_{kind}" for kind in ("flow", "mask")}
        found[f"upfeat{level - 1}.0"] = f"{decoder}{level}.upfeat_layer.0"
        found[f"conv{level}f.0"] = f"decoder.corr_block.level{level}.warp.tradeoff_conv"
        found[f"deform{level}"] = f"decoder.corr_block.level{level}.warp.deconv"
    found |= {f"dc_conv{i}.0": f"decoder.post_processor.layers.{i - 1}.conv" for i in range(1, 7)}
    found["dc_conv7"] = "decoder.post_processor.layers.6"
    result = {}
    for name, array in arrays.items():
        stem, kind = name.rsplit(".", 1)
        level = 2 if stem == "dc_conv1.0" else int(re.search(r"\d", stem)[0]) + stem.startswith("upfeat")
        begin = 448
        if dense := re.fullmatch(r"conv\d_(\d)\.0", stem):
            begin = (0, 128, 256, 352, 416)[int(dense[1])]
        values = array.copy()
        if kind == "weight" and (dense or stem[:5] in {"pred_", "upfea"} or stem == "dc_conv1.0"):
            values.swapaxes(0, 0 if stem.startswith("upfeat") else 1)[begin : begin + 81] /= levels[level]
        deform_bias = stem.startswith("deform") and kind == "bias"
        result[f"{found[stem]}_bias" if deform_bias else f"{found[stem]}.{kind}"] = (
            values.reshape(-1, 1, 1) if deform_bias else values
        )
    return tensors(result)


WRITERS = {
    "params": lambda path, arrays: path.write_bytes(params_bytes(arrays, path)),
    "safetensors": lambda path, arrays: save_file(arrays, path),
    "cattaneod": lambda path, arrays: torch.save(of_ports(arrays), path, **NOT_ZIP),
    "ptlflow": lambda path, arrays: torch.save(
        {"state_dict": of_ports(arrays), "epoch": 7, "hyper_parameters": {}}, path
    ),
    "mmflow": lambda path, arrays: torch.save({"meta": {"time": "now"}, "state_dict": of_mmflow(arrays)}, path),
}


@pytest.mark.parametrize(("program", "network"), [*((program, S) for program in WRITERS), ("cattaneod", FULL)])
def test_each_format_gives_the_golden_flow(tmp_path, golden, program, network):
    """Whatever the suffix says."""
    path = tmp_path / "weights.bin"
    WRITERS[program](path, golden.parameters(network))
    found = maskflownet.load(network, path, engine="torch", colour="RGB")(*(i[0] for i in golden.pairs(100, 150, [20])))
    golden.check(network, "flow", found.flow)
    assert load_checkpoint(path).record.colour == ("BGR" if program == "mmflow" else "RGB")


def test_safetensors_are_read_with_mxnet_alone(tmp_path, golden, monkeypatch):
    pytest.importorskip("maskflownet.network.compat")
    save_file(golden.parameters(S), tmp_path / "x.safetensors")
    torch.save(of_ports(golden.parameters(S)), tmp_path / "x.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    images = golden.pairs(100, 150, [20])
    golden.check(S, "flow", maskflownet.load(S, tmp_path / "x.safetensors", engine="mxnet")(*images).flow[0])
    with pytest.raises(
        UserError, match=r"x.pth is a file for PyTorch, which cannot be imported .* to .safetensors with"
    ):
        load_checkpoint(tmp_path / "x.pth")


def test_of_mmflows_full_network_the_first_stage_is_taken(tmp_path, golden, capsys):
    first = {f"maskflownetS.{name}": tensor for name, tensor in of_mmflow(golden.parameters(S)).items()}
    torch.save({"state_dict": {**first, "decoder.other": torch.ones(1)}}, tmp_path / "x.pth")
    images = golden.pairs(100, 150, [20])
    golden.check(S, "flow", maskflownet.load(S, tmp_path / "x.pth", engine="torch", colour="RGB")(*images).flow[0])
    assert "only its maskflownetS. part" in capsys.readouterr().err
    with pytest.raises(UserError, match="is a MaskFlownet_S checkpoint, not one of MaskFlownet"):
        maskflownet.load(FULL, tmp_path / "x.pth", engine="torch")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "save",
    [
        torch.save,
        lambda x, path: torch.save(x, path, **NOT_ZIP),
        lambda x, path: path.write_bytes(pickle.dumps(x["x"], 2)),
        lambda x, path: path.write_bytes(pickle.dumps(x["x"])),
    ],
)
def test_no_code_of_a_file_is_run(tmp_path, save):
    path = tmp_path / "x.pth"
    save({"conv6a.0.weight": torch.ones(1), "x": Hostile(tmp_path / "owned")}, path)
    with pytest.raises(UserError, match="it needs posix.mkdir, and no code of a file is run|it is damaged") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value) and not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fc.weight": torch.ones(2)}, "none of its 1 arrays has a name that they know"),
        ({"conv6a.0.weight": torch.ones(2, dtype=torch.int32)}, "holds int32, not floats"),
        ({"conv6a.0.weight": torch.full((2,), float("nan"))}, "values that are not finite"),
        ({"conv6a.0.weight": torch.ones(1).expand(10**12)}, "damaged or holds no state_dict"),
        ({"conv6a.0.weight": torch.ones(2), "extra": 1}, "damaged or holds no state_dict"),
        ([torch.ones(2)], "damaged or holds no state_dict"),
        ({"hyper_parameters": argparse.Namespace(a=1)}, "it needs argparse.Namespace"),
        (torch.jit.script(torch.nn.Linear(1, 1)), "damaged or holds no state_dict"),
    ],
)
def test_what_is_no_checkpoint_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "x.pth"
    content.save(path) if isinstance(content, torch.jit.ScriptModule) else torch.save(content, path)
    with pytest.raises(UserError, match=message) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


SMALL = {S: {"conv6a.0.weight": np.ones((4, 3, 3, 3), "f4")}, FULL: {"conv6x.0.weight": np.ones((4, 3, 3, 3), "f4")}}


@pytest.mark.parametrize("names", RELEASED, ids=lambda names: names[0])
def test_released_files_are_known_by_name(tmp_path, names):
    """Under each name and through a link; a colour that is asked for stands above the table."""
    trained_on, colour, errors = RELEASED[names]
    for name in names:
        path = tmp_path / f"{name}.pth"
        torch.save(tensors(SMALL[S]), path)
        link = tmp_path / "link.pth"
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        for file in (path, link):
            loaded = load_checkpoint(file)
            assert loaded.record.colour == colour and not loaded.record.found
            assert trained_on in loaded.note and errors in loaded.note and f"colours are {colour}" in loaded.note
            run, _, step = names[0].rpartition("_")
            assert not step.isdigit() or (loaded.record.run, loaded.record.step) == (run, int(step))
            assert load_checkpoint(file, "RGB").record.colour == "RGB"
            assert "colours are RGB" in load_checkpoint(file, "RGB").note


def test_runs_are_found_in_every_format(tmp_path):
    torch.save(tensors(SMALL[S]), tmp_path / "771Sep25-0735_500000.pth")
    save_file(SMALL[S], tmp_path / "abbSep15-1037_500000.safetensors")
    assert find_checkpoint("771", tmp_path).suffix == ".pth"
    assert find_checkpoint("abb:500000", tmp_path).suffix == ".safetensors"


@pytest.mark.parametrize(
    ("suffix", "flags"),
    [
        (".params", ()),
        (".ckpt", ()),
        *((s, ("--head", "--float16", "--bgr")) for s in (".params", ".safetensors", ".pth")),
    ],
)
def test_conversion_keeps_parameters_and_record(tmp_path, suffix, flags):
    """And overwrites nothing."""
    path = tmp_path / f"out put{suffix}"
    convert.main(["97f", str(path), *flags])
    before, after = load_checkpoint(SHIPPED), load_checkpoint(path)
    expected = before.head() if flags else before
    assert after.record.network == expected.record.network
    assert (after.record.run, after.record.step, after.record.found) == (before.record.run, before.record.step, True)
    assert (after.record.pyramid, after.record.colour) == ("paper", "BGR" if flags else "RGB")
    assert after.parameters.keys() == expected.parameters.keys()
    for name, array in after.parameters.items():
        np.testing.assert_array_equal(array, expected.parameters[name])
    if suffix == ".params":
        assert read_params(path)["conv1a.0.bias" if flags else f"{HEAD}conv1a.0.bias"].dtype == (
            "f2" if flags else "f4"
        )
    assert (read_record(path) is None) == (suffix == ".safetensors")
    content = sorted(file.name for file in tmp_path.iterdir())
    with pytest.raises(UserError, match="exists already: give another name"):
        convert.main(["97f", str(path)])
    assert sorted(file.name for file in tmp_path.iterdir()) == content


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["97f", "x.onnx"], r"x.onnx: its suffix is none of .params, .safetensors, .pth, .ckpt"),
        (["97f", "no/where.pth"], "no/where.pth: its folder no does not exist"),
        (["SMALL", "x.pth", "--head"], "is a MaskFlownet_S already: leave out --head"),
        (["97f", "x.pth", "--rgb", "--bgr"], "not allowed with argument"),
        (["SMALL", "small.ckpt"], "small.yaml would pass for the record of small.params: give another name"),
    ],
)
def test_wrong_conversions_are_one_sentence(tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.params").write_bytes(params_bytes(SMALL[S], ""))
    with pytest.raises(UserError, match=message):
        convert.main(["small.params" if word == "SMALL" else word for word in line])
    assert [file.name for file in tmp_path.iterdir()] == ["small.params"]


def test_a_damaged_record_in_safetensors_is_one_sentence(tmp_path):
    for text in ("{", '{"network": "X"}', "[" * 10**5):
        save_file(SMALL[S], tmp_path / "x", {"maskflownet": text})
        with pytest.raises(UserError, match="record in .* is damaged|network must be one of"):
            load_checkpoint(tmp_path / "x")
