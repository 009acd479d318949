"""The `.params` layout, against MXNet's own reader and writer, and every kind of damage."""

import struct

import numpy as np
import pytest
from maskflownet.checkpoints.params import OtherLayout, read_params, write_params
from maskflownet.errors import UserError
from maskflownet.network.compat import mx

ARRAYS = {
    "conv1a.0.weight": np.arange(24, dtype="f4").reshape(2, 3, 2, 2),
    "conv1a.0.bias": np.array([1.5, -2.0], "f2"),
    "steps": np.array([7], "i8"),
}


@pytest.fixture
def path(tmp_path):
    write_params(tmp_path / "some.params", ARRAYS)
    return tmp_path / "some.params"


def assert_same(arrays):
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert (arrays[name] == array).all()


def test_what_is_written_is_read_here_and_by_mxnet(path):
    assert_same(read_params(path))
    assert_same({name: array.asnumpy() for name, array in mx.nd.load(str(path)).items()})


def test_written_bytes_are_those_of_mxnet(path, tmp_path):
    arrays = {name: mx.nd.array(array, dtype=array.dtype) for name, array in ARRAYS.items()}
    mx.nd.save(str(tmp_path / "theirs.params"), arrays)
    assert path.read_bytes() == (tmp_path / "theirs.params").read_bytes()


def test_every_truncation_is_one_sentence(path, tmp_path):
    whole = path.read_bytes()
    cut = tmp_path / "cut.params"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.params") as error:
            read_params(cut)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("at", "layout", "value", "message"),
    [
        (0, "Q", 0x113, "no MXNet .params file"),
        (16, "Q", 1 << 60, "older or newer layout"),  # number of arrays
        (24, "I", 0xDEADBEEF, "does not begin with its magic number"),
        (28, "i", 1, "sparse"),
        (32, "I", 1000, "absurd dimensions"),
        (32, "I", 0, "without dimensions"),
        (36, "q", -1, "impossible shape"),
        (36, "q", 1 << 40, "truncated or damaged"),
        (76, "i", 99, "impossible shape or type"),
    ],
)
def test_damage_is_named(path, at, layout, value, message):
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + layout, data, at, value)
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_params(path)


def test_bytes_after_the_end_are_damage(path):
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UserError, match="bytes follow"):
        read_params(path)


def test_missing_empty_and_text_files(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_params(tmp_path / "none.params")
    (tmp_path / "empty.params").write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):
        read_params(tmp_path / "empty.params")
    (tmp_path / "text.params").write_text("a text that is long enough")
    with pytest.raises(UserError, match="no MXNet .params file"):
        read_params(tmp_path / "text.params")


def test_list_without_names_is_refused(tmp_path):
    mx.nd.save(str(tmp_path / "list.params"), [mx.nd.ones((2, 2))])
    with pytest.raises(UserError, match="no names"):
        read_params(tmp_path / "list.params")


@pytest.mark.parametrize("magic", [0xF993FAC8, 4])
def test_older_layouts_are_told_apart(path, magic):
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 24, magic)
    path.write_bytes(data)
    with pytest.raises(OtherLayout):
        read_params(path)


def test_what_cannot_be_stored_is_refused(tmp_path):
    for array in (np.array(["text"]), np.float32(1), np.ones(2, complex)):
        with pytest.raises(ValueError, match="cannot be stored"):
            write_params(tmp_path / "x.params", {"x": np.asarray(array)})
    assert not list(tmp_path.iterdir())
