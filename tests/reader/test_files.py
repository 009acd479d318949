import os

import pytest
from maskflownet.errors import UserError
from maskflownet.reader.files import atomic_path, natural, walk, write_bytes

from tests.programs import python


def test_the_file_appears_at_the_end_only(tmp_path):
    path = tmp_path / "out.name.png"
    with atomic_path(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"
        assert temporary.name.startswith(".out.name.")
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "out.flo"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_share_a_name(tmp_path):
    with atomic_path(tmp_path / "a") as first, atomic_path(tmp_path / "a") as second:
        assert first != second
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("name", "message"),
    [("no/out.png", "its folder .*no does not exist$"), (".", "it is a folder"), ("x" * 300, "File name too long")],
)
def test_where_nothing_can_be_written(tmp_path, name, message):
    with pytest.raises(UserError, match=f"cannot write {tmp_path}.*{message}"):
        write_bytes(tmp_path / name, b"")
    assert not list(tmp_path.iterdir())


WRITER = """
import resource, sys
from maskflownet.errors import UserError
from maskflownet.reader.files import atomic_path
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic_path(sys.argv[1]) as temporary, open(temporary, "wb") as file:
        file.write(bytes(5000))
except UserError as error:
    print(error)
"""


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    pytest.importorskip("resource", reason="not on this system")
    path = tmp_path / "out.bin"
    assert python("-c", WRITER, path).stdout == f"cannot write {path}: File too large\n"
    assert not list(tmp_path.iterdir())


def test_an_error_of_another_file_stays_its_own(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "out"):
        (tmp_path / "input").read_bytes()
    assert caught.value.filename == str(tmp_path / "input")


def test_folders_that_are_left_out_are_named(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "link").symlink_to("locked")

    def scandir(path, scan=os.scandir):
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.warns(UserWarning, match=r"2 files or folders .*: link \(a link\), locked \(Permission denied\)$"):
        assert [folder for folder, _, _ in walk(tmp_path)] == [str(tmp_path)]


def test_names_are_sorted_by_their_numbers():
    names = ["b1", "frame_10.png", "frame_2.png", "2", "10", "frame_2b.png"]
    assert sorted(names, key=natural) == ["2", "10", "b1", "frame_2.png", "frame_2b.png", "frame_10.png"]
