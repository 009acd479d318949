"""From files to files: what several outputs and a whole sequence need."""

import numpy as np
import pytest
from maskflownet.engine.contract import Prediction
from maskflownet.errors import UserError
from maskflownet.inference.outputs import check_outputs, predict_files
from maskflownet.inference.predictor import Predictor
from maskflownet.inference.sources import Folder
from maskflownet.reader.formats import read_flow
from maskflownet.reader.pictures import read_image, write_image

from tests.known_engine import KnownEngine

SIZE = (40, 50)


def speed_of(image_1, image_2):
    """Flow (u, 0): as many px as the first image is bright, but one wild pixel."""
    flow = np.zeros((*image_1.shape[:2], 2), np.float32)
    flow[..., 0] = image_1[0, 0, 0]
    flow[0, 0] = 1000
    return flow


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "frames").mkdir()
    for i, brightness in enumerate((10, 20, 40, 80)):
        write_image(tmp_path / f"frames/{i}.png", np.full((*SIZE, 3), brightness, np.uint8))
    return Folder(tmp_path / "frames")


def test_one_scale_for_all_frames_which_one_wild_pixel_does_not_set(folder, tmp_path):
    outputs = check_outputs(folder, tmp_path / "flow_%d.png", also=tmp_path / "flow_%d.flo")
    done = predict_files(Predictor(KnownEngine(speed_of)), folder, outputs)
    assert done.pairs == 3
    assert done.max_flow == pytest.approx(40)
    assert done.largest == pytest.approx(np.hypot(1000, 1000))
    whiteness = [read_image(tmp_path / f"flow_{i}.png")[20, 20, 1] for i in (1, 2, 3)]
    assert whiteness[0] > whiteness[1] > whiteness[2]
    assert read_flow(tmp_path / "flow_3.flo")[0][20, 20, 0] == 40


def test_a_given_scale_holds(folder, tmp_path):
    outputs = check_outputs(folder, tmp_path / "flow_%d.png")
    done = predict_files(Predictor(KnownEngine(speed_of)), folder, outputs, max_flow=7)
    assert done.max_flow == 7


def test_only_what_is_written_is_computed(folder, tmp_path):
    asked = []

    class Asking(KnownEngine):
        def predict(self, image_1, image_2, sizing, mask=True, warped=True):
            asked.append((mask, warped))
            flow = super().predict(image_1, image_2, sizing).flow
            return Prediction(flow, flow[..., :1] * 0 if mask else None, None)

    outputs = check_outputs(folder, tmp_path / "f_%d.flo", mask=tmp_path / "m_%d.png")
    predict_files(Predictor(Asking(speed_of)), folder, outputs)
    assert asked == [(True, False)] * 3


def test_names_are_checked_together(folder, tmp_path):
    with pytest.raises(UserError, match="named twice"):
        check_outputs(folder, tmp_path / "x.mp4", mask=tmp_path / "x.mp4")
    folder.paths.append(tmp_path / "y.mp4")
    with pytest.raises(UserError, match="one of the inputs"):
        check_outputs(folder, tmp_path / "y.mp4")


def test_numbered_outputs_do_not_overwrite_the_frames(folder, tmp_path):
    for i in (1, 2, 3):
        write_image(tmp_path / f"frames/frame_{i}.png", np.full((*SIZE, 3), i, np.uint8))
    source = Folder(tmp_path / "frames")
    with pytest.raises(UserError, match="one of the inputs"):
        check_outputs(source, tmp_path / "frames/frame_%d.png")
    with pytest.raises(UserError, match="named twice"):
        check_outputs(source, tmp_path / "z_%d.png", mask=tmp_path / "z_%01d.png")


def test_values_that_are_no_numbers_are_not_written(folder, tmp_path):
    outputs = check_outputs(folder, tmp_path / "flow.mp4")
    broken = KnownEngine(lambda a, b: np.full((*SIZE, 2), np.nan, np.float32))
    with pytest.raises(UserError, match="no numbers"):
        predict_files(Predictor(broken), folder, outputs, max_flow=1, rate=25)
    assert not (tmp_path / "flow.mp4").exists()
