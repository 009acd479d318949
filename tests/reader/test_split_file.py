"""Split files: one line per pair."""

import pytest
from maskflownet.errors import DataError
from maskflownet.reader.dataset import read_split


def test_lines_of_either_line_end(tmp_path):
    path = tmp_path / "split.txt"
    for content in (b"1\n2\n1\n", b"1\r\n2\r\n1", b"1\n2\n1\n\n"):
        path.write_bytes(content)
        assert read_split(path, 3) == ["1", "2", "1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1\n2\n", "describes 2 pairs where the data set holds 3"),
        (b"1\n2\n1\n1\n", "describes 4 pairs"),
        (b"1\n2\n0\n", "'0'"),
        (b"121\n", "'121'"),
        (b"", "describes 0 pairs"),
        (b"\xff\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, content, message):
    path = tmp_path / "split.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_split(path, 3)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.txt"):
        read_split(tmp_path / "absent.txt", 3)
