import struct
import zlib

import cv2
import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.formats import WRITABLE_SUFFIXES, read_image, read_mask, write_image

RED = (200, 40, 10)


def smooth(height=60, width=80):
    noise = np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def encode(suffix, bgr):
    return cv2.imencode(suffix, bgr)[1].tobytes()


def put(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_red_stays_red(tmp_path, suffix):
    image = np.full((21, 33, 3), RED, np.uint8)
    path = tmp_path / f"rot {suffix}ü{suffix}"
    write_image(path, image)
    read = read_image(path)
    assert read.shape == image.shape
    assert read.dtype == np.uint8
    lossy = suffix in (".jpg", ".jpeg", ".webp")
    np.testing.assert_allclose(read, image, atol=6 if lossy else 0)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
@pytest.mark.parametrize("shape", [(9, 14), (9, 14, 1)])
def test_grey_becomes_three_equal_channels(tmp_path, suffix, shape):
    grey = np.linspace(0, 255, 9 * 14).astype(np.uint8).reshape(shape)
    write_image(tmp_path / f"grey{suffix}", grey)
    read = read_image(tmp_path / f"grey{suffix}")
    np.testing.assert_allclose(read, np.broadcast_to(grey.reshape(9, 14, 1), (9, 14, 3)), atol=6)
    mask = read_mask(tmp_path / f"grey{suffix}")
    assert mask.shape == (9, 14, 1)
    np.testing.assert_allclose(mask[..., 0], grey.reshape(9, 14), atol=6)


def test_alpha_is_dropped(tmp_path):
    bgra = np.zeros((4, 5, 4), np.uint8)
    bgra[...] = (*RED[::-1], 0)
    for suffix in (".png", ".tiff"):
        read = read_image(put(tmp_path / f"a{suffix}", encode(suffix, bgra)))
        assert (read == RED).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm"])
def test_16_bit_is_scaled(tmp_path, suffix):
    deep = np.zeros((3, 4, 3), np.uint16)
    deep[..., 2], deep[..., 1] = 65535, 128 * 257 + 100
    path = put(tmp_path / f"deep{suffix}", encode(suffix, deep))
    assert (read_image(path) == (255, 128, 0)).all()
    grey = put(tmp_path / "grey.png", encode(".png", np.full((3, 4), 40000, np.uint16)))
    assert (read_image(grey) == 156).all()
    assert (read_mask(grey) == 156).all()


@pytest.mark.parametrize(
    ("data", "first"),
    [
        (b"P6\n# a comment\n2 # another\n\t1\n255\n" + bytes([9, 8, 7, 6, 5, 4]), (9, 8, 7)),
        (b"P6 2 1 100\n" + bytes([100, 50, 0, 0, 0, 0]), (255, 128, 0)),
        (b"P6 2 1 1023\n" + struct.pack(">6H", 1023, 512, 0, 0, 0, 0), (255, 128, 0)),
        (b"P3\n2 1\n255\n9 8 7\n6 5 4\n", (9, 8, 7)),
        (b"P5 2 1 255\n" + bytes([9, 8]), (9, 9, 9)),
        (b"P5 2 1 1\n" + bytes([1, 0]), (255, 255, 255)),
        (b"P4 2 1\n" + bytes([0b01000000]), (255, 255, 255)),
    ],
)
def test_any_netpbm_header(tmp_path, data, first):
    read = read_image(put(tmp_path / "x.ppm", data))
    assert read.shape == (1, 2, 3)
    assert tuple(read[0, 0]) == first


def test_a_mask_of_three_channels_is_one_channel(tmp_path):
    colour = np.zeros((4, 6, 3), np.uint8)
    colour[:, 3:] = 255
    mask = read_mask(put(tmp_path / "m.png", encode(".png", colour)))
    assert mask.shape == (4, 6, 1)
    assert (mask[:, :3] == 0).all() and (mask[:, 3:] == 255).all()


def test_exif_orientation_is_applied(tmp_path):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = (0, 0, 255)  # BGR red, on the left
    plain = encode(".jpg", image)
    # One IFD with one entry: tag 0x0112 (orientation), short, 6 = to be turned clockwise.
    ifd = struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + ifd
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    read = read_image(put(tmp_path / "turned.jpg", data)).astype(int)
    assert read.shape == (32, 16, 3)
    assert read[4, 8, 0] > 200  # red is at the top now
    assert read[28, 8, 0] < 50
    assert read_mask(tmp_path / "turned.jpg").shape == (32, 16, 1)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".ppm", ".bmp", ".tiff", ".webp"])
@pytest.mark.parametrize("kept", [0.02, 0.1, 0.5, 0.9, -3])
def test_a_cut_picture(tmp_path, capfd, suffix, kept):
    data = encode(suffix, smooth())
    end = int(len(data) * kept) if kept > 0 else len(data) + kept
    path = put(tmp_path / f"cut{suffix}", data[:end])
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=f"cannot read {path}: "):
            read(path)
    if hasattr(cv2, "utils") and hasattr(cv2.utils, "logging"):
        assert capfd.readouterr().err == ""


def test_a_cut_jpeg_with_a_thumbnail(tmp_path):
    data = encode(".jpg", smooth())
    thumbnail = encode(".jpg", smooth(8, 8))
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + segment + data[2:]
    assert read_image(put(tmp_path / "whole.jpg", whole)).shape == (60, 80, 3)
    with pytest.raises(UserError, match="the JPEG ends early"):
        read_image(put(tmp_path / "cut.jpg", whole[:-300]))


def test_what_follows_a_complete_picture_is_ignored(tmp_path):
    junk = b"\xff\xda motion photo \xff\xda"
    for suffix in (".jpg", ".png"):
        data = encode(suffix, smooth())
        read = read_image(put(tmp_path / f"a{suffix}", data + junk))
        np.testing.assert_array_equal(read, read_image(put(tmp_path / f"b{suffix}", data)))


def test_a_png_with_a_wrong_checksum(tmp_path, capfd):
    data = bytearray(encode(".png", smooth()))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(UserError, match="the PNG is damaged"):
        read_image(put(tmp_path / "x.png", bytes(data)))
    assert capfd.readouterr().err == ""


def test_a_png_remark_with_a_wrong_checksum_is_no_fault(tmp_path):
    data = encode(".png", smooth())
    remark = b"tEXtkey\0value"
    chunk = struct.pack(">I", len(remark) - 4) + remark
    wrong = struct.pack(">I", zlib.crc32(remark) ^ 1)
    path = put(tmp_path / "x.png", data[:33] + chunk + wrong + data[33:])
    assert read_image(path).shape == (60, 80, 3)


@pytest.mark.parametrize(
    "data", [b"only a few words\n" * 20, b"\0" * 100, b"P6 999999999 999999999 255\n", b"\xff\xd8", b"P6"]
)
def test_no_picture(tmp_path, capfd, data):
    path = put(tmp_path / "x.png", data)
    with pytest.raises(UserError, match=f"cannot read {path}: "):
        read_image(path)
    if hasattr(cv2, "utils") and hasattr(cv2.utils, "logging"):
        assert capfd.readouterr().err == ""


def test_missing_empty_and_gif(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(UserError, match="the file is empty"):
        read_image(put(tmp_path / "empty.png", b""))
    with pytest.raises(UserError, match="a GIF is read as a video"):
        read_image(put(tmp_path / "x.gif", b"GIF89a......"))


def test_floating_point_samples_are_refused(tmp_path):
    path = put(tmp_path / "x.hdr", encode(".hdr", np.full((4, 5, 3), 0.5, np.float32)))
    with pytest.raises(UserError, match="its samples are float32"):
        read_image(path)


def test_what_cannot_be_written(tmp_path):
    image = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(UserError, match="suffix is one of .png, "):
        write_image(tmp_path / "x.xyz", image)
    with pytest.raises(UserError, match="does not exist"):
        write_image(tmp_path / "no" / "x.png", image)
    for wrong in (image.astype(float), image[:, :0], np.zeros((4, 5, 4), np.uint8), image[0, 0]):
        with pytest.raises(ValueError, match="a picture is"):
            write_image(tmp_path / "x.png", wrong)
    with pytest.raises(UserError, match="OpenCV cannot encode"):
        write_image(tmp_path / "x.webp", np.zeros((4, 20000, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_real_pictures(shared):
    pairs = shared / "data" / "pairs"
    sizes = {
        "middlebury/RubberWhale/frame10.png": (388, 584),
        "sintel/alley_1_0002_clean/frame_0002.png": (436, 1024),
        "kitti/flowpy_000010/frame1.png": (375, 1242),
        "flyingchairs/flownet2_0000000/img1.ppm": (384, 512),
    }
    for name, size in sizes.items():
        image = read_image(pairs / name)
        assert image.shape == (*size, 3)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, cv2.imread(str(pairs / name))[..., ::-1])
    invalid = read_mask(pairs / "sintel" / "alley_1_0002_clean" / "invalid.png")
    assert invalid.shape == (436, 1024, 1)
    assert set(np.unique(invalid)) <= {0, 255}


def test_arrays_become_what_files_become():
    colour = smooth()
    assert read_image(colour) is not None and (read_image(colour) == colour).all()
    rgba = np.dstack([colour, np.zeros((60, 80), np.uint8)])
    assert (read_image(rgba) == colour).all()
    for grey in (colour[..., 0], colour[..., :1], colour[..., 0].astype(np.uint16) * 257):
        read = read_image(grey)
        assert read.dtype == np.uint8 and read.flags.c_contiguous
        assert (read == colour[..., :1]).all()
    for wrong in (colour.astype(np.float32), colour[None], colour[..., :2], colour[:0]):
        with pytest.raises(UserError, match="a picture is"):
            read_image(wrong)
