import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.video import VideoReader, VideoWriter

from tests.videos import NTSC, cut, damaged, encode, frames, index_first, make, save, smooth

CLIPS = {  # name: (H, W), frames, rate
    "bigbuckbunny.mp4": ((720, 1280), 132, 25),
    "realshort.mp4": ((240, 320), 36, Fraction(45000, 1499)),
    "newtonscradle.gif": ((150, 200), 36, Fraction(3600, 82)),
    # 68 of 444 frame slots are filled; the rest were dropped when it was recorded.
    "tree.avi": ((240, 320), 68, Fraction(68, 444) * Fraction(1000000, 66667)),
}


def fails(path):
    """Return the one sentence with which a file is refused."""
    with pytest.raises(UserError) as caught:
        list(VideoReader(path))
    sentence = str(caught.value)
    assert sentence.startswith(f"cannot read {path}") and "\n" not in sentence
    return sentence


@pytest.mark.parametrize("name", CLIPS)
def test_real_clips(shared, name):
    size, count, rate = CLIPS[name]
    video = VideoReader(shared / "data" / "videos" / name)
    assert (video.height, video.width) == size
    assert video.rate == rate
    assert video.count == count
    first = next(iter(video))
    assert first.shape == (*size, 3)
    if not name.endswith(".gif"):
        bgr = cv2.VideoCapture(str(video.path)).read()[1]
        assert np.abs(first.astype(int) - bgr[..., ::-1]).mean() < 3


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_clips(shared, tmp_path, capfd, caplog, name, share):
    path = cut(shared / "data" / "videos" / name, tmp_path / name, share)
    fails(path)
    assert capfd.readouterr().err == ""
    assert not caplog.records


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_cut_clips_that_have_their_index_in_front(shared, tmp_path, share):
    whole = index_first(shared / "data" / "videos" / "realshort.mp4", tmp_path / "whole.mp4")
    assert VideoReader(whole).count == 36
    path = cut(whole, tmp_path / "cut.mp4", share)
    assert "cut short" in fails(path)


def test_a_clip_cut_between_two_packets(tmp_path):
    whole = index_first(make(tmp_path / "x.mp4", 60), tmp_path / "whole.mp4")
    with av.open(str(whole)) as container:
        starts = [packet.pos for packet in container.demux() if packet.size]
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: starts[40]])
    assert "cut short" in fails(tmp_path / "cut.mp4")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_cut_matroska(tmp_path, share):
    noise = np.random.RandomState(0).randint(0, 256, (50, 48, 64, 3)).astype(np.uint8)
    whole = encode(tmp_path / "whole.mkv", "mjpeg", "yuvj420p", noise)
    assert VideoReader(whole).count == 50
    assert VideoReader(whole).rate == 25
    assert "cut short" in fails(cut(whole, tmp_path / "cut.mkv", share))


def test_what_follows_a_complete_gif_is_ignored(tmp_path):
    path = make(tmp_path / "x.gif")
    path.write_bytes(path.read_bytes() + b"\0some words")
    assert VideoReader(path).count == 10


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif", ".txt"])
@pytest.mark.parametrize("data", [b"some words of text\n" * 50, bytes(3000), b"\n"])
def test_no_video(tmp_path, capfd, suffix, data):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    fails(path)
    assert capfd.readouterr().err == ""


def test_missing_empty_folder_and_picture(tmp_path):
    assert "no such file" in fails(tmp_path / "x.mp4")
    assert "it is a folder" in fails(tmp_path)
    (tmp_path / "x.mp4").touch()
    assert "the file is empty" in fails(tmp_path / "x.mp4")
    for suffix in (".png", ".jpg", ".mp4"):
        data = cv2.imencode(".png" if suffix == ".mp4" else suffix, np.zeros((8, 8), np.uint8))[1]
        (tmp_path / f"x{suffix}").write_bytes(data.tobytes())
        assert "it is not a video" in fails(tmp_path / f"x{suffix}")


@pytest.mark.parametrize(("suffix", "codec"), [(".wav", "pcm_s16le"), (".mp4", "aac")])
def test_sound_alone(tmp_path, suffix, codec):
    with av.open(str(tmp_path / f"x{suffix}"), "w") as container:
        stream = container.add_stream(codec, rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8192), np.int16), "s16", "mono")
        sound.sample_rate, sound.pts = 44100, 0
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    assert "it holds no video stream" in fails(tmp_path / f"x{suffix}")


def test_frames_that_change_their_size(tmp_path):
    small = encode(tmp_path / "small.h264", "libx264", "yuv420p", frames(5, 48, 64))
    large = encode(tmp_path / "large.h264", "libx264", "yuv420p", frames(5, 64, 64))
    assert VideoReader(small).count == 5
    path = tmp_path / "both.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    assert "its frames change their size" in fails(path)


def test_no_frame_rate(tmp_path):
    """A Matroska file whose one frame states no duration, as a recorder's single shot does."""
    path = encode(tmp_path / "x.mkv", "mjpeg", "yuvj420p", frames(1, 48, 64))
    data = path.read_bytes()
    default = data.index(b"\x23\xe3\x83\x84")  # the element DefaultDuration, of 4 bytes
    void = b"\xec\x86" + bytes(6)  # an element of the same length that is skipped
    path.write_bytes(data[:default] + void + data[default + 8 :])
    assert "no frame rate can be determined" in fails(path)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turned_or_mirrored_video_stands_upright(tmp_path, turns, mirrored):
    path = make(tmp_path / "x.mp4")
    plain = next(iter(VideoReader(path)))
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns]
    # ISO 14496-12, 8.3.2: the matrix of the track header turns clockwise, in 16.16 fixed point.
    matrix = [cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 14]
    if mirrored:  # left to right, before it is turned
        matrix[:2] = -cosine, -sine
    data = bytearray(path.read_bytes())
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *(value << 16 for value in matrix))
    path.write_bytes(data)
    video = VideoReader(path)
    expected = np.rot90(plain[:, ::-1] if mirrored else plain, -turns)
    assert (video.height, video.width) == expected.shape[:2]
    np.testing.assert_array_equal(next(iter(video)), expected)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
def test_the_aspect_of_pixels_is_kept(shared, tmp_path, suffix):
    source = VideoReader(shared / "cases" / "pixel_aspect" / "sar_4_3.mp4")
    assert source.pixel_aspect == Fraction(4, 3)
    path = make(tmp_path / f"x{suffix}", 3, Fraction(25), pixel_aspect=source.pixel_aspect)
    assert float(VideoReader(path).pixel_aspect) == pytest.approx(4 / 3, rel=0.01)


def test_the_rate_is_that_of_the_time_stamps_whatever_the_header_says(shared):
    video = VideoReader(shared / "cases" / "container_rate" / "says_1000_fps_is_5.mkv")
    assert (video.count, video.rate) == (10, 5)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mkv", "libx264"), (".webm", "libvpx"), (".flv", "flv"), (".mp4", "libx264"), (".ts", "libx264")],
)
def test_the_rate_of_an_irregular_recording_is_the_average(tmp_path, suffix, codec):
    times = [0, 40, 80, 500, 540, 900, 1000, 1040, 1080, 1800]  # ms
    path = encode(tmp_path / f"x{suffix}", codec, "yuv420p", frames(10, 48, 64), 1000, times)
    assert float(VideoReader(path).rate) == pytest.approx(5, rel=0.01)


def test_videos_of_16_bit_have_one_scale(tmp_path):
    """Ten bit in sixteen: what a camera gives; the first frame alone is darker."""
    pictures = [np.zeros((48, 64), np.uint16) + np.arange(64, dtype=np.uint16) * n for n in (2, 16)]
    path = encode(tmp_path / "x.mkv", "ffv1", "gray16le", pictures)
    for read, picture in zip(VideoReader(path), pictures, strict=True):
        np.testing.assert_allclose(read, picture[..., None] / 1023 * 255 + np.zeros(3), atol=2)


def test_what_is_too_large_or_an_animation_of_another_kind(shared, tmp_path, monkeypatch):
    animation = shared / "cases" / "animated_webp" / "a.webp"
    if "webp_anim" in av.formats_available:  # since PyAV 19
        assert [frame.shape for frame in VideoReader(animation)] == 4 * [(128, 192, 3)]
    else:
        assert fails(animation)
    path = make(tmp_path / "x.mp4")
    monkeypatch.setenv("MASKFLOWNET_MAX_PIXELS", "3000")
    assert "3,072 pixels, more than 3,000" in fails(path)


@pytest.mark.parametrize(("suffix", "found"), [(".avi", 0.85), (".gif", 0.85), (".mp4", 0.75)])
def test_most_damage_is_found(tmp_path, capfd, suffix, found):
    """20 to 500 bytes missing, zero or random: what is left may be a valid file, but seldom."""
    whole = save(tmp_path / f"x{suffix}", [smooth(np.random.default_rng(n)) for n in range(8)], Fraction(25))
    refused = 0
    for data in damaged(whole.read_bytes(), 40):
        (tmp_path / f"y{suffix}").write_bytes(data)
        try:
            list(VideoReader(tmp_path / f"y{suffix}"))
        except UserError:
            refused += 1
    assert refused >= 40 * found
    assert capfd.readouterr().err == ""


def test_a_consumer_may_stop_early(tmp_path):
    video = VideoReader(make(tmp_path / "x.mp4"))
    for _ in range(20):
        for _ in video:
            break
    assert video.count == 10


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
@pytest.mark.parametrize(
    ("count", "size"), [(10, (48, 64)), (10, (49, 64)), (10, (48, 65)), (10, (49, 65)), (1, (48, 64))]
)
def test_round_trip(tmp_path, suffix, count, size):
    path = make(tmp_path / f"a:b ü{suffix}", count, Fraction(25), *size)
    assert list(tmp_path.iterdir()) == [path]
    video = VideoReader(path)
    assert (video.height, video.width) == size
    assert (video.rate, video.count) == (25, count)
    for _ in range(2):  # an iteration starts anew
        for picture, original in zip(video, frames(count, *size), strict=True):
            assert picture.shape == (*size, 3)
            assert picture.dtype == np.uint8 and picture.flags.c_contiguous
            for y, x in ((4, 4), (4, -5), (-5, 4), (-5, -5)):  # away from the chroma's edges
                np.testing.assert_allclose(picture[y, x].astype(int), original[y, x].astype(int), atol=10)


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
    ramp = np.tile(np.linspace(0, 255, 64), (64, 1))
    pictures = [(ramp[..., None] * channel).astype(np.uint8) for channel in np.eye(3)]
    path = save(tmp_path / "x.gif", pictures, Fraction(10))
    for read, picture in zip(VideoReader(path), pictures, strict=True):
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


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (48, 64, 4), (64, 48, 3), (48, 64, 3)])
def test_a_wrong_frame(tmp_path, shape):
    frame = np.zeros(shape, np.float32 if shape == (48, 64, 3) else np.uint8)
    path = tmp_path / "x.mp4"
    with pytest.raises(ValueError, match="a frame of this video is"), VideoWriter(path, NTSC, 48, 64) as video:
        video.write(frame)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("codec", "suffix"), [("mpeg4", ".avi"), ("libx264", ".avi"), ("libx265", ".mp4"), ("mjpeg", ".mp4")]
)
def test_an_encoder_by_name(tmp_path, codec, suffix):
    path = make(tmp_path / f"x{suffix}", 5, Fraction(25), codec=codec)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name in {codec, "h264", "hevc"}
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(np.diff(times), 0.04, atol=1e-4)
    for read, picture in zip(VideoReader(path), frames(5, 48, 64), strict=True):
        assert np.abs(read.astype(int) - picture).mean() < 8


def test_a_frame_of_one_pixel(tmp_path):
    frame = np.full((3, 1, 1), 200, np.uint8).transpose(1, 2, 0)  # whose strides may be any
    (read,) = VideoReader(save(tmp_path / "x.avi", [frame], Fraction(25)))
    assert read.shape == (1, 1, 3) and abs(int(read[0, 0, 0]) - 200) < 5


def test_what_cannot_be_written(tmp_path):
    for codec in ("h265_nvenk", "aac"):
        with pytest.raises(UserError, match=f"--codec {codec}: .* no encoder of videos"):
            VideoWriter(tmp_path / "x.mp4", NTSC, 48, 64, codec=codec)
    with pytest.raises(UserError, match="the format takes no gif"):
        make(tmp_path / "x.mp4", codec="gif")
    with pytest.raises(UserError, match="the encoder mpeg4 does not start here"):
        make(tmp_path / "x.mp4", height=47, codec="mpeg4")  # it has no 4:4:4
    with pytest.raises(UserError, match="does not exist"):
        make(tmp_path / "no" / "x.mp4")
    with pytest.raises(UserError, match="cannot write"):
        make(tmp_path / "x.mp4", height=4, width=40000)
    assert not list(tmp_path.iterdir())
