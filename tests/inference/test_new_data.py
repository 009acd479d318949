"""A user's own images: what is read, what an output's suffix means, what is refused, how motion is coloured."""

import threading
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.inference.new_data import Folder, Live, Output, Pair, Video, check_outputs, predict_files
from maskflownet.inference.predictor import Predictor, load
from maskflownet.reader.colour import flow_to_colour
from maskflownet.reader.formats import read_flow, read_image, write_image
from maskflownet.reader.video import VideoReader

from tests.known_engine import KnownEngine
from tests.videos import encode, make

SIZE = (40, 50)
STEPS = (3, 5, 2)  # px: the motion of each pair of the folder


def brightness(image_1, image_2):
    """Flow (u, 0) of as many px as image 2 is brighter, in a picture of `SIZE`."""
    flow = np.zeros((*image_1.shape[:2], 2), np.float32)
    flow[..., 0] = image_2[0, 0, 0].astype(float) - image_1[0, 0, 0]
    return flow * (image_1.shape[1] / SIZE[1])


@pytest.fixture
def folder(tmp_path):
    return moving(tmp_path / "frames", STEPS)


def moving(path, steps):
    """Make frames that `brightness` moves by so many px each."""
    path.mkdir()
    for i, grey in enumerate(np.cumsum((10, *steps)), 1):
        write_image(path / f"{i}.png", np.full((*SIZE, 3), grey, np.uint8))
    return Folder(path)


def predict(source, *outputs, rule=brightness, batch=1, **options):
    """Write outputs that are given as (path, role, kitti)."""
    outputs = [Output(Path(path), *others) for path, *others in outputs]
    check_outputs(source, outputs)
    engine = KnownEngine(rule)
    return engine, predict_files(Predictor(engine, batch=batch), source, outputs, **options)


@pytest.mark.parametrize("name", ["x.flo", "x.pfm", "x.npy", "x.npz", "x.png"])
def test_raw_flow_of_a_pair(folder, tmp_path, name):
    """A .png is one with --kitti."""
    exact = np.round(np.random.default_rng(0).uniform(-9, 9, (*SIZE, 2)) * 64) / 64  # KITTI's steps
    predict(Pair(*folder.paths[:2]), (tmp_path / name, "flow", name == "x.png"), rule=lambda *_: exact)
    flow, valid = read_flow(tmp_path / name)
    assert (flow == exact).all() and valid.all()


def test_a_picture_has_its_red_where_red_is_and_the_scale_that_is_asked_for(folder, tmp_path):
    for name, max_flow in (("own", None), ("wide", 30)):
        predict(Pair(*folder.paths[:2]), (tmp_path / f"{name}.png", "flow"), max_flow=max_flow)
    own, wide = (read_image(tmp_path / f"{name}.png")[10, 10].astype(int) for name in ("own", "wide"))
    assert own[0] > 200 and max(own[1:]) < 100  # 3 px to the right
    assert wide[1] > 200  # nearer to white


def test_masks_and_warped_images(tmp_path, random_checkpoints):
    """Drawn and raw, of a real network."""
    rng = np.random.default_rng(0)
    for i in (0, 1):
        write_image(tmp_path / f"{i}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
    names = {"m.png": "mask", "m.npy": "mask", "w.png": "warped", "w.npz": "warped"}
    outputs = [Output(tmp_path / name, role) for name, role in names.items()]
    source = Pair(tmp_path / "0.png", tmp_path / "1.png")
    check_outputs(source, outputs)
    predict_files(load("MaskFlownet_S", str(random_checkpoints["MaskFlownet_S"])), source, outputs)
    grey = cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED)
    mask = np.load(tmp_path / "m.npy")
    assert grey.shape == SIZE and mask.shape == (*SIZE, 1)
    assert np.abs(grey - mask[..., 0] * 255).max() <= 0.501
    warped = np.load(tmp_path / "w.npz")["warped"]
    assert np.abs(read_image(tmp_path / "w.png") - warped * 255).max() <= 0.501


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".npy", ".npz", ".pfm"])
def test_numbered_files_of_a_folder_with_confidence(folder, tmp_path, suffix):
    names = (tmp_path / "f_%04d.flo", "flow"), (tmp_path / f"c_%d{suffix}", "confidence")
    engine, done = predict(folder, *names, batch=3)
    assert [shape[0] for shape, _ in engine.calls] == [6]  # three pairs and their swaps
    assert done.pairs == 3
    for number, step in enumerate(STEPS, 1):
        assert (read_flow(tmp_path / f"f_000{number}.flo")[0] == (step, 0)).all()
        path = tmp_path / f"c_{number}{suffix}"
        if suffix in {".png", ".jpg"}:
            values = read_image(path)[..., 0] / 255
        elif suffix == ".pfm":
            values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        else:
            stored = np.load(path)
            values = (stored["confidence"] if suffix == ".npz" else stored)[..., 0]
        expected = np.ones(SIZE)
        expected[:, -step:] = 0  # there the flow leaves the picture
        np.testing.assert_allclose(values, expected, atol=0.1 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("role", ["flow", "mask", "confidence"])
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
def test_videos(folder, tmp_path, role, suffix):
    predict(folder, (tmp_path / f"x{suffix}", role), (tmp_path / "%d.png", role), max_flow=9, rate=20)
    video = VideoReader(tmp_path / f"x{suffix}")
    assert (video.height, video.width, video.count, video.rate) == (*SIZE, 3, 20)
    frames = list(video)
    for number, frame in enumerate(frames, 1):  # as the picture of the same pair
        assert np.abs(frame.astype(int) - read_image(tmp_path / f"{number}.png")).mean() < 2
    (frame, *_) = frames
    if role == "confidence":
        assert frame[:, :40].min() > 200 and frame[:, -1].max() < 60


def one_wild_pixel(image_1, image_2):
    flow = brightness(image_1, image_2)
    flow[0, 0] = 1000
    return flow


def test_one_scale_for_all_frames_which_one_wild_pixel_does_not_set(folder, tmp_path):
    names = (tmp_path / "flow_%d.png", "flow"), (tmp_path / "flow_%d.flo", "flow")
    _, done = predict(folder, *names, rule=one_wild_pixel)
    assert done.max_flow == pytest.approx(max(STEPS), abs=0.011)
    assert done.largest == pytest.approx(np.hypot(1000, 1000))
    pictures = [read_image(tmp_path / f"flow_{i}.png") for i in (1, 2, 3)]
    slow, fast, slowest = (picture[20, 20, 1] for picture in pictures)
    assert slowest > slow > fast  # the slower, the whiter
    assert predict(folder, names[0], rule=one_wild_pixel, max_flow=done.max_flow)[1].max_flow == done.max_flow
    for i, picture in enumerate(pictures, 1):
        np.testing.assert_array_equal(read_image(tmp_path / f"flow_{i}.png"), picture)
    assert predict(folder, names[1])[1].max_flow is None  # nothing is drawn


@pytest.mark.parametrize(
    ("steps", "scale"),
    [
        ([0] * 40 + [12] + [0] * 40, 12),  # a moment
        ([0] * 3 + [7] * 11 + [70] + [0] * 3, 7),  # and a cut
        ([0] * 9, 1),
    ],
)
def test_the_scale_is_that_of_what_moves(tmp_path, steps, scale):
    _, done = predict(moving(tmp_path / "rests", steps), (tmp_path / "%d.png", "flow"))
    assert done.max_flow == pytest.approx(scale, abs=0.011)


@pytest.mark.parametrize("config", ["MaskFlownet", "MaskFlownet_S"])
@pytest.mark.parametrize("size", [(480, 640), (128, 192)])
def test_a_still_scene_is_nearly_white(shared, config, size):
    pytest.importorskip("torch")
    image = cv2.resize(read_image(shared / "data/pairs/middlebury/Grove2/frame10.png"), size[::-1])
    flow = load(config, engine="torch")(image, image).flow
    assert np.hypot(flow[..., 0], flow[..., 1]).mean() < 0.05  # px
    assert flow_to_colour(flow).mean() > 250


def test_only_what_is_written_is_computed(folder, tmp_path):
    engine, _ = predict(folder, (tmp_path / "f_%d.flo", "flow"), (tmp_path / "m_%d.png", "mask"))
    assert engine.asked == [(True, False)] * 3


def test_memory_does_not_grow_with_a_videos_length(tmp_path):
    peaks = []
    for count in (20, 20, 120):  # the first one fills caches
        source = Video(make(tmp_path / f"{count}.mp4", count, height=128, width=192))
        tracemalloc.start()
        predict(source, (tmp_path / "x.mp4", "flow"), max_flow=5, rule=brightness)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1]


def test_a_video_is_decoded_once_where_its_scale_is_given(tmp_path):
    for options, passes in (({"max_flow": 5}, 1), ({}, 2)):
        source, decoded = Video(make(tmp_path / "x.mp4", 5)), []
        source.frames = lambda source=source, decoded=decoded: (decoded.append(1) or f for f in source.reader)
        predict(source, (tmp_path / "y.mp4", "flow"), (tmp_path / "%d.flo", "flow"), **options)
        assert len(decoded) == 5 * passes


LIVE = 30, 25  # frames and their rate; frame n is of the grey 5 n


@pytest.fixture
def url(tmp_path, request):
    """Where a live video is read: from a file at its own rate, or from a server that sends it at its own rate."""
    pictures = [np.full((*SIZE, 3), 5 * number, np.uint8) for number in range(LIVE[0])]
    if request.param == "file":
        yield encode(tmp_path / "live.mp4", "libx264", "yuv444p", pictures, LIVE[1]).as_uri()
        return
    over = threading.Event()

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=ffmpeg")
            self.end_headers()
            started = time.monotonic()
            for number, picture in enumerate(pictures):
                over.wait(started + number / LIVE[1] - time.monotonic())
                data = cv2.imencode(".jpg", picture)[1].tobytes()
                self.wfile.write(b"--ffmpeg\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
                self.wfile.write(data + b"\r\n")
            if request.param == "silent server":
                over.wait()

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        over.set()
        server.shutdown()


@pytest.mark.parametrize("url", ["file", "server", "silent server"], indirect=True)
def test_live_pairs_are_of_the_newest_frames_and_the_video_has_their_times(tmp_path, monkeypatch, request, url):
    def slow(image_1, image_2):
        time.sleep(0.1)  # two frames and a half
        return brightness(image_1, image_2) / 5

    monkeypatch.setattr("maskflownet.reader.video._SILENCE", 1)
    source, names = Live(url), ("x.mp4", "x.avi", "x.gif")
    time.sleep(0.2)  # as a network is loaded; what came before the stream was known comes at once
    assert (source.height, source.width) == SIZE
    _, done = predict(source, *((tmp_path / name, "flow") for name in (*names, "%d.flo")), rule=slow)
    steps = [round(read_flow(tmp_path / f"{number}.flo")[0][0, 0, 0]) for number in range(1, done.pairs + 1)]
    assert not (tmp_path / f"{done.pairs + 1}.flo").exists()
    assert max(steps) > 1
    assert source.reader.dropped == sum(steps) - len(steps)
    lost = str(source.reader.lost)
    assert "no frame came for 1 s" in lost if "silent" in request.node.name else lost == "None"
    for name in names:
        with av.open(str(tmp_path / name)) as container:
            times = [frame.time for frame in container.decode(video=0)]
        # On a busy machine frames may come too soon after each other for the video's rate: one is left out.
        assert len(source.times) - 3 <= len(times) < len(source.times)
        distances = np.abs(np.subtract.outer(np.subtract(times, times[0]), source.times[:-1]))
        assert distances.min(axis=1).max() <= 0.021
    assert source.times[-1] == pytest.approx(sum(steps) / LIVE[1], abs=0.25)  # s, on a busy machine


def test_a_video_that_rests_but_for_a_moment(shared, tmp_path):
    """Its frames 29 to 33: the moment begins with the last one."""
    pytest.importorskip("torch")
    frames = list(VideoReader(shared / "cases/colour_scale/rests_but_for_a_moment.mp4"))[28:33]
    for i, picture in enumerate(frames):
        write_image(tmp_path / f"{i}.png", picture)
    outputs = [Output(tmp_path / "x.gif", "flow")]
    done = predict_files(load("MaskFlownet_S", engine="torch"), Folder(tmp_path), outputs, rate=25)
    assert 10 < done.max_flow < 25  # px; it moves by 16
    drawn = list(VideoReader(tmp_path / "x.gif"))
    assert drawn[0].mean() > 250
    assert drawn[-1].min() < 30


@pytest.mark.parametrize("where", ["frames", "network", "numbers", "writing"])
def test_an_error_anywhere_ends_all_threads_and_leaves_no_half_file(folder, tmp_path, monkeypatch, where):
    """Threads read, compute and write when one of them fails at the third pair."""

    def rule(image_1, image_2):
        if where == "network" and image_2[0, 0, 0] == 20:
            raise UserError("lost the network")
        if where == "numbers" and image_2[0, 0, 0] == 20:
            return np.full((*SIZE, 2), np.nan)
        return brightness(image_1, image_2)

    if where == "frames":
        (tmp_path / "frames/4.png").write_bytes(b"no picture")
    if where == "writing":
        (tmp_path / "3.flo").mkdir()
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # no thread of the progress bar's own, which stays
    before = threading.active_count()
    messages = {"frames": "4.png", "network": "lost the network", "numbers": "no numbers", "writing": "it is a folder"}
    with pytest.raises(UserError, match=messages[where]):
        predict(folder, (tmp_path / "x.mp4", "flow"), (tmp_path / "%d.flo", "flow"), rule=rule, max_flow=5, rate=25)
    assert threading.active_count() == before
    assert {path.name for path in tmp_path.iterdir()} <= {"frames", "1.flo", "2.flo", "3.flo"}


def test_names_are_checked_together(folder, tmp_path):
    (tmp_path / "link").symlink_to("frames")
    for message, *names in [
        ("named twice", ("x.mp4", "flow"), ("x.mp4", "mask")),
        ("named twice", ("z_%d.png", "flow"), ("z_%01d.png", "mask")),
        ("take it for a frame", ("frames/%d.png", "flow")),
        ("take it for a frame", ("x.mp4", "flow"), ("link/mask_%d.PPM", "mask")),
    ]:
        with pytest.raises(UserError, match=message):
            check_outputs(folder, [Output(tmp_path / name, role) for name, role in names])
    check_outputs(folder, [Output(tmp_path / "frames" / name, "flow") for name in ("x.mp4", "x_%d.flo")])


@pytest.mark.parametrize(
    ("name", "role", "sequence", "kitti", "message"),
    [
        ("x.webm", "flow", False, False, "suffix of the flow is one of"),
        ("x", "flow", False, False, "suffix of the flow"),
        ("x.flo", "mask", False, False, "suffix of the mask"),
        ("x.mp4", "flow", False, False, "a pair gives one picture"),
        ("x.png", "flow", True, False, r"numbered name such as x_%04d\.png"),
        ("x_%d_%d.png", "flow", True, False, "numbered name"),
        ("x_%099999999999d.flo", "flow", True, False, "numbered name"),
        ("x.flo", "flow", False, True, "--kitti writes a .png"),
        ("none/x.flo", "flow", False, False, "its folder .*none does not exist"),
        ("folder.flo", "flow", False, False, "it is a folder"),
    ],
)
def test_bad_names_are_refused(folder, tmp_path, name, role, sequence, kitti, message):
    (tmp_path / "folder.flo").mkdir()
    source = folder if sequence else Pair(*folder.paths[:2])
    with pytest.raises(UserError, match=message) as error:
        check_outputs(source, [Output(tmp_path / name, role, kitti)])
    assert "\n" not in str(error.value)


def frame(number, height=32, width=48):
    return np.full((height, width, 3), 20 * number, np.uint8)


def test_wrong_folders_are_one_sentence(tmp_path):
    for number in (1, 2, 10):
        write_image(tmp_path / f"frame_{number}.png", frame(number))
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match="is no folder"):
        Folder(tmp_path / "none")
    write_image(tmp_path / "frame_3.png", frame(3, 30))
    with pytest.raises(UserError, match=r"frame_1\.png and .*frame_3\.png differ in size: 32x48"):
        Folder(tmp_path)
    (tmp_path / "frame_3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"frame_3\.png"):
        Folder(tmp_path)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="holds 0 pictures"):
        Folder(tmp_path)
    (tmp_path / "clean" / "alley_1").mkdir(parents=True)
    for number in (1, 2):
        write_image(tmp_path / "clean" / "alley_1" / f"frame_{number}.png", frame(number))
    with pytest.raises(UserError, match="name one of the folders below it, such as .*/clean/alley_1, in a call"):
        Folder(tmp_path)


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (("frame_0016", "frame_0017", "frame_0019"), [16, 17]),
        (("9", "10"), [9]),
        (("0007_640x480", "0008_640x480"), [7]),
        (("left1_8", "left1_9"), [8]),
        (("a", "b1", "c"), [1, 2]),
        (("a1_5", "b1_5"), [1]),
    ],
)
def test_outputs_have_the_numbers_of_their_first_frames(tmp_path, names, numbers):
    for name in names:
        write_image(tmp_path / f"{name}.png", frame(1))
    source = Folder(tmp_path)
    assert [path.stem for path in source.paths] == list(names)
    assert list(source.numbers) == numbers
