"""Validation on dummy data sets with a known flow, and with real networks."""

import csv
import json
import math
import re

import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import load_checkpoint
from maskflownet.engine.contract import Sizing
from maskflownet.engine.mxnet.engine import MXNetEngine, contexts
from maskflownet.errors import DataError, UserError
from maskflownet.inference.validation import validate
from maskflownet.reader.dataset import Concat, View, first
from maskflownet.reader.kitti import Kitti
from maskflownet.reader.pairs import Pairs
from maskflownet.reader.sintel import Sintel
from maskflownet.settings.configs import load_network_config

from tests.known_engine import KnownEngine
from tests.trees import make_kitti, make_pairs, make_sintel


@pytest.fixture(scope="module")
def sintel(tmp_path_factory):
    root = make_sintel(tmp_path_factory.mktemp("sintel"), {"ambush_2": 4, "cave_4": 3}, {})
    return Sintel(root, ("clean",), "all")


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    return Kitti(make_kitti(tmp_path_factory.mktemp("kitti"), {2012: 1, 2015: 7}, 0), 2015)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pairs(tmp_path_factory.mktemp("pairs"), unlabelled=False), need_flow=True)


def mxnet_engine(checkpoint):
    engine = MXNetEngine(load_network_config("MaskFlownet_S.yaml"), contexts(""))
    engine.load(load_checkpoint(checkpoint))
    return engine


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


def test_lesson_14_a_known_offset_is_exactly_the_epe(sintel, kitti, pairs):
    sets = {"sintel": sintel, "kitti": kitti, "pairs": pairs, "maskless": Altered(pairs, 5, lambda *_: {"mask": None})}
    for name, dataset in sets.items():
        engine = KnownEngine.of_labels(dataset, offset=(3, -4))
        totals = validate(engine, {name: dataset}, batch=2)[name]
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

    totals = validate(KnownEngine(rule), {"s": sintel})["s"]
    labels = np.stack([sintel[i].flow[0, 0] for i in range(len(sintel))])
    occluded = np.hypot(*(8 - labels).T)
    visible = np.hypot(*labels.T)
    assert totals["unmatched"] == pytest.approx(occluded.mean())
    assert totals["matched"] == pytest.approx(visible.mean())
    assert totals["pixels"] == len(sintel) * (64 - 21) * 128
    assert totals["epe"] == pytest.approx((11 * occluded + 32 * visible).mean() / 43)


def test_a_batch_mixes_no_sizes(kitti):
    engine = KnownEngine.of_labels(kitti)
    assert validate(engine, {"kitti.2015": kitti}, batch=4)["kitti.2015"]["epe"] == 0
    assert [shape for shape, _ in engine.calls] == [(1, 64 + i % 2, 128 + i % 3, 3) for i in range(7)]
    twice = Concat([first(kitti, 1), first(kitti, 1), first(kitti, 3)])
    engine.calls.clear()
    assert validate(engine, {"kitti.2015": twice}, batch=2)["kitti.2015"]["images"] == 5
    assert [shape[0] for shape, _ in engine.calls] == [2, 1, 1, 1]


def test_lesson_27_fl_per_image_and_pooled(kitti, tmp_path):
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
    totals = validate(KnownEngine(rule), {"kitti.2015": dataset}, log_folder=tmp_path, run="a")
    assert totals["kitti.2015"]["fl"] == 0.5
    assert totals["kitti.2015"]["fl.pooled"] == counts[0] / sum(counts)
    assert [float(row["fl"]) for row in read_rows(tmp_path / "a_0.csv")] == [1, 0]
    line = (tmp_path / "a.val.log").read_text()
    assert f"kitti.2015:fl=0.5000, kitti.2015:fl.pooled={counts[0] / sum(counts):.4f}" in line


def test_the_log_the_csv_and_the_json(sintel, kitti, tmp_path, capsys):
    sets = {"sintel.training2.clean": sintel, "kitti.2015": kitti}
    skipped = {"chairs": "no root", "hd1k": "no root", "things": "no labels"}
    engine = KnownEngine.of_labels(sintel, kitti, offset=(0, 2))
    folder = tmp_path / "logs" / "val"
    for steps in (2500, 5000, 5000):
        sizing = Sizing((64, 192))
        totals = validate(engine, sets, sizing, 2, folder, run="8caNov12-1532", steps=steps, skipped=skipped)
    assert sorted(path.name for path in folder.iterdir()) == [
        "8caNov12-1532.val.log",
        *(f"8caNov12-1532_{n}.{suffix}" for n in (2500, 5000) for suffix in ("csv", "json")),
    ]
    lines = (folder / "8caNov12-1532.val.log").read_text().splitlines()
    assert len(lines) == 3
    stamp = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "
    assert re.match(stamp + r"steps=2500, sintel\.training2\.clean:epe=2\.0000, ", lines[0])
    assert re.match(stamp + r"steps=5000, .*, kitti\.2015:fl_noc\.pooled=0\.0000$", lines[2])
    for part in lines[0].split(", ")[1:]:
        assert re.fullmatch(r"[\w.]+:[a-z_]+(\.pooled)?=\d+\.\d{4}", part)

    rows = read_rows(folder / "8caNov12-1532_5000.csv")
    assert [row["set"] for row in rows] == ["sintel.training2.clean"] * 5 + ["kitti.2015"] * 7
    assert [row["name"] for row in rows] == [*(sintel[i].name for i in range(5)), *(kitti[i].name for i in range(7))]
    assert (rows[6]["height"], rows[6]["width"]) == ("65", "129")
    for row, dataset, i in ((rows[4], sintel, 4), (rows[6], kitti, 1)):
        assert int(row["pixels"]) == (dataset[i].mask > 0).sum()
    assert all(float(row["epe"]) == 2 and float(row["3px"]) == 1 for row in rows)
    assert rows[0]["epe_noc"] == rows[5]["matched"] == rows[0]["s40+"] == ""
    assert float(rows[0]["matched"]) == float(rows[5]["epe_noc"]) == 2

    content = json.loads((folder / "8caNov12-1532_5000.json").read_text(), parse_constant=pytest.fail)
    assert content["skipped"] == skipped
    assert (content["steps"], content["resize"], content["pad"]) == (5000, [64, 192], False)
    assert list(content["sets"]) == ["sintel.training2.clean", "kitti.2015"]
    for name, summary in content["sets"].items():
        assert summary["s40+"] is None
        for key, value in summary.items():
            assert value == totals[name][key] or (value is None and math.isnan(totals[name][key]))
    assert {sizing for _, sizing in engine.calls} == {Sizing((64, 192))}
    told = capsys.readouterr().err
    assert told.count("skipped chairs, hd1k: no root\n") == 3
    assert told.count("skipped things: no labels\n") == 3


def test_a_union_is_measured_from_its_parts(sintel, kitti, capsys):
    engine = KnownEngine(lambda image_1, _: np.zeros((*image_1.shape[:2], 2)))
    parts = {"a": first(sintel, 1), "b": sintel}
    unions = {"all": ["a", "b"], "none": ["a", "c"]}
    totals = validate(engine, parts, unions=unions, skipped={"c": "no root"})
    assert list(totals) == ["a", "b", "all"]
    assert totals["all"]["images"] == 6
    assert totals["all"]["epe"] == pytest.approx((totals["a"]["epe"] + 5 * totals["b"]["epe"]) / 6)
    assert len(engine.calls) == 6
    with pytest.raises(ValueError, match="not among"):
        validate(engine, parts, unions={"all": ["a", "sintle"]})
    assert "skipped c, none: no root" in capsys.readouterr().err


def test_nothing_to_validate_on_is_an_error(kitti, tmp_path):
    engine = KnownEngine(None)
    skipped = {"chairs": "no root", "kitti.2015": "no root"}
    with pytest.raises(UserError, match="nothing to validate on: chairs, kitti.2015: no root$"):
        validate(engine, {}, log_folder=tmp_path, skipped=skipped)
    with pytest.raises(UserError, match="no set is given"):
        validate(engine, {}, log_folder=tmp_path)
    with pytest.raises(UserError, match="kitti.2015 has no pairs"):
        validate(engine, {"kitti.2015": View(None, [])}, log_folder=tmp_path)
    with pytest.raises(UserError, match="at least one pair, not 0"):
        validate(engine, {"kitti.2015": kitti}, batch=0, log_folder=tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_pair_without_a_label_is_an_error(tmp_path):
    dataset = Pairs(make_pairs(tmp_path))
    engine = KnownEngine(lambda image_1, _: np.zeros((*image_1.shape[:2], 2)))
    with pytest.raises(DataError, match="own has no label"):
        validate(engine, {"pairs": dataset})


def test_a_failure_leaves_earlier_results_alone(sintel, tmp_path):
    validate(KnownEngine.of_labels(sintel), {"s": sintel}, log_folder=tmp_path, run="a")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyError):
        validate(KnownEngine.of_labels(first(sintel, 2)), {"s": sintel}, log_folder=tmp_path, run="a")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_mxnet_gives_the_same_in_batches_and_with_workers(pairs, random_checkpoints):
    engine = mxnet_engine(random_checkpoints["MaskFlownet_S"])
    one = validate(engine, {"pairs": pairs})["pairs"]
    many = validate(engine, {"pairs": pairs}, batch=3, workers=2)["pairs"]
    assert one["images"] == many["images"] == 5
    for key, value in one.items():
        assert many[key] == pytest.approx(value, abs=1e-4, nan_ok=True)
    flows = np.stack(
        [engine.predict(s.img1[None], s.img2[None]).flow[0] - s.flow for s in map(pairs.__getitem__, range(5))]
    )
    assert one["epe.pooled"] == pytest.approx(np.linalg.norm(flows, axis=-1).mean(), abs=1e-4)


@pytest.mark.parametrize(
    ("folder", "sizing", "known"),
    # RubberWhale's EPE is known from the code that the checkpoint was made with.
    [("middlebury/RubberWhale", Sizing(), 0.97), ("kitti", Sizing((128, 448)), None)],
)
def test_the_prototype_on_real_pairs(shared, folder, sizing, known):
    dataset = Pairs(shared / "data" / "pairs" / folder, need_flow=True)
    engine = mxnet_engine(shared / "weights" / "prototype_S.params")
    totals = validate(engine, {"pairs": dataset}, sizing)["pairs"]
    sample = dataset[0]
    flow = engine.predict(sample.img1[None], sample.img2[None], sizing).flow[0]
    error = np.linalg.norm((flow - sample.flow).astype(np.float64), axis=2)
    valid = sample.mask[..., 0] == 255
    assert 0 < valid.sum() < valid.size
    assert totals["pixels"] == valid.sum()
    assert totals["epe"] == pytest.approx(error[valid].mean(), abs=1e-4)
    if known is not None:
        assert totals["epe"] == pytest.approx(known, abs=0.01)
    else:
        noc = dataset.noc(0)[..., 0] == 255
        assert totals["epe_noc"] == pytest.approx(error[noc].mean(), abs=1e-4)
