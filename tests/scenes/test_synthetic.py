"""reader/synthetic.py: the set as a data set, on disk and as a command."""

import json

import numpy as np
import pytest
from maskflownet.errors import DataError
from maskflownet.reader.chairs import Chairs
from maskflownet.reader.formats import read_mask
from maskflownet.scenes.options import SceneOptions
from maskflownet.scenes.synthetic import Synthetic, main, write_chairs

SIZE = (64, 96)


def test_samples():
    dataset = Synthetic(3, *SIZE, seed=5)
    assert len(dataset) == 3
    sample = dataset[2]
    assert sample.img1.shape == sample.img2.shape == (*SIZE, 3)
    assert sample.flow.shape == (*SIZE, 2)
    assert sample.flow.dtype == np.float32
    assert sample.mask is None
    assert dataset[-1].name == sample.name == "synthetic_5/00002"
    assert len(list(dataset)) == 3  # ends, as a sequence must
    longer = Synthetic(10, *SIZE, seed=5)[2]
    assert np.array_equal(longer.img2, sample.img2)
    assert np.array_equal(dataset.occlusion(2), dataset.scene(2).occlusion)


def test_options_and_arguments_reach_the_scenes():
    usual = Synthetic(1, *SIZE)[0]
    still = Synthetic(1, *SIZE, options=SceneOptions(motion_scale=0))[0]
    assert np.abs(usual.flow).max() > 0
    assert np.abs(still.flow).max() == 0
    with pytest.raises(DataError, match="empty"):
        Synthetic(0)
    with pytest.raises(ValueError, match="seed -1"):
        Synthetic(1, seed=-1)
    with pytest.raises(IndexError):
        Synthetic(3)[3]


def test_written_set_reads_as_chairs(tmp_path):
    dataset = Synthetic(5, *SIZE, seed=1)
    write_chairs(dataset, tmp_path / "set", validation_every=2)
    train, val = Chairs(tmp_path / "set", "train"), Chairs(tmp_path / "set", "val")
    assert [s.name for s in train] == ["00001", "00003", "00005"]
    assert [s.name for s in val] == ["00002", "00004"]
    for found, index in zip(val, (1, 3)):
        expected = dataset[index]
        assert np.array_equal(found.img1, expected.img1)
        assert np.array_equal(found.img2, expected.img2)
        assert np.array_equal(found.flow, expected.flow)
    occlusion = read_mask(tmp_path / "set" / "data" / "00004_occ.png")
    assert np.array_equal(occlusion, dataset.occlusion(3))
    assert 0 < occlusion.mean() < 255


def test_restart_makes_what_is_missing_and_keeps_the_rest(tmp_path):
    write_chairs(Synthetic(3, *SIZE), tmp_path)
    data = tmp_path / "data"
    before = {p.name: p.read_bytes() for p in data.iterdir()}
    (data / "00002_flow.flo").unlink()
    kept = (data / "00001_img1.ppm").stat().st_mtime_ns
    write_chairs(Synthetic(4, *SIZE), tmp_path)
    assert (data / "00001_img1.ppm").stat().st_mtime_ns == kept
    after = {p.name: p.read_bytes() for p in data.iterdir()}
    assert len(after) == 16
    assert {name: after[name] for name in before} == before
    assert (tmp_path / "FlyingChairs_train_val.txt").read_text().split() == ["1"] * 4


def test_a_folder_never_holds_two_sets(tmp_path):
    write_chairs(Synthetic(2, *SIZE), tmp_path)
    with pytest.raises(DataError, match="seed"):
        write_chairs(Synthetic(2, *SIZE, seed=1), tmp_path)
    with pytest.raises(DataError, match="size"):
        write_chairs(Synthetic(2, 64, 64), tmp_path)
    with pytest.raises(DataError, match="options"):
        write_chairs(Synthetic(2, *SIZE, options=SceneOptions(noise=0)), tmp_path)
    with pytest.raises(DataError, match="00002"):
        write_chairs(Synthetic(1, *SIZE), tmp_path)
    (tmp_path / "synthetic.json").write_text("[]")
    with pytest.raises(DataError, match="record"):
        write_chairs(Synthetic(2, *SIZE), tmp_path)
    (tmp_path / "synthetic.json").unlink()
    with pytest.raises(DataError, match=r"synthetic\.json"):
        write_chairs(Synthetic(2, *SIZE), tmp_path)


def test_command(tmp_path):
    folder = tmp_path / "set"
    command = [str(folder), "--count", "2", "--size", "64,96", "--validation-every", "2"]
    assert main([*command, "--seed", "7"]) == 0
    expected = Synthetic(2, 64, 96, seed=7)[1]
    assert np.array_equal(Chairs(folder, "val")[0].flow, expected.flow)
    assert json.loads((folder / "synthetic.json").read_text())["seed"] == 7


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--count", "0"], "empty"),
        (["--seed", "-1"], "seed"),
        (["--size", "4,4"], "4x4"),
        (["--textures", "absent"], "absent"),
        (["--validation-every", "-1"], "validation-every"),
    ],
)
def test_errors_are_one_sentence(tmp_path, capsys, arguments, word):
    assert main([str(tmp_path / "set"), *arguments]) == 2
    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_wrong_size_is_refused_by_the_parser(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path), "--size", "64x96"])
    assert end.value.code == 2
    assert "64x96" in capsys.readouterr().err
