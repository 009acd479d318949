"""The `.params` layout, against MXNet's own reader and writer, and every kind of damage."""

import struct

import numpy as np
import pytest
from maskflownet.checkpoints.params import params_bytes, read_params
from maskflownet.errors import UserError
from maskflownet.network.compat import mx

ARRAYS = {
    "conv1a.0.weight": np.arange(24, dtype="f4").reshape(2, 3, 2, 2),
    "conv1a.0.bias": np.array([1.5, -2.0], "f2"),
    "steps": np.array([7], "i8"),
}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "some.params").write_bytes(params_bytes(ARRAYS, ""))
    return tmp_path / "some.params"


def test_what_is_written_are_the_bytes_of_mxnet_and_is_read(path, tmp_path):
    arrays = {name: mx.nd.array(array, dtype=array.dtype) for name, array in ARRAYS.items()}
    mx.nd.save(str(tmp_path / "theirs.params"), arrays)
    assert path.read_bytes() == (tmp_path / "theirs.params").read_bytes()
    read = read_params(path)
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype and (read[name] == array).all()


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
        (16, "Q", 1 << 60, "is damaged"),  # number of arrays
        (24, "I", 0xDEADBEEF, "does not begin with its magic number"),
        (28, "i", 1, "sparse"),
        (32, "I", 1000, "absurd dimensions"),
        (32, "I", 0, "absurd dimensions"),
        (36, "q", -1, "impossible shape"),
        (36, "q", 0, "impossible shape"),
        (36, "q", 1 << 40, "truncated or damaged"),
        (36, "q", 1 << 62, "truncated or damaged"),
        (76, "i", 99, "impossible shape or type"),
    ],
)
def test_damage_is_named(path, at, layout, value, message):
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + layout, data, at, value)
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_params(path)


def test_a_missing_file_and_bytes_after_the_end(path):
    with pytest.raises(UserError, match="there is no such file"):
        read_params(path.with_name("none.params"))
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UserError, match="bytes follow"):
        read_params(path)


def test_list_without_names_is_refused(tmp_path):
    mx.nd.save(str(tmp_path / "list.params"), [mx.nd.ones((2, 2))])
    with pytest.raises(UserError, match="no names"):
        read_params(tmp_path / "list.params")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_written(path, value):
    with pytest.raises(UserError, match=r"new.params is not written: x holds values that are not finite"):
        params_bytes({"x": np.array([1, value], "f4")}, path.with_name("new.params"))
    assert [file.name for file in path.parent.iterdir()] == ["some.params"]


def test_what_cannot_be_stored_is_refused():
    for array in (np.array(["text"]), np.float32(1), np.ones(2, complex), np.ones((0, 2), "f4")):
        with pytest.raises(ValueError, match="cannot be stored"):
            params_bytes({"x": np.asarray(array)}, "x.params")
