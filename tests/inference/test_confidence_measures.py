"""Measures of a confidence against values worked out by hand, and in a validation."""

import csv
import json
import math

import numpy as np
import pytest
from maskflownet.engine.contract import ConfidentPrediction, Prediction, Sizing
from maskflownet.inference.confidence import (
    average_precision,
    describe_confidence,
    measure_confidence,
    sparsification_error,
)
from maskflownet.inference.metrics import means
from maskflownet.inference.validation import validate
from maskflownet.reader.kitti import Kitti
from maskflownet.reader.sintel import Sintel

from tests.known_engine import KnownEngine
from tests.trees import make_kitti, make_sintel


def test_average_precision_by_hand():
    score = np.array([0.1, 0.9, 0.8, 0.8])
    positive = np.array([False, True, True, False])
    # Above 0.9 precision 1 at recall 1/2; above 0.8, twice there, precision 2/3 at recall 1.
    assert average_precision(score, positive) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(positive.astype(float), positive) == 1
    # The wrong way round: 1/3 at recall 1/2, then 2/4 at recall 1.
    order = np.array([4, 2, 1, 3])
    assert average_precision(order, positive) == pytest.approx(0.5 * 1 / 3 + 0.5 * 2 / 4)


def test_average_precision_without_knowledge_is_the_share_of_the_positives():
    positive = np.arange(100).reshape(10, 10) % 4 == 0
    assert average_precision(np.full((10, 10), 0.3), positive) == 0.25
    assert math.isnan(average_precision(np.zeros(4), np.zeros(4, bool)))


def test_sparsification_error_by_hand():
    error = np.array([[2, 0, 4]])
    # Means of the remaining 1, 2, 3 pixels; the oracle's are 0, 1, 2, relative to 2.
    assert sparsification_error(-error, error) == 0
    assert sparsification_error(error, error) == pytest.approx((4 + 2 + 0) / 3 / 2)
    assert sparsification_error(np.zeros((1, 3)), error) == pytest.approx((2 + 1 + 0) / 3 / 2)
    # 0 and 2 px are equally confident: 1, 1, 2.
    assert sparsification_error(np.array([[5, 5, 1]]), error) == pytest.approx((1 + 0 + 0) / 3 / 2)
    assert sparsification_error(np.ones(3), np.zeros(3)) == 0
    assert math.isnan(sparsification_error(np.ones(0), np.zeros(0)))


@pytest.fixture
def case():
    """Four pixels in a row with errors 0, 1, 8 and 5 px, the last one without a label."""
    flow = np.zeros((1, 4, 2), np.float32)
    flow[0, :, 0] = 0, 1, 8, 5
    confidence = np.array([1, 0.6, 0.1, 0], np.float32).reshape(1, 4, 1)
    mask = np.array([1, 0.2, 0.9, 0.5], np.float32).reshape(1, 4, 1)
    valid = np.array([255, 255, 255, 0], np.uint8).reshape(1, 4, 1)
    return ConfidentPrediction(flow, mask, None, confidence), np.zeros((1, 4, 2), "f4"), valid


def test_the_measures_of_an_image(case):
    occlusion = np.array([0, 0, 255, 255], np.uint8).reshape(1, 4, 1)
    found = means(measure_confidence(*case, occlusion))
    assert found["consistent"] == pytest.approx(2 / 3)
    assert (found["epe_consistent"], found["epe_inconsistent"]) == (0.5, 8)
    assert found["ause_confidence"] == 0
    # In the mask's order the remaining means are 0, 4, 3 instead of 0, 0.5, 3.
    assert found["ause_mask"] == pytest.approx((0 + 3.5 + 0) / 3 / 3)
    assert found["occluded"] == pytest.approx(1 / 3)
    assert (found["ap_confidence"], found["ap_mask"]) == (1, 0.5)


def test_occlusion_is_what_it_is_known_from(case):
    visible = np.array([255, 255, 0, 0], np.uint8).reshape(1, 4, 1)
    assert means(measure_confidence(*case, noc=visible))["ap_confidence"] == 1
    assert "occluded" not in measure_confidence(*case)
    none = measure_confidence(*case, occlusion=np.zeros((1, 4, 1), np.uint8))
    assert none["occluded"] == (0, 3)
    assert none["ap_confidence"] == none["ap_mask"] == (0, 0)


class Masked(KnownEngine):
    """Half visible everywhere."""

    def predict(self, image_1, image_2, sizing=Sizing(), mask=True, warped=True):  # noqa: B008
        flow = super().predict(image_1, image_2, sizing).flow
        return Prediction(flow, np.full_like(flow[..., :1], 0.5) if mask else None, None)


def still_or_wrong(image_1, _):
    """20 px downwards in 8 columns, there and back, and no motion elsewhere."""
    flow = np.zeros((*image_1.shape[:2], 2))
    flow[:, 16:24, 1] = 20
    return flow


def test_a_validation_measures_it_in_one_batch_and_writes_it(tmp_path, capsys):
    sintel = Sintel(make_sintel(tmp_path / "sintel", {"ambush_2": 3}, {}), ("clean",), "all")
    kitti = Kitti(make_kitti(tmp_path / "kitti", {2012: 1, 2015: 3}, 0), 2015)
    engine = Masked(still_or_wrong)
    sets = {"sintel": sintel, "kitti.2015": kitti}
    plain = validate(engine, sets, batch=2)
    engine.calls.clear()
    totals = validate(engine, sets, Sizing(), 2, tmp_path / "val", "a", 7, confidence=True)
    assert engine.calls[0][0] == (4, 64, 128, 3)  # two pairs and their swaps
    assert len(engine.calls) == 4  # KITTI's differ in size
    for name, total in totals.items():
        assert {key: total[key] for key in plain[name]} == pytest.approx(plain[name], nan_ok=True)
        if name == "sintel":  # 40 px away after both ways, or out of the picture
            assert total["consistent"] == 1 - 8 / 128
        assert total["ap_mask"] == pytest.approx(total["occluded"])
        assert "ap_mask.pooled" not in total
        assert "consistent.pooled" in total
        assert f"average precision for occlusion {total['ap_confidence']:.3f}" in (describe_confidence(total))
    assert not any(name.startswith(("ap_", "ause", "consist")) for name in plain["sintel"])
    with open(tmp_path / "val" / "a_7.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ause = [float(row["ause_confidence"]) for row in rows if row["set"] == "sintel"]
    assert np.mean(ause) == pytest.approx(totals["sintel"]["ause_confidence"])
    content = json.loads((tmp_path / "val" / "a_7.json").read_text())
    assert content["sets"]["sintel"]["ap_mask"] == totals["sintel"]["ap_mask"]
    line = (tmp_path / "val" / "a.val.log").read_text()
    assert f"sintel:ause_confidence={totals['sintel']['ause_confidence']:.4f}" in line
