import io
import pickle
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader import formats
from maskflownet.reader.formats import read_flow, read_image, read_images, read_mask, write_flow, write_image
from PIL import Image

from tests.videos import damaged


def put(path, data):
    path.write_bytes(data)
    return path


def flo(width, height, pixels=b""):
    return struct.pack("<fii", 202021.25, width, height) + pixels


def numpy_file(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def chunk(kind, content, damage=0):
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ damage)


@pytest.fixture
def flow():
    """A flow of 7x5 px in steps of 1/64 px, which every format holds exactly."""
    return np.random.RandomState(0).randint(-6400, 6400, (7, 5, 2)).astype(np.float32) / 64


@pytest.mark.parametrize("suffix", [*formats.FLOW_SUFFIXES, ".FLO", ".NPY", ".NPZ"])
def test_round_trip(tmp_path, flow, suffix):
    path, before = tmp_path / f"flow{suffix}", flow.copy()
    write_flow(path, flow)
    np.testing.assert_array_equal(flow, before)  # the caller's array is untouched
    read, mask = read_flow(path)
    assert mask.shape == (7, 5, 1) and (mask == 255).all()
    np.testing.assert_array_equal(read, flow)
    assert read.dtype == np.float32 and read.flags.writeable and read.flags.c_contiguous and mask.dtype == np.uint8
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".flo", ".pfm", ".flo5", ".npy", ".npz"])
@pytest.mark.parametrize("unknown", [1.1e9, -1e10, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", [0, 1])
def test_unknown_values(tmp_path, flow, suffix, unknown, channel):
    flow[2, 3, channel] = unknown
    flow[4, 4] = 1e9  # still known
    write_flow(tmp_path / f"flow{suffix}", flow)
    read, mask = read_flow(tmp_path / f"flow{suffix}")
    assert mask[2, 3, 0] == 0 and (mask == 0).sum() == 1
    assert (read[2, 3] == 0).all()
    assert (read[4, 4] == 1e9).all()


def test_flo_by_hand(tmp_path):
    path = put(tmp_path / "x.flo", b"PIEH" + struct.pack("<ii8f", 2, 2, *range(8)))
    read, _ = formats.read_flo(path)
    np.testing.assert_array_equal(read, np.arange(8).reshape(2, 2, 2))
    formats.write_flo(tmp_path / "y.flo", read)
    assert (tmp_path / "y.flo").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("order", "scale"), [("<", b"-1.0"), (">", b"1.0"), ("<", b"-1e0")])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_pfm_byte_orders_and_rows(tmp_path, order, scale, end):
    values = np.arange(12, dtype=f"{order}f4")  # two rows of two pixels, the bottom one first
    path = put(tmp_path / "x.pfm", end.join((b"PF", b"2 2", scale, values.tobytes())))
    read, _ = read_flow(path)
    np.testing.assert_array_equal(read, [[[6, 7], [9, 10]], [[0, 1], [3, 4]]])
    assert read.dtype == np.float32


def test_pfm_of_one_channel(tmp_path):
    path = tmp_path / "x.pfm"
    formats.write_float_map(path, np.arange(6, dtype=np.float32).reshape(2, 3, 1))
    assert path.read_bytes() == b"Pf\n3 2\n-1.0\n" + struct.pack("<6f", 3, 4, 5, 0, 1, 2)
    with pytest.raises(UserError, match="it has one channel"):
        read_flow(path)


def test_kitti_by_hand(tmp_path):
    pixels = np.array([[[1, 32768 + 64, 32768 - 128], [0, 5, 6]]], np.uint16)  # valid, v, u
    put(tmp_path / "x.png", cv2.imencode(".png", pixels)[1].tobytes())
    read, mask = formats.read_kitti_png(tmp_path / "x.png")
    np.testing.assert_array_equal(read, [[[-2, 1], [0, 0]]])
    np.testing.assert_array_equal(mask, [[[255], [0]]])


def test_kitti_rounds_and_clips(tmp_path):
    flow = np.float32([[[600, -600], [1 / 64 * 0.6, -1 / 64 * 0.6], [511.984375, -512]]])
    formats.write_kitti_png(tmp_path / "x.png", flow)
    stored = cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, [[[1, 0, 65535], [1, 32767, 32769], [1, 0, 65535]]])
    read, _ = formats.read_kitti_png(tmp_path / "x.png")
    assert read[0, 0, 0] == 65535 / 64 - 512  # not -424 px
    flow[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        formats.write_kitti_png(tmp_path / "y.png", flow)
    assert not (tmp_path / "y.png").exists()


@pytest.mark.parametrize("mask", [np.uint8([[1], [0]]), np.bool_([[[True]], [[False]]])])
def test_npz_with_a_mask_of_its_own(tmp_path, mask):
    data = numpy_file(flow=np.ones((2, 1, 2)), mask=mask)
    read, known = read_flow(put(tmp_path / "x.npz", data))
    assert known.ravel().tolist() == [255, 0]
    assert read.ravel().tolist() == [1, 1, 0, 0]


def test_float64_beyond_float32_is_unknown(tmp_path):
    np.save(tmp_path / "x.npy", np.full((1, 1, 2), 1e200))
    assert read_flow(tmp_path / "x.npy")[1].item() == 0


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.flo", b"some words of text", "magic"),
        ("a.flo", b"PIEH\1\0", "ends inside the header"),
        ("a.flo", flo(2, 1, bytes(15)), "cut short"),
        ("a.flo", flo(2, 1, bytes(17)), "followed by something else"),
        ("a.flo", flo(-2, -2, bytes(32)), "absurd size"),
        ("a.flo", flo(70000, 1, bytes(8)), "absurd size"),
        ("a.flo", flo(60000, 60000, bytes(8)), "cut short"),
        ("a.flo", struct.pack(">fii", 202021.25, 1, 1) + bytes(8), "magic"),
        ("a.pfm", b"some words of text", "header"),
        ("a.pfm", b"PF\n2 2\n-1e\n" + bytes(48), "header"),
        ("a.pfm", b"PF\n-2 2\n-1\n" + bytes(48), "header"),
        ("a.pfm", b"PF\n2 0\n-1\n", "absurd size"),
        ("a.pfm", b"PF\n2 2\n-1\n" + bytes(47), "cut short"),
        ("a.pfm", b"PF\n60000 60000\n-1\n" + bytes(8), "cut short"),
        ("a.pfm", b"PF\n2 2\n-1\n" + bytes(49), "followed by something else"),
        ("a.png", b"some words of text", "no picture of 8 or 16 bit"),
        ("a.png", cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes(), "16-bit"),
        ("a.png", cv2.imencode(".png", np.zeros((2, 2), np.uint16))[1].tobytes(), "16-bit"),
        ("a.png", cv2.imencode(".png", np.zeros((9, 9, 3), np.uint16))[1].tobytes()[:-9], "early"),
        ("a.npy", b"some words of text", "no NumPy file"),
        ("a.npy", b"\x93NUMPY\1\0", "damaged"),
        ("a.npy", pickle.dumps(np.zeros((2, 2, 2))), "no NumPy file"),
        ("a.npz", b"PK\3\4 and no more", "damaged"),
        ("a.npz", numpy_file(uv=np.zeros((2, 2, 2))), "no array named flow"),
        ("a.npz", numpy_file(flow=np.array([{}])), "no NumPy file of numbers"),
        ("a.npz", numpy_file(flow=np.zeros((2, 3, 4))), r"not \(2, 3, 4\)"),
        ("a.npz", numpy_file(flow=np.zeros((2, 3, 2), complex)), "complex"),
        ("a.npz", numpy_file(flow=np.zeros((2, 3, 2)), mask=np.zeros((3, 2))), "does not fit"),
        ("a.txt", b"1 2 3", "suffix is one of .flo, .pfm, .png, .flo5, .npy, .npz"),
    ],
)
def test_unreadable(tmp_path, name, data, reason):
    path = put(tmp_path / name, data)
    with pytest.raises(UserError, match=reason) as caught:
        read_flow(path)
    assert str(caught.value).startswith(f"cannot read {path}: ")
    assert "\n" not in str(caught.value)


def test_a_cut_or_lying_npy(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((9, 9, 2), np.float32))
    data = (tmp_path / "x.npy").read_bytes()
    unclosed = data.replace(b"), }", b",   ")
    for wrong in (data[:-5], data[:100], npy_header(10**8, 10**7, 2) + bytes(16), unclosed):
        assert wrong != data
        with pytest.raises(UserError, match="damaged|header states"):
            read_flow(put(tmp_path / "wrong.npy", wrong))


@pytest.mark.parametrize("suffix", formats.FLOW_SUFFIXES)
def test_missing(tmp_path, flow, suffix):
    with pytest.raises(UserError, match="there is no such file"):
        read_flow(tmp_path / f"x{suffix}")
    with pytest.raises(UserError, match="does not exist"):
        write_flow(tmp_path / "no" / f"x{suffix}", flow)
    for wrong in (flow[..., :1], flow[0], flow[:0]):
        with pytest.raises(ValueError, match="flow"):
            write_flow(tmp_path / f"x{suffix}", wrong)
    assert not list(tmp_path.iterdir())


def test_real_flo(shared):
    """The known share and the mean magnitude of the Middlebury labels (zero flow's EPE)."""
    folder = shared / "data" / "pairs" / "middlebury"
    means = {"RubberWhale": 1.256, "Grove2": 3.090, "Urban2": 8.393, "Venus": 3.802}
    for name, mean in means.items():
        path = folder / name / "flow10.flo"
        flow, mask = read_flow(path)
        raw = cv2.readOpticalFlow(str(path))
        known = (np.abs(raw) <= 1e9).all(axis=2)
        np.testing.assert_array_equal(mask[..., 0] == 255, known)
        np.testing.assert_array_equal(flow, np.where(known[..., None], raw, 0))
        assert np.hypot(*flow[known].T).mean() == pytest.approx(mean, abs=1e-3)


RED = (200, 40, 10)


def smooth(height=60, width=80):
    noise = np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def encode(suffix, bgr):
    return cv2.imencode(suffix, bgr)[1].tobytes()


@pytest.mark.parametrize("suffix", formats.WRITABLE_SUFFIXES)
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


@pytest.mark.parametrize("suffix", formats.WRITABLE_SUFFIXES)
@pytest.mark.parametrize("shape", [(9, 14), (9, 14, 1)])
def test_grey_becomes_three_equal_channels(tmp_path, suffix, shape):
    grey = np.linspace(0, 255, 9 * 14).astype(np.uint8).reshape(shape)
    write_image(tmp_path / f"grey{suffix}", grey)
    read = read_image(tmp_path / f"grey{suffix}")
    np.testing.assert_allclose(read, np.broadcast_to(grey.reshape(9, 14, 1), (9, 14, 3)), atol=6)
    mask = read_mask(tmp_path / f"grey{suffix}")
    assert mask.shape == (9, 14, 1)
    assert ((mask > 0) | (grey.reshape(9, 14, 1) < 6)).all() and set(np.unique(mask)) <= {0, 255}


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
    assert (read_mask(grey) == 255).all()  # the largest, whatever the container would hold


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


def test_exif_orientation_is_applied(tmp_path):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = (255, 0, 0)  # red, on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: to be turned clockwise
    Image.fromarray(image).save(tmp_path / "turned.jpg", exif=exif)
    read = read_image(tmp_path / "turned.jpg")
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
    assert capfd.readouterr().err == ""


def test_a_cut_jpeg_with_a_thumbnail(tmp_path):
    data = encode(".jpg", smooth())
    thumbnail = encode(".jpg", smooth(8, 8))
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + segment + data[2:]
    assert read_image(put(tmp_path / "whole.jpg", whole)).shape == (60, 80, 3)
    with pytest.raises(UserError, match="the JPEG is damaged or ends early"):
        read_image(put(tmp_path / "cut.jpg", whole[:-300]))


def test_what_follows_a_complete_picture_is_ignored(tmp_path):
    junk = b"\xff\xda motion photo \xff\xda"
    for suffix in (".jpg", ".png"):
        data = encode(suffix, smooth())
        read = read_image(put(tmp_path / f"a{suffix}", data + junk))
        np.testing.assert_array_equal(read, read_image(put(tmp_path / f"b{suffix}", data)))


def test_a_wrong_checksum_of_a_png_is_a_fault_but_that_of_a_remark_is_not(tmp_path, capfd):
    data = encode(".png", smooth())
    remark = chunk(b"tEXt", b"key\0value", damage=1)
    assert read_image(put(tmp_path / "x.png", data[:33] + remark + data[33:])).shape == (60, 80, 3)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 0xFF
    with pytest.raises(UserError, match="the PNG is damaged"):
        read_image(put(tmp_path / "x.png", bytes(damaged)))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, ": there is no such file"),
        (b"", ": the file is empty"),
        (b"only a few words\n" * 20, ": it is damaged, incomplete or no picture"),
        (b"\0" * 100, ": it is damaged, incomplete or no picture"),
        (b"P6", ": it is damaged, incomplete or no picture"),
        (b"P6 999999999 999999999 255\n", ": "),
        (b"\xff\xd8", ": "),
        (b"GIF89a......", " as a picture: a GIF is read as a video"),
        (encode(".hdr", np.full((4, 5, 3), 0.5, np.float32)), ": its samples are float32"),
    ],
)
def test_no_picture(tmp_path, capfd, data, reason):
    path = tmp_path / "x.png"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=f"cannot read {path}{reason}"):
        read_image(path)
    assert capfd.readouterr().err == ""


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


def test_arrays_become_what_files_become():
    colour = smooth()
    assert read_image(colour) is not None and (read_image(colour) == colour).all()
    rgba = np.dstack([colour, np.zeros((60, 80), np.uint8)])
    assert (read_image(rgba) == colour).all()
    colour = cv2.normalize(colour, None, 0, 255, cv2.NORM_MINMAX)
    for grey in (colour[..., 0], colour[..., :1], colour[..., 0].astype(np.uint16) * 257):
        read = read_image(grey)
        assert read.dtype == np.uint8 and read.flags.c_contiguous
        assert (read == colour[..., :1]).all()
    for wrong in (colour.astype(np.float32), colour[None, None], colour[..., :2], colour[:0], None):
        with pytest.raises(UserError, match="a picture is"):
            read_image(wrong)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
def test_pil_pictures_become_what_their_files_become(tmp_path, mode):
    colour = cv2.normalize(smooth(), None, 0, 255, cv2.NORM_MINMAX)
    if mode == "I;16":
        picture = Image.fromarray(colour[..., 0].astype(np.uint16) * 4)
    else:
        picture = Image.fromarray(colour).convert(mode)
    picture.save(tmp_path / "x.tiff")
    atol = 1 if mode == "CMYK" else 0
    np.testing.assert_allclose(read_image(picture).astype(int), read_image(tmp_path / "x.tiff").astype(int), atol=atol)


def test_the_bits_of_a_camera_do_not_matter(shared):
    """8 bit, and 10, 12 and 16 bit in 16, give the same pictures."""
    folder = shared / "cases" / "sixteen_bit"
    pictures = read_images(folder / f"same_8bit_{i}.png" for i in (1, 2))
    others = [read_images(folder / f"ten_bit_{i}.png" for i in (1, 2))]
    others += [read_images([p.astype(np.uint16) * factor for p in pictures]) for factor in (16, 257)]
    for other in others:
        for picture, same in zip(pictures, other):
            np.testing.assert_array_equal(same, picture)


def test_a_thermal_pair_fills_eight_bit_with_one_scale():
    """Hundredths of a kelvin, with a hot pixel; the second picture is a little warmer."""
    celsius = np.linspace(0, 20, 60 * 80).reshape(60, 80)
    first, second = (((celsius + warmer + 273.15) * 100).astype(np.uint16) for warmer in (0, 2))
    first[30, 40] = 65535
    read_1, read_2 = (read[..., 0].astype(int) for read in read_images([first, second]))
    assert len(np.unique(read_1)) > 200
    assert abs(np.median(read_2 - read_1) - 2 / 22 * 255) <= 1


def test_most_damage_of_a_jpeg_is_found(shared, tmp_path, capfd):
    assert fails(shared / "cases" / "faults" / "jpg_400_bytes_missing.jpg")
    data = encode(".jpg", cv2.imread(str(shared / "data/pairs/middlebury/RubberWhale/frame10.png")))
    refused = sum(fails(put(tmp_path / "x.jpg", wrong)) for wrong in damaged(data, 60))
    assert refused >= 50
    assert capfd.readouterr().err == ""


def test_what_pngs_remark_is_not_printed(shared, tmp_path, capfd):
    assert fails(shared / "cases" / "faults" / "png_short_idat_crc_right.png")
    data = encode(".png", smooth())
    for kind, content in ((b"iCCP", b"x\0\0nonsense"), (b"gAMA", bytes(4)), (b"pHYs", b"1"), (b"sBIT", b"\xff\0")):
        assert not fails(put(tmp_path / "x.png", data[:33] + chunk(kind, content) + data[33:]))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (17, 33)])
def test_an_interlaced_png(tmp_path, size):
    """PNG specification, 8.2: seven passes over pixels 8, 4, 2 and 1 apart."""
    grey = np.random.RandomState(0).randint(0, 256, size).astype(np.uint8)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for y, x, dy, dx in passes for row in grey[y::dy, x::dx] if row.size]
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", *size[::-1], 8, 0, 0, 0, 1)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    assert (read_image(put(tmp_path / "x.png", data)) == grey[..., None]).all()
    assert (read_images([tmp_path / "x.png"])[0] == grey[..., None]).all()


def fails(path):
    """Whether a picture is refused, as a user names it."""
    try:
        read_images([path])
    except UserError:
        return True
    return False


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_an_animation_is_no_picture(tmp_path, suffix):
    pictures = [Image.fromarray(smooth()), Image.fromarray(255 - smooth())]
    pictures[0].save(tmp_path / f"x{suffix}", save_all=True, append_images=pictures[1:])
    with pytest.raises(UserError, match="it is an animation"):
        read_image(tmp_path / f"x{suffix}")


def test_a_header_takes_no_memory(shared, tmp_path, monkeypatch):
    faults = shared / "cases" / "faults"
    with pytest.raises(UserError, match="its header states 1,024,000,000 pixels, more than 100,000,000"):
        read_image(faults / "bomb_header_only_32000x32000.png")
    write_image(tmp_path / "x.png", smooth())
    write_flow(tmp_path / "x.npz", np.zeros((60, 80, 2)))
    monkeypatch.setenv("MASKFLOWNET_MAX_PIXELS", "4799")
    for read, name in ((read_image, "x.png"), (read_flow, "x.npz")):
        with pytest.raises(UserError, match="4,800 pixels, more than 4,799"):
            read(tmp_path / name)
    monkeypatch.setenv("MASKFLOWNET_MAX_PIXELS", "4800")
    assert read_image(tmp_path / "x.png").shape == (60, 80, 3)
    monkeypatch.setenv("MASKFLOWNET_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="MASKFLOWNET_MAX_PIXELS is a whole number"):
        read_image(tmp_path / "x.png")


def test_members_that_nobody_asked_for_are_not_read(tmp_path):
    """Nor what else an archive may hold: no array, one of records, or a shape of 2^62."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flow.npy", npy(np.ones((2, 3, 2), "<f4")))
        archive.writestr("large.npy", b"no array")
    assert (read_flow(tmp_path / "x.npz")[0] == 1).all()
    records = np.zeros((2, 3), [("u", "f4"), ("v", "f4")])
    for wrong in (npy(records), npy_header(0, 2**62, 2**62), b"", b"no array"):
        for name in ("flow", "mask"):
            with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
                if name != "flow":
                    archive.writestr("flow.npy", npy(np.ones((2, 3, 2))))
                archive.writestr(f"{name}.npy", wrong)
            with pytest.raises(UserError, match="cannot read"):
                read_flow(tmp_path / "y.npz")


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy_header(*shape):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()
