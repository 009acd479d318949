"""Whole data sets, dummies: measured with a known flow and real networks, and predicted for the benchmarks' servers."""

import csv
import json
import math
import re
import shutil
import zipfile

import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import load_checkpoint
from maskflownet.engine.contract import Sizing
from maskflownet.errors import UserError
from maskflownet.inference.confidence import describe_confidence
from maskflownet.inference.predictor import Predictor
from maskflownet.inference.validation import write_submissions
from maskflownet.reader.dataset import View
from maskflownet.reader.films import Sintel, Spring
from maskflownet.reader.formats import read_flo, read_flow, read_kitti_png
from maskflownet.reader.kitti import Kitti
from maskflownet.reader.pairs import Pairs
from maskflownet.settings.datasets import Roots

from tests.known_engine import KnownEngine, make, validated
from tests.report_sets import MemorySet
from tests.trees import make_kitti, make_pairs, make_sintel, make_spring, picture


@pytest.fixture(scope="module")
def sintel(tmp_path_factory):
    root = make_sintel(tmp_path_factory.mktemp("sintel"), {"ambush_2": 4, "cave_4": 3}, {})
    return Sintel(root, "all", ("clean",))


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    return Kitti(make_kitti(tmp_path_factory.mktemp("kitti"), {2012: 1, 2015: 7}, 0), "all", (2015,))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pairs(tmp_path_factory.mktemp("pairs"), unlabelled=False))


def read_rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_known_offset_is_exactly_the_epe(sintel, kitti, pairs):
    sets = {"sintel": sintel, "kitti": kitti, "pairs": pairs, "maskless": MemorySet(range(5))}
    for name, dataset in sets.items():
        totals = validated(KnownEngine.of_labels(dataset, offset=(3, -4)), {name: dataset}, batch=2).totals[name]
        assert totals["images"] == len(dataset)
        assert totals["epe"] == totals["epe.pooled"] == 5
        if name == "kitti":
            assert totals["epe_noc"] == totals["epe_noc.pooled"] == 5
            assert totals["fl_noc"] == totals["fl_noc.pooled"] == 1
            assert "matched" not in totals
        if name == "sintel":
            assert totals["matched"] == totals["unmatched"] == 5
            assert "epe_noc" not in totals


def test_spring_counts_the_best_of_four_values_and_outliers_of_1_px(tmp_path):
    """Values lie 0, (1, 0) and (0, 1) px from the first; half of the picture is predicted 3 px beside the second."""
    dataset = Spring(make_spring(tmp_path, frames=2), "all", ("FW_left",))
    exact = KnownEngine.of_labels(dataset, offset=(1, 0.25)).rule

    def rule(image_1, image_2):
        flow = exact(image_1, image_2)
        flow[:, ::2, 0] += 3
        return flow

    results = validated(KnownEngine(rule), {"spring.FW_left.all": dataset})
    total = results.totals["spring.FW_left.all"]
    assert total["epe"] == pytest.approx((np.hypot(3, 0.25) + 0.25) / 2)
    assert (total["1px_outliers"], total["1px_outliers.pooled"], total["1px"]) == (0.5, 0.5, 0.5)
    assert total["pixels"] == 2 * 43 * 128
    results.write(tmp_path, "a", 0)
    assert "spring.FW_left.all:1px_outliers=0.5000" in (tmp_path / "a.val.log").read_text()


def test_a_set_without_any_true_value_is_told(monkeypatch):
    dataset = MemorySet([1.0])
    unknown = dataset[0]._replace(mask=np.zeros((*dataset.size, 1), np.uint8))
    monkeypatch.setattr(MemorySet, "__getitem__", lambda self, index: unknown)
    with pytest.warns(UserWarning, match="bare: no label has a pixel with a true value"):
        total = validated(KnownEngine(corner), {"bare": dataset}).totals["bare"]
    assert total["pixels"] == 0 and math.isnan(total["epe"])


def test_the_log_the_csv_and_the_json(sintel, kitti, tmp_path, capsys):
    sets = {"sintel.training2.clean": sintel, "kitti.2015": kitti}
    skipped = {"chairs": "no root", "hd1k": "no root", "things": "no labels"}
    engine = KnownEngine.of_labels(sintel, kitti, offset=(0, 2))
    results = validated(engine, sets, skipped=skipped, sizing=Sizing((64, 192)), batch=2)
    for steps in (2500, 5000, 5000):
        results.write(tmp_path, "8caNov12-1532", steps)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "8caNov12-1532.val.log",
        *(f"8caNov12-1532_{n}.{suffix}" for n in (2500, 5000) for suffix in ("csv", "json")),
    ]
    lines = (tmp_path / "8caNov12-1532.val.log").read_text().splitlines()
    stamp = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "
    assert re.match(stamp + r"steps=2500, sintel\.training2\.clean:epe=2\.0000, ", lines[0])
    assert re.match(stamp + r"steps=5000, .*, kitti\.2015:fl_noc\.pooled=0\.0000$", lines[2]) and len(lines) == 3
    for part in lines[0].split(", ")[1:]:
        assert re.fullmatch(r"[\w.]+:[a-z_]+(\.pooled)?=\d+\.\d{4}", part)

    rows = read_rows(tmp_path / "8caNov12-1532_5000.csv")
    assert [row["set"] for row in rows] == ["sintel.training2.clean"] * 5 + ["kitti.2015"] * 7
    assert [row["name"] for row in rows] == [*(sintel[i].name for i in range(5)), *(kitti[i].name for i in range(7))]
    assert (rows[6]["height"], rows[6]["width"]) == ("65", "129")
    assert [int(rows[i]["pixels"]) for i in (4, 6)] == [(s.mask > 0).sum() for s in (sintel[4], kitti[1])]
    assert all(float(row["epe"]) == 2 and float(row["3px"]) == 1 for row in rows)
    assert rows[0]["epe_noc"] == rows[5]["matched"] == rows[0]["s40+"] == ""
    assert float(rows[0]["matched"]) == float(rows[5]["epe_noc"]) == 2

    content = json.loads((tmp_path / "8caNov12-1532_5000.json").read_text(), parse_constant=pytest.fail)
    assert content["skipped"] == skipped
    assert (content["steps"], content["resize"], content["pad"]) == (5000, [64, 192], False)
    assert list(content["sets"]) == ["sintel.training2.clean", "kitti.2015"]
    for name, total in content["sets"].items():
        assert total["s40+"] is None
        for key, value in total.items():
            expected = results.totals[name][key]
            assert value == expected or (value is None and math.isnan(expected))
    assert {sizing for _, sizing in engine.calls} == {Sizing((64, 192))}
    assert capsys.readouterr().err == "skipped chairs, hd1k: no root\nskipped things: no labels\n"


def test_a_union_is_measured_from_its_parts(sintel, capsys):
    engine = KnownEngine(lambda image_1, _: np.zeros((*image_1.shape[:2], 2)))
    parts = {"a": View(sintel, range(1)), "b": sintel}
    results = validated(engine, parts, unions={"all": ["a", "b"], "none": ["a", "c"]}, skipped={"c": "no root"})
    totals = results.totals
    assert list(totals) == ["a", "b", "all"]
    assert totals["all"]["images"] == 6
    assert totals["all"]["epe"] == pytest.approx((totals["a"]["epe"] + 5 * totals["b"]["epe"]) / 6)
    assert len(engine.calls) == 6
    assert results.about["skipped"] == {"c": "no root", "none": "no root"}
    assert "skipped c, none: no root" in capsys.readouterr().err


def test_nothing_to_validate_on_is_an_error(kitti, tmp_path):
    engine, unlabelled = KnownEngine(corner), Pairs(make_pairs(tmp_path), "test")
    for sets, options, message in [
        ({}, {"skipped": {"a": "no root", "b": "no root"}}, "nothing to validate on: a, b: no root$"),
        ({}, {}, "no set is given"),
        ({"kitti.2015": kitti}, {"batch": 0}, "at least one pair, not 0"),
        ({"pairs": unlabelled}, {}, "own has no label"),
    ]:
        with pytest.raises(UserError, match=message):
            validated(engine, sets, **options)


def still_or_wrong(image_1, _):
    """20 px downwards in 8 columns, there and back, and no motion elsewhere."""
    flow = np.zeros((*image_1.shape[:2], 2))
    flow[:, 16:24, 1] = 20
    return flow


def test_confidence_is_measured_in_one_batch_and_written(sintel, kitti, tmp_path):
    engine = KnownEngine(still_or_wrong)
    sets = {"sintel": View(sintel, range(2)), "kitti.2015": View(kitti, range(3))}
    plain = validated(engine, sets, batch=2).totals
    engine.calls.clear()
    results = validated(engine, sets, batch=2, confidence=True)
    results.write(tmp_path, "a", 7)
    assert engine.calls[0][0] == (4, 64, 128, 3)  # two pairs and their swaps
    assert len(engine.calls) == 4  # KITTI's differ in size
    for name, total in results.totals.items():
        assert {key: total[key] for key in plain[name]} == pytest.approx(plain[name], nan_ok=True)
        assert total["ap_mask"] == pytest.approx(total["occluded"])
        assert total["ap_mask.images"] == total["images"]
        assert "ap_mask.pooled" not in total and "consistent.pooled" in total
        described = describe_confidence(total)
        assert f"average precision for occlusion {total['ap_confidence']:.3f}" in described
        assert f"over {total['images']} images" in described
    total = results.totals["sintel"]
    assert total["consistent"] == 1 - 8 / 128  # 40 px away after both ways, or out of the picture
    assert not any(name.startswith(("ap_", "ause", "consist")) for name in plain["sintel"])
    ause = [float(row["ause_confidence"]) for row in read_rows(tmp_path / "a_7.csv") if row["set"] == "sintel"]
    assert np.mean(ause) == pytest.approx(total["ause_confidence"])
    assert json.loads((tmp_path / "a_7.json").read_text())["sets"]["sintel"]["ap_mask"] == total["ap_mask"]
    assert f"sintel:ause_confidence={total['ause_confidence']:.4f}" in (tmp_path / "a.val.log").read_text()


def test_mxnet_gives_the_same_in_batches_and_with_workers(pairs, random_checkpoints):
    engine = make("mxnet", load_checkpoint(random_checkpoints["MaskFlownet_S"]))
    one = validated(engine, {"pairs": pairs}).totals["pairs"]
    many = validated(engine, {"pairs": pairs}, batch=3, workers=2).totals["pairs"]
    assert one["images"] == many["images"] == 5
    assert many == pytest.approx(one, abs=1e-4, nan_ok=True)
    flows = [engine.predict(s.img1[None], s.img2[None]).flow[0] - s.flow for s in map(pairs.__getitem__, range(5))]
    assert one["epe.pooled"] == pytest.approx(np.linalg.norm(flows, axis=-1).mean(), abs=1e-4)


SIZE = (64, 128)


def corner(image_1, image_2):
    """A flow that tells which pictures it was made from: their first red values."""
    return np.full((*image_1.shape[:2], 2), (image_1[0, 0, 0], image_2[0, 0, 0]))


def expected(seed_1, seed_2, size=SIZE):
    return [picture(seed, size)[0, 0, 0] for seed in (seed_1, seed_2)]


@pytest.fixture
def sintel_root(tmp_path):
    return make_sintel(tmp_path / "sintel", {"alley_1": 2}, {"ambush_1": 3, "wall": 2})


@pytest.fixture
def kitti_root(tmp_path):
    return make_kitti(tmp_path / "kitti", {2012: 3, 2015: 3}, test=2)


def submitted(engine, flows, sizing=None, batch=1, name="8ca", **roots):
    """Predict test images; `roots` are those of the benchmarks."""
    return write_submissions(Predictor(engine, sizing or Sizing(), batch), Roots(roots), name, flows)


def files_of(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


SINTEL_FILES = [
    f"{render}/{name}.flo"
    for render in ("clean", "final")
    for name in ("ambush_1/frame_0001", "ambush_1/frame_0002", "wall/frame_0001")
]


def test_sintel_has_clean_and_final(sintel_root, tmp_path):
    flows = tmp_path / "flows"
    engine = KnownEngine(corner)
    (done,) = submitted(engine, flows, batch=2, name="8ca_5000", sintel=sintel_root)
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


def test_kitti_has_its_test_images_zipped_as_each_server_wants_them(kitti_root, tmp_path):
    done = submitted(KnownEngine(corner), tmp_path, batch=2, kitti=kitti_root)
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
                assert flow.shape == (64 + k % 2, 128 + k % 3, 2)
                np.testing.assert_array_equal(flow[0, 0], expected(seed, seed + 100, flow.shape[:2]))


def test_spring_has_both_directions_of_the_cameras_that_are_there(tmp_path, capsys):
    root = make_spring(tmp_path / "spring")
    shutil.rmtree(root / "test" / "0003" / "frame_right")
    engine = KnownEngine(corner)
    (done,) = submitted(engine, tmp_path, spring=root)
    files = [f"0003/flow_{v}_left/flow_{v}_left_{n:04d}.flo5" for v, n in (("FW", 1), ("FW", 2), ("BW", 2), ("BW", 3))]
    with zipfile.ZipFile(done.archive) as archive:
        assert archive.namelist() == [f"test/{name}" for name in files]
    for name, seeds in zip(files, ((31, 32), (32, 33), (32, 31), (33, 32))):
        flow, mask = read_flow(done.folder / name)
        np.testing.assert_array_equal(flow, np.broadcast_to(np.float32(expected(*seeds)), (*SIZE, 2)))
        assert (mask == 255).all()
    assert engine.calls[0][1] == Sizing((1088, 1920))
    assert "test holds no frame_right" in capsys.readouterr().err
    shutil.rmtree(root / "test")
    with pytest.raises(UserError, match="there is nothing to predict"):
        submitted(engine, tmp_path, spring=root)


@pytest.mark.parametrize("given", [Sizing(), Sizing((64, 192)), Sizing(pad=True)])
def test_default_sizes_and_what_overrides_them(sintel_root, kitti_root, tmp_path, given):
    engine = KnownEngine(corner)
    submitted(engine, tmp_path, given, sintel=sintel_root, kitti=kitti_root)
    default = [Sizing((448, 1024))] * 6 + [Sizing((512, 1152))] * 4
    assert [sizing for _, sizing in engine.calls] == (default if given == Sizing() else [given] * 10)


def test_a_restart_overwrites_cleanly(sintel_root, tmp_path):
    calls = []

    def breaks_off(image_1, image_2):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return corner(image_1, image_2) + 1

    with pytest.raises(KeyboardInterrupt):
        submitted(KnownEngine(breaks_off), tmp_path / "flows", sintel=sintel_root)
    assert files_of(tmp_path / "flows") == [f"8ca_sintel/{name}" for name in SINTEL_FILES[:3]]
    stale = tmp_path / "flows" / "8ca_sintel" / "clean" / "other" / "frame_0001.flo"
    stale.parent.mkdir()
    stale.write_bytes(b"of another tree")
    for _ in range(2):
        (done,) = submitted(KnownEngine(corner), tmp_path / "flows", sintel=sintel_root)
    flow, _ = read_flo(done.folder / SINTEL_FILES[0])
    np.testing.assert_array_equal(flow[0, 0], expected(51 % 20, 52 % 20))
    with zipfile.ZipFile(done.archive) as archive:
        assert archive.namelist() == SINTEL_FILES
    assert sorted(p.name for p in (tmp_path / "flows").iterdir()) == ["8ca_sintel", "8ca_sintel.zip"]


def test_what_is_missing_is_named(kitti_root, tmp_path, capsys):
    (done,) = submitted(KnownEngine(corner), tmp_path / "flows", kitti=kitti_root / "2015")
    assert done.name == "kitti.2015"
    said = capsys.readouterr().err
    assert "holds no KITTI 2012" in said and "skipped: " in said and "sintel" in said
    with pytest.raises(UserError, match="there is nothing to predict: "):
        submitted(KnownEngine(corner), tmp_path)
    for name in ("sintel", "kitti"):
        with pytest.raises(UserError, match=str(tmp_path)):
            submitted(KnownEngine(corner), tmp_path, **{name: tmp_path})
    with pytest.raises(UserError, match="no/where, the root of sintel"):
        submitted(KnownEngine(corner), tmp_path, sintel="no/where", kitti=kitti_root)


def test_values_that_are_no_numbers_are_an_error(sintel_root, tmp_path):
    engine = KnownEngine(lambda *images: corner(*images) * np.nan)
    with pytest.raises(UserError, match="clean/ambush_1/frame_0001.flo"):
        submitted(engine, tmp_path / "flows", sintel=sintel_root)
    assert not files_of(tmp_path / "flows")
