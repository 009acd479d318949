"""Where the roots of data sets come from."""

from pathlib import Path

import pytest
from maskflownet.errors import UserError
from maskflownet.settings.datasets import NAMES, TEXTURES, find_root, parse_roots, read_paths


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Make three folders, and an environment that knows of no data set."""
    for name in (*NAMES, TEXTURES):
        monkeypatch.delenv(f"MASKFLOWNET_{name.upper()}", raising=False)
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_command_line_before_environment_before_file(folders, monkeypatch):
    paths = folders / "paths.yaml"
    paths.write_text("chairs: three\n")
    assert find_root("chairs", {}, paths) == folders / "three"
    monkeypatch.setenv("MASKFLOWNET_CHAIRS", str(folders / "two"))
    assert find_root("chairs", {}, paths) == folders / "two"
    assert find_root("chairs", {"chairs": str(folders / "one")}, paths) == folders / "one"


def test_nothing_said_is_none(folders, monkeypatch):
    paths = folders / "paths.yaml"
    paths.write_text("# nothing yet\n")
    assert find_root("kitti", {"chairs": str(folders / "one")}, paths) is None
    monkeypatch.setenv("MASKFLOWNET_KITTI", "")
    assert find_root("kitti", {}) is None


@pytest.mark.parametrize("name", [*NAMES, TEXTURES])
def test_every_name_has_its_variable(folders, monkeypatch, name):
    monkeypatch.setenv(f"MASKFLOWNET_{name.upper()}", str(folders / "two"))
    assert find_root(name, {}) == folders / "two"


def test_home_and_absolute_folders_in_a_file(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders))
    paths = folders / "one" / "paths.yaml"
    paths.write_text(f"sintel: {folders / 'two'}\nhd1k: ~/three\n")
    assert find_root("sintel", {}, paths) == folders / "two"
    assert find_root("hd1k", {}, paths) == folders / "three"
    assert find_root("hd1k", {"hd1k": "~/one"}) == folders / "one"


def test_a_root_that_does_not_exist_is_an_error(folders, monkeypatch):
    with pytest.raises(UserError, match="nowhere.*sintel.*command line"):
        find_root("sintel", {"sintel": str(folders / "nowhere")})
    monkeypatch.setenv("MASKFLOWNET_SINTEL", str(folders / "nowhere"))
    with pytest.raises(UserError, match="nowhere.*MASKFLOWNET_SINTEL"):
        find_root("sintel", {})


def test_unknown_names_are_errors(folders):
    with pytest.raises(UserError, match="'chair'"):
        find_root("chair", {})
    with pytest.raises(UserError, match="'chair'.*command line"):
        find_root("chairs", {"chair": str(folders / "one")})
    with pytest.raises(UserError, match="'chair'.*command line"):
        parse_roots(["chair=/somewhere"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("chair: one\n", "'chair'"),
        ("chairs: 3\n", "chairs"),
        ("chairs:\n", "chairs"),
        ("- chairs\n", "does not hold keys and values"),
        ("chairs: [one\n", "not valid YAML"),
        ("chairs: one\nchairs: two\n", "chairs stands twice"),
        ("chairs: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("[1, 2]: one\n", "no data set"),
    ],
)
def test_a_wrong_file_is_named(folders, content, message):
    paths = folders / "paths.yaml"
    paths.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_paths(paths)
    assert str(paths) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(folders):
    with pytest.raises(UserError, match=r"absent\.yaml"):
        find_root("chairs", {}, folders / "absent.yaml")


def test_arguments():
    roots = parse_roots(["chairs=/a", "sintel=b=c"])
    assert roots == {"chairs": "/a", "sintel": "b=c"}
    assert isinstance(find_root("chairs", {"chairs": "."}), Path)
    for wrong in (["chairs"], ["chairs="], ["=/a"], ["chairs=/a", "chairs=/b"]):
        with pytest.raises(UserError):
            parse_roots(wrong)
