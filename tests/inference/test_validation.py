"""Validation on dummy data sets with a known flow, and with real networks."""

import csv
import json
import math
import re

import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import load_checkpoint
from maskflownet.engine.contract import Sizing
from maskflownet.errors import UserError
from maskflownet.inference.confidence import describe_confidence
from maskflownet.reader.dataset import View
from maskflownet.reader.kitti import Kitti
from maskflownet.reader.pairs import Pairs
from maskflownet.reader.sintel import Sintel

from tests.known_engine import KnownEngine, make, validated
from tests.trees import make_kitti, make_pairs, make_sintel


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


class Altered(View):
    """The samples of a data set with some of their fields replaced by `change(sample, index)`."""

    def __init__(self, dataset, count, change):
        super().__init__(dataset, range(count))
        self.change = change

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return sample._replace(**self.change(sample, index))


def test_a_known_offset_is_exactly_the_epe(sintel, kitti, pairs):
    sets = {"sintel": sintel, "kitti": kitti, "pairs": pairs, "maskless": Altered(pairs, 5, lambda *_: {"mask": None})}
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


def test_invalid_and_occluded_pixels_are_told_apart(sintel):
    def rule(*_):
        flow = np.full((64, 128, 2), 1e5)  # the upper third, which is invalid
        flow[21:32] = 8  # down to the middle, which is occluded
        flow[32:] = 0
        return flow

    totals = validated(KnownEngine(rule), {"s": sintel}).totals["s"]
    labels = np.stack([sintel[i].flow[0, 0] for i in range(len(sintel))])
    occluded = np.hypot(*(8 - labels).T)
    visible = np.hypot(*labels.T)
    assert totals["unmatched"] == pytest.approx(occluded.mean())
    assert totals["matched"] == pytest.approx(visible.mean())
    assert totals["pixels"] == len(sintel) * (64 - 21) * 128
    assert totals["epe"] == pytest.approx((11 * occluded + 32 * visible).mean() / 43)


def test_a_batch_mixes_no_sizes(kitti):
    engine = KnownEngine.of_labels(kitti)
    assert validated(engine, {"kitti.2015": kitti}, batch=4).totals["kitti.2015"]["epe"] == 0
    assert [shape for shape, _ in engine.calls] == [(1, 64 + i % 2, 128 + i % 3, 3) for i in range(7)]
    twice = View(kitti, [0, 0, 0, 1, 2])
    engine.calls.clear()
    assert validated(engine, {"kitti.2015": twice}, batch=2).totals["kitti.2015"]["images"] == 5
    assert [shape[0] for shape, _ in engine.calls] == [2, 1, 1, 1]


def test_fl_is_reported_per_image_and_pooled(kitti, tmp_path):
    wrong = kitti[0].img1

    def rule(image_1, _):
        return np.full((*image_1.shape[:2], 2), 500 if np.array_equal(image_1, wrong) else 0)

    def still(sample, index):
        mask = sample.mask.copy()
        mask[40 if index == 0 else 64 :] = 0  # few valid pixels in the first image
        return {"flow": np.zeros_like(sample.flow), "mask": mask}

    dataset = Altered(kitti, 2, still)
    counts = [int((dataset[i].mask > 0).sum()) for i in range(2)]
    assert counts[0] != counts[1]
    results = validated(KnownEngine(rule), {"kitti.2015": dataset})
    results.write(tmp_path, "a", 0)
    assert results.totals["kitti.2015"]["fl"] == 0.5
    assert results.totals["kitti.2015"]["fl.pooled"] == counts[0] / sum(counts)
    assert [float(row["fl"]) for row in read_rows(tmp_path / "a_0.csv")] == [1, 0]
    line = (tmp_path / "a.val.log").read_text()
    assert f"kitti.2015:fl=0.5000, kitti.2015:fl.pooled={counts[0] / sum(counts):.4f}" in line


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
    assert len(lines) == 3
    stamp = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "
    assert re.match(stamp + r"steps=2500, sintel\.training2\.clean:epe=2\.0000, ", lines[0])
    assert re.match(stamp + r"steps=5000, .*, kitti\.2015:fl_noc\.pooled=0\.0000$", lines[2])
    for part in lines[0].split(", ")[1:]:
        assert re.fullmatch(r"[\w.]+:[a-z_]+(\.pooled)?=\d+\.\d{4}", part)

    rows = read_rows(tmp_path / "8caNov12-1532_5000.csv")
    assert [row["set"] for row in rows] == ["sintel.training2.clean"] * 5 + ["kitti.2015"] * 7
    assert [row["name"] for row in rows] == [*(sintel[i].name for i in range(5)), *(kitti[i].name for i in range(7))]
    assert (rows[6]["height"], rows[6]["width"]) == ("65", "129")
    for row, dataset, i in ((rows[4], sintel, 4), (rows[6], kitti, 1)):
        assert int(row["pixels"]) == (dataset[i].mask > 0).sum()
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


def test_nothing_to_validate_on_is_an_error(kitti):
    engine = KnownEngine(None)
    for sets, options, message in [
        ({}, {"skipped": {"a": "no root", "b": "no root"}}, "nothing to validate on: a, b: no root$"),
        ({}, {}, "no set is given"),
        ({"kitti.2015": View(None, [])}, {}, "kitti.2015 has no pairs"),
        ({"kitti.2015": kitti}, {"batch": 0}, "at least one pair, not 0"),
    ]:
        with pytest.raises(UserError, match=message):
            validated(engine, sets, **options)


def test_a_pair_without_a_label_is_an_error(tmp_path):
    engine = KnownEngine(lambda image_1, _: np.zeros((*image_1.shape[:2], 2)))
    with pytest.raises(UserError, match="own has no label"):
        validated(engine, {"pairs": Pairs(make_pairs(tmp_path), "test")})


def test_the_watcher_sees_every_pair_with_its_mask(kitti, pairs):
    class Watcher:
        seen = []

        def add(self, *arguments):
            self.seen.append(arguments)

    engine = KnownEngine.of_labels(kitti, pairs, offset=(1, 0))
    results = validated(engine, {"k": kitti, "p": pairs}, watcher=Watcher(), batch=3)
    assert [(name, index) for name, index, *_ in Watcher.seen] == [("k", i) for i in range(7)] + [
        ("p", i) for i in range(5)
    ]
    for name, index, pair, measured in Watcher.seen:
        image = results.images[name][index]
        assert (image.name, image.measures) == (pair.sample.name, measured.measures)
        assert measured.prediction.flow.shape[:2] == measured.prediction.mask.shape[:2] == (image.height, image.width)
    assert set(engine.asked) == {(True, False)}


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
