"""Finding, reading, matching and writing checkpoints and their records."""

import dataclasses

import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import Record, find_checkpoint, load_checkpoint, match_network, save_checkpoint
from maskflownet.checkpoints.params import params_bytes, read_params
from maskflownet.errors import UserError
from maskflownet.settings.folders import SHIPPED
from maskflownet.settings.schema import read_yaml, yaml_text

SMALL = {
    "MaskFlownet_S": {"conv6a.0.weight": np.ones((4, 3, 3, 3), "f4")},
    "MaskFlownet": {
        "conv6x.0.weight": np.ones((4, 3, 3, 3), "f4"),
        "MaskFlownet_S.conv6a.0.weight": np.full((4, 3, 3, 3), 2, "f4"),
    },
}


@pytest.fixture
def folder(tmp_path):
    runs = "8caNov12-1532_100", "8caNov12-1532_2000", "8cbNov13-0101_5", "shipped", "abc_1", "abcd_1", "97eJan01-0000_7"
    for name in runs:
        (tmp_path / f"{name}.params").write_bytes(params_bytes(SMALL["MaskFlownet_S"], ""))
    (tmp_path / ".8ccNov13-0101_5.1234.tmp.params").write_bytes(b"half written")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("8caNov12-1532", "8caNov12-1532_2000"),  # the most steps, by number
        ("8caN", "8caNov12-1532_2000"),
        ("8ca:100", "8caNov12-1532_100"),
        ("8cb", "8cbNov13-0101_5"),
        ("ship", "shipped"),
        ("97f", SHIPPED.stem),  # from every folder
        ("97f:8600", SHIPPED.stem),
        ("97", "97eJan01-0000_7"),  # what the folder has comes first
        ("abc", "abc_1"),  # a whole id, though abcd begins so
        (None, SHIPPED.stem),
    ],
)
def test_checkpoints_are_found(folder, name, stem):
    assert find_checkpoint(name, folder).stem == stem
    path = folder / "shipped.params"
    assert find_checkpoint(str(path), "elsewhere") == path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("8c", "ambiguous: it fits 8caNov12-1532, 8cbNov13-0101"),
        ("7", "there are 8caNov12-1532, 8cbNov13-0101, 97eJan01-0000, 97fNov30-0847, abc, abcd, shipped"),
        ("8ccNov13", "no checkpoint 8ccNov13"),  # what a killed run left
        ("8ca:7", "at step 7: it has 100, 2000"),
        ("8ca:x", "must be a number of steps"),
        ("8ca:" + "9" * 5000, "must be a number of steps"),
        ("none/here.params", "no such file"),
        ("here.params", "no such file"),
    ],
)
def test_what_cannot_be_found_is_one_sentence(folder, name, message):
    with pytest.raises(UserError, match=message) as error:
        find_checkpoint(name, folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("network", SMALL)
def test_a_file_without_record_is_one_of_the_authors(tmp_path, network):
    path = tmp_path / "x_20261130224500.params"  # a time, not steps
    path.write_bytes(params_bytes(SMALL[network], ""))
    record = load_checkpoint(path).record
    assert (record.network, record.pyramid, record.colour, record.step) == (network, "released", "RGB", 0)
    assert not record.found


def test_record_round_trip(tmp_path):
    record = Record("MaskFlownet", "paper", "BGR", run="8caNov12-1532", step=7, seed=1, metrics={"epe": 2.5})
    path = tmp_path / "x.params"
    save_checkpoint(path, SMALL["MaskFlownet"], record)
    loaded = load_checkpoint(path)
    assert dataclasses.replace(loaded.record, sha256=None) == record
    assert len(loaded.record.sha256) == 64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.params", "x.yaml"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "MaskFlownet_X"}, "network must be one of MaskFlownet_S, MaskFlownet"),
        ({"network": "MaskFlownet"}, "is a MaskFlownet_S checkpoint, but its record says"),
        ({"pyramids": "paper"}, "unknown key pyramids, did you mean 'pyramid'"),
        ({"sha256": "0" * 64}, "sha256 sums differ"),
        ({"step": -1}, "step must be at least 0"),
        ({"colour": "GBR"}, "colour must be one of RGB, BGR"),
        ({"run": "../../x"}, "run may have 1 to 100 letters, digits, _ and - only, not '../../x'"),
        ({"run": "a*"}, "run may have 1 to 100 letters, digits, _ and - only"),
        ({"metrics": {"mean_epe": "bad"}}, "metrics.mean_epe must be a number, not 'bad'"),
    ],
)
def test_a_wrong_record_is_an_error(tmp_path, change, message):
    path = tmp_path / "x.params"
    save_checkpoint(path, SMALL["MaskFlownet_S"], Record("MaskFlownet_S"))
    record = path.with_suffix(".yaml")
    record.write_text(yaml_text({**read_yaml(record), **change}))
    with pytest.raises(UserError, match=message):
        load_checkpoint(path)


def test_float16_files_load_as_float32(tmp_path):
    values = {"conv6a.0.weight": np.full((1, 1, 1, 1), 0.1, "f4")}
    save_checkpoint(tmp_path / "x.params", values, Record("MaskFlownet_S"), "float16")
    assert read_params(tmp_path / "x.params")["conv6a.0.weight"].dtype == np.float16
    loaded = load_checkpoint(tmp_path / "x.params").parameters["conv6a.0.weight"]
    assert loaded.dtype == np.float32
    assert loaded.item() == np.float16(0.1)


def test_exported_names_lose_their_marks(tmp_path):
    marked = {f"arg:{name}": array for name, array in SMALL["MaskFlownet_S"].items()}
    (tmp_path / "x.params").write_bytes(params_bytes(marked, ""))
    assert set(load_checkpoint(tmp_path / "x.params").parameters) == set(SMALL["MaskFlownet_S"])


@pytest.mark.parametrize("own_record", [False, True])
def test_a_symbolic_link_has_the_record_of_its_file(tmp_path, own_record):
    real = tmp_path / "real" / "abcJan01-0000_7.params"
    real.parent.mkdir()
    save_checkpoint(real, SMALL["MaskFlownet"], Record("MaskFlownet", "paper", step=7))
    link = tmp_path / "link.params"
    link.symlink_to(real)
    if own_record:  # where everything is a link to a nameless file
        link.with_suffix(".yaml").write_text(yaml_text({"network": "MaskFlownet", "pyramid": "released"}))
    record = load_checkpoint(link).record
    assert record.found and record.pyramid == ("released" if own_record else "paper")
    real.write_bytes(real.read_bytes().replace(np.float32(2).tobytes(), np.float32(3).tobytes(), 1))
    if not own_record:
        with pytest.raises(UserError, match="sha256 sums differ"):
            load_checkpoint(link)


@pytest.mark.parametrize("value", [7e4, np.nan])
def test_what_does_not_fit_float16_is_not_halved(tmp_path, value):
    values = {"conv6a.0.weight": np.full((1, 1, 1, 1), value, "f4")}
    with pytest.raises(UserError, match=r"x.params is not written: conv6a.0.weight holds values that are not finite"):
        save_checkpoint(tmp_path / "x.params", values, Record("MaskFlownet_S"), "float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"conv6a.0.weight": (4, 3, 3, 3), "other": (1,)}, "it lacks other"),
        ({"other": (1,)}, "it lacks other and 1 more"),
        ({}, "it has the unknown array conv6a.0.weight"),
        ({"conv6a.0.weight": (4, 3, 1, 1)}, r"shape \(4, 3, 3, 3\), the network's has \(4, 3, 1"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, expected, message):
    (tmp_path / "x.params").write_bytes(params_bytes(SMALL["MaskFlownet_S"], ""))
    with pytest.raises(UserError, match=message):
        match_network(load_checkpoint(tmp_path / "x.params"), "MaskFlownet_S", expected)
