from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.video import VideoReader, VideoWriter

from tests.videos import NTSC, frames, make


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
@pytest.mark.parametrize("size", [(48, 64), (49, 64), (48, 65), (49, 65)])
def test_round_trip(tmp_path, suffix, size):
    path = make(tmp_path / f"a:b ü{suffix}", 10, Fraction(25), *size)
    assert list(tmp_path.iterdir()) == [path]
    video = VideoReader(path)
    assert (video.height, video.width) == size
    assert video.rate == 25
    assert video.count() == 10
    for _ in range(2):  # an iteration starts anew
        read = list(video)
        assert len(read) == 10
        for picture, original in zip(read, frames(10, *size)):
            assert picture.shape == (*size, 3)
            assert picture.dtype == np.uint8 and picture.flags.c_contiguous
            for y, x in ((4, 4), (4, -5), (-5, 4), (-5, -5)):  # away from the chroma's edges
                np.testing.assert_allclose(picture[y, x].astype(int), original[y, x].astype(int), atol=10)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
def test_one_frame(tmp_path, suffix):
    video = VideoReader(make(tmp_path / f"x{suffix}", 1, Fraction(25)))
    assert video.count() == 1
    assert next(iter(video)).shape == (48, 64, 3)
    assert video.rate == 25


@pytest.mark.parametrize("rate", [1, 12.5, NTSC, 60, Fraction(1000000, 66667)])
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_rates(tmp_path, suffix, rate):
    assert VideoReader(make(tmp_path / f"x{suffix}", 6, rate)).rate == Fraction(rate)


@pytest.mark.parametrize(("rate", "written"), [(10, 10), (30, 30), (NTSC, NTSC), (50, 50), (90, 50)])
def test_rates_of_a_gif(tmp_path, rate, written):
    path = make(tmp_path / "x.gif", 60, rate, 16, 16)
    # 60 frames last a whole number of hundredths of a second.
    assert float(VideoReader(path).rate) == pytest.approx(float(written), rel=0.5 / 100)
    with av.open(str(path)) as container:
        delays = {packet.duration for packet in container.demux() if packet.size}
    assert delays <= {int(100 / written), int(100 / written) + 1}


def test_a_gif_has_the_colours_of_each_frame(tmp_path):
    """A smooth picture that shares no colour with the one before keeps its own palette."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    pictures = []
    for channel in range(3):
        pictures.append(np.zeros((64, 64, 3), np.uint8))
        pictures[-1][..., channel] = ramp
    with VideoWriter(tmp_path / "x.gif", Fraction(10), 64, 64) as video:
        for picture in pictures:
            video.write(picture)
    for read, picture in zip(VideoReader(tmp_path / "x.gif"), pictures):
        np.testing.assert_allclose(read.astype(int), picture.astype(int), atol=8)


def test_other_programs_see_the_same_colours(tmp_path):
    for suffix in (".mp4", ".avi"):
        capture = cv2.VideoCapture(str(make(tmp_path / f"x{suffix}")))
        done, bgr = capture.read()
        capture.release()
        assert done
        np.testing.assert_allclose(bgr[-5, 4, ::-1].astype(int), (230, 20, 10), atol=10)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
def test_a_failed_block_leaves_nothing(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    for count in (0, 1, 3):
        with pytest.raises(KeyboardInterrupt), VideoWriter(path, NTSC, 48, 64) as video:
            for picture in frames(count, 48, 64):
                video.write(picture)
            raise KeyboardInterrupt
        assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="at least one frame"), VideoWriter(path, NTSC, 48, 64):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 1), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((64, 48, 3), np.uint8),
        np.zeros((48, 64, 3), np.float32),
    ],
)
def test_a_wrong_frame(tmp_path, frame):
    with (
        pytest.raises(ValueError, match="a frame of this video is"),
        VideoWriter(tmp_path / "x.mp4", NTSC, 48, 64) as video,
    ):
        video.write(frame)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="suffix is one of .mp4, .avi, .gif"):
        VideoWriter(tmp_path / "x.png", NTSC, 48, 64)
    with pytest.raises(UserError, match="does not exist"):
        make(tmp_path / "no" / "x.mp4")
    with pytest.raises(UserError, match="cannot write"):
        make(tmp_path / "x.mp4", height=4, width=40000)
    for rate, height, width in ((0, 4, 4), (-1, 4, 4), (1, 0, 4), (1, 4, -4)):
        with pytest.raises(ValueError, match="no video has"):
            VideoWriter(tmp_path / "x.mp4", rate, height, width)
    assert not list(tmp_path.iterdir())
