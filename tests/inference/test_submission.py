"""Submissions made of dummy test sets."""

import zipfile

import cv2
import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import load_checkpoint
from maskflownet.engine.contract import Sizing
from maskflownet.errors import UserError
from maskflownet.inference.predictor import Predictor
from maskflownet.inference.submission import write_submissions
from maskflownet.reader.formats import read_flo, read_kitti_png
from maskflownet.settings.datasets import Roots

from tests.known_engine import KnownEngine, make
from tests.trees import make_kitti, make_sintel, picture

SIZE = (64, 128)


def corner(image_1, image_2):
    """A flow that tells which pictures it was made from: their first red values."""
    return np.full((*image_1.shape[:2], 2), (image_1[0, 0, 0], image_2[0, 0, 0]))


def expected(seed_1, seed_2, size=SIZE):
    return [picture(seed, size)[0, 0, 0] for seed in (seed_1, seed_2)]


@pytest.fixture
def sintel(tmp_path):
    return make_sintel(tmp_path / "sintel", {"alley_1": 2}, {"ambush_1": 3, "wall": 2})


@pytest.fixture
def kitti(tmp_path):
    return make_kitti(tmp_path / "kitti", {2012: 3, 2015: 3}, test=2)


def submitted(engine, flows, sizing=None, batch=1, name="8ca", **roots):
    """Predict test images; `roots` are those of the benchmarks."""
    return write_submissions(Predictor(engine, sizing or Sizing(), batch), Roots(roots), name, flows)


@pytest.fixture(autouse=True)
def no_other_roots(monkeypatch):
    for name in ("SINTEL", "KITTI"):
        monkeypatch.delenv(f"MASKFLOWNET_{name}", raising=False)


def files_of(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


SINTEL_FILES = [
    f"{render}/{name}.flo"
    for render in ("clean", "final")
    for name in ("ambush_1/frame_0001", "ambush_1/frame_0002", "wall/frame_0001")
]


def test_sintel_has_clean_and_final(sintel, tmp_path):
    flows = tmp_path / "flows"
    engine = KnownEngine(corner)
    (done,) = submitted(engine, flows, batch=2, name="8ca_5000", sintel=sintel)
    assert done.folder == flows / "8ca_5000_sintel"
    assert files_of(done.folder) == SINTEL_FILES
    for p, render in enumerate(("clean", "final")):
        flow, mask = read_flo(done.folder / render / "ambush_1" / "frame_0002.flo")
        assert flow.shape == (*SIZE, 2)
        assert (mask == 255).all()
        np.testing.assert_array_equal(flow[0, 0], expected(51 % 20 + 100 * p + 1, 53 % 20 + 100 * p))
    assert done.archive == flows / "8ca_5000_sintel.zip"
    with zipfile.ZipFile(done.archive) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == SINTEL_FILES
        for name in SINTEL_FILES:
            assert archive.read(name) == (done.folder / name).read_bytes()
    assert done.count == 6


def test_kitti_has_its_test_images_zipped_as_each_server_wants_them(kitti, tmp_path):
    done = submitted(KnownEngine(corner), tmp_path, batch=2, kitti=kitti)
    assert [submission.name for submission in done] == ["kitti.2012", "kitti.2015"]
    assert files_of(tmp_path / "8ca_kitti") == [f"{year}/{k:06d}_10.png" for year in (2012, 2015) for k in range(2)]
    for submission, year, top in zip(done, (2012, 2015), ("", "flow/")):
        assert submission.folder == tmp_path / "8ca_kitti" / str(year)
        assert submission.archive == tmp_path / f"8ca_kitti_{year}.zip"
        with zipfile.ZipFile(submission.archive) as archive:
            assert archive.namelist() == [f"{top}{k:06d}_10.png" for k in range(2)]
            for k in range(2):
                file = submission.folder / f"{k:06d}_10.png"
                assert archive.read(f"{top}{file.name}") == file.read_bytes()
                seed = k + 200 + 400 * (year == 2015)  # of the pictures in testing/
                flow, _ = read_kitti_png(file)
                np.testing.assert_array_equal(flow[0, 0], expected(seed, seed + 100, flow.shape[:2]))


def test_sizes_are_kept_and_values_rounded_and_clipped(kitti, tmp_path):
    def rule(image_1, _):
        flow = np.zeros((*image_1.shape[:2], 2))
        flow[0, 0] = 600, -600
        flow[0, 1] = 1.01, -1.01  # 64.64 steps of 1/64 px
        return flow

    done = submitted(KnownEngine(rule), tmp_path, kitti=kitti)
    for submission in done:
        for k in range(2):
            file = submission.folder / f"{k:06d}_10.png"
            stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)  # (H, W, 3), (valid, v, u)
            assert stored.dtype == np.uint16
            assert stored.shape == (64 + k % 2, 128 + k % 3, 3)
            assert (stored[..., 0] == 1).all()
            assert stored[0, 0].tolist() == [1, 0, 65535]
            assert stored[0, 1].tolist() == [1, 32768 - 65, 32768 + 65]
            assert (stored[1:, :, 1:] == 32768).all()


@pytest.mark.parametrize("given", [Sizing(), Sizing((64, 192)), Sizing(pad=True)])
def test_default_sizes_and_what_overrides_them(sintel, kitti, tmp_path, given):
    engine = KnownEngine(corner)
    submitted(engine, tmp_path, given, sintel=sintel, kitti=kitti)
    default = [Sizing((448, 1024))] * 6 + [Sizing((512, 1152))] * 4
    assert [sizing for _, sizing in engine.calls] == (default if given == Sizing() else [given] * 10)


def test_a_restart_overwrites_cleanly(sintel, tmp_path):
    calls = []

    def breaks_off(image_1, image_2):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return corner(image_1, image_2) + 1

    with pytest.raises(KeyboardInterrupt):
        submitted(KnownEngine(breaks_off), tmp_path / "flows", sintel=sintel)
    assert files_of(tmp_path / "flows") == [f"8ca_sintel/{name}" for name in SINTEL_FILES[:3]]
    stale = tmp_path / "flows" / "8ca_sintel" / "clean" / "other" / "frame_0001.flo"
    stale.parent.mkdir()
    stale.write_bytes(b"of another tree")
    for _ in range(2):
        (done,) = submitted(KnownEngine(corner), tmp_path / "flows", sintel=sintel)
    flow, _ = read_flo(done.folder / SINTEL_FILES[0])
    np.testing.assert_array_equal(flow[0, 0], expected(51 % 20, 52 % 20))
    with zipfile.ZipFile(done.archive) as archive:
        assert archive.namelist() == SINTEL_FILES
    assert sorted(p.name for p in (tmp_path / "flows").iterdir()) == ["8ca_sintel", "8ca_sintel.zip"]


def test_what_is_missing_is_named(kitti, tmp_path, capsys):
    (done,) = submitted(KnownEngine(corner), tmp_path / "flows", kitti=kitti / "2015")
    assert done.name == "kitti.2015"
    said = capsys.readouterr().err
    assert "holds no KITTI 2012" in said and "skipped: " in said and "sintel" in said
    with pytest.raises(UserError, match="there is nothing to predict: "):
        submitted(KnownEngine(corner), tmp_path)
    for name in ("sintel", "kitti"):
        with pytest.raises(UserError, match=str(tmp_path)):
            submitted(KnownEngine(corner), tmp_path, **{name: tmp_path})


def test_values_that_are_no_numbers_are_an_error(sintel, tmp_path):
    engine = KnownEngine(lambda *images: corner(*images) * np.nan)
    with pytest.raises(UserError, match="clean/ambush_1/frame_0001.flo"):
        submitted(engine, tmp_path / "flows", sintel=sintel)
    assert not files_of(tmp_path / "flows")


def test_mxnet_predicts_both_benchmarks(sintel, kitti, tmp_path, random_checkpoints):
    engine = make("mxnet", load_checkpoint(random_checkpoints["MaskFlownet_S"]))
    sizing = Sizing((64, 128))
    done = submitted(engine, tmp_path / "flows", sizing, batch=2, sintel=sintel, kitti=kitti)
    assert [submission.count for submission in done] == [6, 2, 2]
    image_1, image_2 = (
        cv2.imread(str(kitti / f"2012/testing/colored_0/000001_{n}.png"))[None, ..., ::-1] for n in (10, 11)
    )
    flow = engine.predict(image_1, image_2, sizing).flow[0]
    written, _ = read_kitti_png(done[1].folder / "000001_10.png")
    np.testing.assert_allclose(written, flow, atol=1 / 128 + 1e-4)
    assert flow.std() > 0
