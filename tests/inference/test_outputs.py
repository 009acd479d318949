"""Names of outputs: what their suffix means, and what is refused before anything is computed."""

import cv2
import numpy as np
import pytest
from maskflownet.engine.contract import Prediction
from maskflownet.errors import UserError
from maskflownet.inference.outputs import check_output, writing
from maskflownet.reader.formats import read_flow
from maskflownet.reader.pictures import read_image
from maskflownet.reader.video import VideoReader

RNG = np.random.default_rng(0)


def prediction(height=20, width=30):
    flow = np.round(RNG.uniform(-9, 9, (height, width, 2)) * 64).astype("f4") / 64
    return Prediction(flow, RNG.random((height, width, 1)).astype("f4"), np.full((height, width, 3), 0.5, "f4"))


def write(path, role, predictions, kitti=False, max_flow=None):
    output = check_output(path, role, len(predictions) > 1, kitti)
    with writing(output, len(predictions) > 1, 25, (20, 30), max_flow) as write_one:
        for item in predictions:
            write_one(item)


@pytest.mark.parametrize("suffix", [".flo", ".pfm", ".npy", ".npz"])
def test_raw_flow(tmp_path, suffix):
    item = prediction()
    write(tmp_path / f"x{suffix}", "flow", [item])
    flow, mask = read_flow(tmp_path / f"x{suffix}")
    assert (flow == item.flow).all()
    assert mask.all()


def test_kitti_flow(tmp_path):
    item = prediction()
    write(tmp_path / "x.png", "flow", [item], kitti=True)
    flow, mask = read_flow(tmp_path / "x.png")
    assert (flow == item.flow).all()  # it was rounded to 1/64 px
    assert mask.all()


def test_lesson_07_a_picture_has_its_red_where_red_is(tmp_path):
    rightward = Prediction(np.full((20, 30, 2), (5, 0), "f4"), None, None)
    write(tmp_path / "x.png", "flow", [rightward])
    red, green, blue = read_image(tmp_path / "x.png")[10, 10].astype(int)
    assert red > 200
    assert max(green, blue) < 100


def test_max_flow_sets_the_scale(tmp_path):
    slow = Prediction(np.full((20, 30, 2), (1, 0), "f4"), None, None)
    for name, max_flow in (("own", None), ("wide", 10)):
        write(tmp_path / f"{name}.png", "flow", [slow], max_flow=max_flow)
    own, wide = (read_image(tmp_path / f"{name}.png")[0, 0].astype(int) for name in ("own", "wide"))
    assert own[1] < 100
    assert wide[1] > 200  # nearer to white


def test_masks_and_warped_images(tmp_path):
    item = prediction()
    write(tmp_path / "m.png", "mask", [item])
    stored = cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED)
    assert stored.shape == (20, 30)  # grey
    assert np.abs(stored - item.mask[..., 0] * 255).max() <= 0.5
    write(tmp_path / "m.npy", "mask", [item])
    assert (np.load(tmp_path / "m.npy") == item.mask).all()
    write(tmp_path / "w.npz", "warped", [item])
    assert (np.load(tmp_path / "w.npz")["warped"] == item.warped).all()
    write(tmp_path / "w.png", "warped", [item])
    assert (read_image(tmp_path / "w.png") == 128).all()


def test_numbered_files(tmp_path):
    items = [prediction() for _ in range(3)]
    write(tmp_path / "flow_%04d.flo", "flow", items)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"flow_000{i}.flo" for i in (1, 2, 3)]
    for i, item in enumerate(items, 1):
        assert (read_flow(tmp_path / f"flow_000{i}.flo")[0] == item.flow).all()


@pytest.mark.parametrize("role", ["flow", "mask", "warped"])
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
def test_videos(tmp_path, role, suffix):
    write(tmp_path / f"x{suffix}", role, [prediction() for _ in range(3)], max_flow=9)
    video = VideoReader(tmp_path / f"x{suffix}")
    assert (video.height, video.width, video.count()) == (20, 30, 3)


def test_a_video_that_fails_leaves_nothing(tmp_path):
    output = check_output(tmp_path / "x.mp4", "flow", True)
    with pytest.raises(RuntimeError), writing(output, True, 25, (20, 30), None) as write_one:
        write_one(prediction())
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "role", "sequence", "kitti", "message"),
    [
        ("x.webm", "flow", False, False, "suffix of the flow is one of"),
        ("x", "flow", False, False, "suffix of the flow"),
        ("x.flo", "mask", False, False, "suffix of the mask"),
        ("x.mp4", "flow", False, False, "a pair gives one picture"),
        ("x.png", "flow", True, False, r"numbered name such as x_%04d\.png"),
        ("x_%d_%d.png", "flow", True, False, "numbered name"),
        ("x.flo", "flow", False, True, "--kitti writes a .png"),
        ("none/x.flo", "flow", False, False, "its folder .*none does not exist"),
        ("folder.flo", "flow", False, False, "it is a folder"),
    ],
)
def test_bad_names_are_refused(tmp_path, name, role, sequence, kitti, message):
    (tmp_path / "folder.flo").mkdir()
    with pytest.raises(UserError, match=message) as error:
        check_output(tmp_path / name, role, sequence, kitti)
    assert "\n" not in str(error.value)
