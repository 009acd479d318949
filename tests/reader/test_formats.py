import io
import pickle
import struct

import cv2
import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.formats import (
    FLOW_SUFFIXES,
    read_flo,
    read_flow,
    read_kitti_png,
    read_pfm,
    write_flo,
    write_float_map,
    write_flow,
    write_kitti_png,
)


def put(path, data):
    path.write_bytes(data)
    return path


def flo(width, height, pixels=b""):
    return struct.pack("<fii", 202021.25, width, height) + pixels


def numpy_file(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture
def flow():
    """A flow of 7x5 px in steps of 1/64 px, which every format holds exactly."""
    return np.random.RandomState(0).randint(-6400, 6400, (7, 5, 2)).astype(np.float32) / 64


@pytest.mark.parametrize("suffix", [*FLOW_SUFFIXES, ".FLO"])
def test_round_trip(tmp_path, flow, suffix):
    path = tmp_path / f"flow{suffix}"
    write_flow(path, flow)
    read, mask = read_flow(path)
    np.testing.assert_array_equal(read, flow)
    assert read.dtype == np.float32 and read.flags.writeable and read.flags.c_contiguous
    assert mask.shape == (7, 5, 1) and mask.dtype == np.uint8
    assert (mask == 255).all()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", FLOW_SUFFIXES)
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1)])
def test_round_trip_with_a_mask(tmp_path, flow, suffix, shape):
    known = np.random.RandomState(1).rand(7, 5) < 0.5
    before = flow.copy()
    flow[0, 0], known[0, 0] = np.nan, False  # what an unknown pixel holds does not matter
    before[0, 0] = np.nan
    write_flow(tmp_path / f"flow{suffix}", flow, (known * np.uint8(255)).reshape(shape))
    np.testing.assert_array_equal(flow, before)  # the caller's array is untouched
    read, mask = read_flow(tmp_path / f"flow{suffix}")
    np.testing.assert_array_equal(mask[..., 0], known * 255)
    np.testing.assert_array_equal(read, np.where(known[..., None], flow, 0))


@pytest.mark.parametrize("suffix", [".flo", ".pfm", ".npy", ".npz"])
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
    read, _ = read_flo(path)
    np.testing.assert_array_equal(read, np.arange(8).reshape(2, 2, 2))
    write_flo(tmp_path / "y.flo", read)
    assert (tmp_path / "y.flo").read_bytes() == path.read_bytes()


def test_flo_is_what_opencv_reads(tmp_path, flow):
    write_flo(tmp_path / "x.flo", flow)
    np.testing.assert_array_equal(cv2.readOpticalFlow(str(tmp_path / "x.flo")), flow)


@pytest.mark.parametrize(("order", "scale"), [("<", b"-1.0"), (">", b"1.0"), ("<", b"-1e0")])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_pfm_byte_orders_and_rows(tmp_path, order, scale, end):
    values = np.arange(12, dtype=f"{order}f4")  # two rows of two pixels, the bottom one first
    path = put(tmp_path / "x.pfm", end.join((b"PF", b"2 2", scale, values.tobytes())))
    pixels = read_pfm(path)
    np.testing.assert_array_equal(pixels[1, 0], [0, 1, 2])
    np.testing.assert_array_equal(pixels[0, 1], [9, 10, 11])
    assert pixels.dtype == np.float32
    read, _ = read_flow(path)
    np.testing.assert_array_equal(read, pixels[..., :2])


def test_pfm_of_one_channel(tmp_path):
    path = put(tmp_path / "x.pfm", b"Pf\n3 1\n-1\n" + struct.pack("<3f", 1, 2, 3))
    np.testing.assert_array_equal(read_pfm(path), [[1, 2, 3]])
    with pytest.raises(UserError, match="it has one channel"):
        read_flow(path)


def test_pfm_is_what_opencv_reads(tmp_path, flow):
    write_flow(tmp_path / "x.pfm", flow)
    bgr = cv2.imread(str(tmp_path / "x.pfm"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(bgr[..., 2:0:-1], flow)
    assert (bgr[..., 0] == 0).all()


def test_kitti_by_hand(tmp_path):
    pixels = np.array([[[1, 32768 + 64, 32768 - 128], [0, 5, 6]]], np.uint16)  # valid, v, u
    put(tmp_path / "x.png", cv2.imencode(".png", pixels)[1].tobytes())
    read, mask = read_kitti_png(tmp_path / "x.png")
    np.testing.assert_array_equal(read, [[[-2, 1], [0, 0]]])
    np.testing.assert_array_equal(mask, [[[255], [0]]])


def test_kitti_rounds_and_clips(tmp_path):
    flow = np.float32([[[600, -600], [1 / 64 * 0.6, -1 / 64 * 0.6], [511.984375, -512]]])
    write_kitti_png(tmp_path / "x.png", flow)
    stored = cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, [[[1, 0, 65535], [1, 32767, 32769], [1, 0, 65535]]])
    read, _ = read_kitti_png(tmp_path / "x.png")
    assert read[0, 0, 0] == 65535 / 64 - 512  # not -424 px


def test_kitti_refuses_what_it_cannot_hold(tmp_path, flow):
    flow[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        write_kitti_png(tmp_path / "x.png", flow)
    assert not list(tmp_path.iterdir())


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
        ("a.flo", b"", "the file is empty"),
        ("a.flo", b"some words of text", "magic"),
        ("a.flo", b"PIEH\1\0", "ends inside the header"),
        ("a.flo", flo(2, 1, bytes(15)), "cut short"),
        ("a.flo", flo(2, 1, bytes(17)), "followed by something else"),
        ("a.flo", flo(0, 4), "absurd size 4x0"),
        ("a.flo", flo(-2, -2, bytes(32)), "absurd size"),
        ("a.flo", flo(70000, 1, bytes(8)), "absurd size"),
        ("a.flo", flo(60000, 60000, bytes(8)), "cut short"),
        ("a.flo", struct.pack(">fii", 202021.25, 1, 1) + bytes(8), "magic"),
        ("a.pfm", b"", "the file is empty"),
        ("a.pfm", b"some words of text", "header"),
        ("a.pfm", b"PF\n2 2\n0\n" + bytes(48), "header"),
        ("a.pfm", b"PF\n2 2\n-1e\n" + bytes(48), "header"),
        ("a.pfm", b"PF\n-2 2\n-1\n" + bytes(48), "header"),
        ("a.pfm", b"PF\n2 0\n-1\n", "absurd size"),
        ("a.pfm", b"PF\n2 2\n-1\n" + bytes(47), "cut short"),
        ("a.pfm", b"PF\n2 2\n-1\n" + bytes(49), "followed by something else"),
        ("a.png", b"", "the file is empty"),
        ("a.png", b"some words of text", "not a picture"),
        ("a.png", cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes(), "16-bit"),
        ("a.png", cv2.imencode(".png", np.zeros((2, 2), np.uint16))[1].tobytes(), "16-bit"),
        ("a.png", cv2.imencode(".png", np.zeros((9, 9, 3), np.uint16))[1].tobytes()[:-9], "early"),
        ("a.npy", b"", "the file is empty"),
        ("a.npy", b"some words of text", "no NumPy file"),
        ("a.npy", b"\x93NUMPY\1\0", "damaged"),
        ("a.npy", pickle.dumps(np.zeros((2, 2, 2))), "no NumPy file"),
        ("a.npz", b"PK\3\4 and no more", "damaged"),
        ("a.npz", numpy_file(flow=np.zeros((9, 9, 2)))[:-9], "damaged"),
        ("a.npz", numpy_file(uv=np.zeros((2, 2, 2))), "no array named flow"),
        ("a.npz", numpy_file(flow=np.array([{}])), "no NumPy file of numbers"),
        ("a.npz", numpy_file(flow=np.zeros((2, 3, 4))), r"not \(2, 3, 4\)"),
        ("a.npz", numpy_file(flow=np.zeros((2, 0, 2))), r"not \(2, 0, 2\)"),
        ("a.npz", numpy_file(flow=np.zeros((2, 3, 2), complex)), "complex"),
        ("a.npz", numpy_file(flow=np.zeros((2, 3, 2)), mask=np.zeros((3, 2))), "does not fit"),
        ("a.txt", b"1 2 3", "suffix is one of .flo, .pfm, .png, .npy, .npz"),
    ],
)
def test_unreadable(tmp_path, capfd, name, data, reason):
    path = put(tmp_path / name, data)
    with pytest.raises(UserError, match=reason) as caught:
        read_flow(path)
    assert str(caught.value).startswith(f"cannot read {path}: ")
    assert "\n" not in str(caught.value)


def test_a_cut_or_lying_npy(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((9, 9, 2), np.float32))
    data = (tmp_path / "x.npy").read_bytes()
    huge = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**8, 10**7, 2)}
    np.lib.format.write_array_header_1_0(huge, header)
    unclosed = data.replace(b"), }", b",   ")
    for wrong in (data[:-5], data[:100], huge.getvalue() + bytes(16), unclosed):
        assert wrong != data
        with pytest.raises(UserError, match="damaged"):
            read_flow(put(tmp_path / "wrong.npy", wrong))


def test_a_damaged_npz(tmp_path):
    write_flow(tmp_path / "x.npz", np.zeros((99, 99, 2), np.float32))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[60:90] = b"\xff" * 30
    with pytest.raises(UserError, match="damaged"):
        read_flow(put(tmp_path / "wrong.npz", bytes(data)))


@pytest.mark.parametrize("suffix", FLOW_SUFFIXES)
def test_missing(tmp_path, flow, suffix):
    with pytest.raises(UserError, match="there is no such file"):
        read_flow(tmp_path / f"x{suffix}")
    with pytest.raises(UserError, match="does not exist"):
        write_flow(tmp_path / "no" / f"x{suffix}", flow)
    for wrong, mask in ((flow[..., :1], None), (flow[0], None), (flow[:0], None), (flow, flow)):
        with pytest.raises(ValueError, match="flow"):
            write_flow(tmp_path / f"x{suffix}", wrong, mask)
    assert not list(tmp_path.iterdir())


def test_unknown_suffix_on_writing(tmp_path, flow):
    with pytest.raises(UserError, match="suffix is one of .flo, "):
        write_flow(tmp_path / "x.tiff", flow)


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
        np.testing.assert_array_equal(flow[known], raw[known])
        assert (flow[~known] == 0).all()
        assert np.hypot(*flow[known].T).mean() == pytest.approx(mean, abs=1e-3)
    flow, mask = read_flow(folder / "RubberWhale" / "flow10.flo")
    assert 0 < (mask == 0).sum() < mask.size / 10


def test_real_kitti(shared, tmp_path):
    folder = shared / "data" / "pairs" / "kitti" / "flowpy_000010"
    flow, mask = read_flow(folder / "flow_occ.png")
    assert flow.shape == (375, 1242, 2)
    noc, noc_mask = read_flow(folder / "flow_noc.png")
    assert 0 < (noc_mask == 255).sum() < (mask == 255).sum() < mask.size
    np.testing.assert_array_equal(flow[noc_mask[..., 0] == 255], noc[noc_mask[..., 0] == 255])
    write_flow(tmp_path / "x.png", flow, mask)
    again, again_mask = read_flow(tmp_path / "x.png")
    np.testing.assert_array_equal(again, flow)
    np.testing.assert_array_equal(again_mask, mask)


def test_real_flow_of_other_sets(shared):
    pairs = shared / "data" / "pairs"
    for name, size in {"sintel/alley_1_0002_clean": (436, 1024), "flyingchairs/flownet2_0000000": (384, 512)}.items():
        flow, mask = read_flow(pairs / name / "flow.flo")
        assert flow.shape == (*size, 2)
        assert (mask == 255).all()
        assert 0 < np.abs(flow).max() < 200


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1)])
def test_a_map_of_one_channel_as_pfm(tmp_path, shape):
    values = np.random.RandomState(0).rand(*shape).astype(np.float32)
    write_float_map(tmp_path / "x.pfm", values)
    assert (tmp_path / "x.pfm").read_bytes().startswith(b"Pf\n5 3\n-1.0\n")
    assert (read_pfm(tmp_path / "x.pfm") == values.reshape(3, 5)).all()
    with pytest.raises(ValueError, match="one channel"):
        write_float_map(tmp_path / "y.pfm", np.zeros((3, 5, 2)))
