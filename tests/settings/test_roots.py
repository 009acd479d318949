"""Where the roots of data sets come from."""

import pytest
from maskflownet.errors import UserError
from maskflownet.settings.datasets import Roots, parse_roots, root_names

NAMES = root_names()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Make three folders, and an environment that knows of no data set."""
    for name in NAMES:
        monkeypatch.delenv(f"MASKFLOWNET_{name.upper()}", raising=False)
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    return tmp_path


def find(name, given, paths_file):
    return Roots(given, paths_file).look_up(name)


def test_names():
    assert NAMES == ["chairs", "things3d", "sintel", "kitti", "hd1k", "textures", "pairs"]


def test_command_line_before_environment_before_file(folders, monkeypatch):
    paths = folders / "paths.yaml"
    paths.write_text("chairs: three\n")
    assert find("chairs", {}, paths) == folders / "three"
    monkeypatch.setenv("MASKFLOWNET_CHAIRS", str(folders / "two"))
    assert find("chairs", {}, paths) == folders / "two"
    assert find("chairs", {"chairs": str(folders / "one")}, paths) == folders / "one"


@pytest.mark.parametrize("content", ["", "# nothing yet\n"])
def test_nothing_said_is_none(folders, monkeypatch, content):
    paths = folders / "paths.yaml"
    paths.write_text(content)
    assert find("kitti", {"chairs": str(folders / "one")}, paths) is None
    monkeypatch.setenv("MASKFLOWNET_KITTI", "")
    assert find("kitti", {}, paths) is None


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_its_variable(folders, monkeypatch, name):
    monkeypatch.setenv(f"MASKFLOWNET_{name.upper()}", str(folders / "two"))
    assert find(name, {}, None) == folders / "two"


def test_home_and_absolute_folders_in_a_file(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders))
    paths = folders / "one" / "paths.yaml"
    paths.write_text(f"sintel: {folders / 'two'}\nhd1k: ~/three\n")
    assert find("sintel", {}, paths) == folders / "two"
    assert find("hd1k", {}, paths) == folders / "three"
    assert find("hd1k", {"hd1k": "~/one"}, paths) == folders / "one"


def test_a_root_that_does_not_exist_is_an_error(folders, monkeypatch):
    with pytest.raises(UserError, match="nowhere.*sintel.*command line"):
        find("sintel", {"sintel": str(folders / "nowhere")}, None)
    monkeypatch.setenv("MASKFLOWNET_SINTEL", str(folders / "nowhere"))
    with pytest.raises(UserError, match="nowhere.*MASKFLOWNET_SINTEL"):
        find("sintel", {}, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("chair: one\n", "'chair'"),
        ("chairs: 3\n", "chairs"),
        ("chairs:\n", "chairs"),
        ("- chairs\n", "does not hold keys and values"),
        ("chairs: [one\n", "is not valid YAML"),
        ("chairs: one\nchairs: two\n", "chairs stands twice"),
        ("chairs: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        ("[1, 2]: one\n", "is not valid YAML|no data set"),
    ],
)
def test_a_wrong_file_is_named(folders, content, message):
    paths = folders / "paths.yaml"
    paths.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        find("chairs", {}, paths)
    assert str(paths) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(folders):
    with pytest.raises(UserError, match=r"absent\.yaml"):
        find("chairs", {}, folders / "absent.yaml")


def test_arguments():
    assert parse_roots(["chairs=/a", "sintel=b=c"]) == {"chairs": "/a", "sintel": "b=c"}
    for wrong in (["chairs"], ["chairs="], ["=/a"], ["chairs=/a", "chairs=/b"]):
        with pytest.raises(UserError):
            parse_roots(wrong)
    with pytest.raises(UserError, match="'chair' from the command line is no data set"):
        Roots(parse_roots(["chair=/somewhere"]))
