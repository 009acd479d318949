"""Files that nobody meant: mutated pictures, flows and videos work or end in one sentence, and nothing else is printed.

MASKFLOWNET_FUZZ=100 tries 100 times as many, other ones at every call.
"""

import os
import struct
import zlib
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from maskflownet.errors import UserError
from maskflownet.reader.formats import FLOW_SUFFIXES, WRITABLE_SUFFIXES, read_flow, read_image, read_images, write_flow
from maskflownet.reader.video import VIDEO_SUFFIXES, VideoReader
from maskflownet.scenes.synthetic import Textures

from tests.videos import make

PICTURE = cv2.GaussianBlur(np.random.RandomState(0).randint(0, 256, (24, 32, 3)).astype(np.uint8), (0, 0), 2)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["put", "insert", "remove", "cut"]),
        st.floats(0, 1, exclude_max=True),  # where
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])),
    ),
    min_size=1,
    max_size=4,
)
MORE = int(os.environ.get("MASKFLOWNET_FUZZ", "1"))
FUZZ = settings(
    max_examples=50 * MORE, deadline=None, database=None, derandomize=MORE == 1, suppress_health_check=list(HealthCheck)
)


def mutated(data: bytes, edits) -> bytes:
    for kind, place, content in edits:
        at = int(place * len(data))
        match kind:
            case "put":
                data = data[:at] + content + data[at + len(content) :]
            case "insert":
                data = data[:at] + content + data[at:]
            case "remove":
                data = data[:at] + data[at + 8 * len(content) :]
            case "cut":
                data = data[: max(at, len(data) // 2)]
    return data


def with_checksums(data: bytes) -> bytes:
    """A PNG whose damage its checksums do not tell."""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        data = data[:end] + struct.pack(">I", zlib.crc32(data[position + 4 : end])) + data[end + 4 :]
        position = end + 4
    return data


def works_or_says_why(read, path, data: bytes, capfd) -> None:
    path.write_bytes(data)
    try:
        read(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [*WRITABLE_SUFFIXES, ".16.png", ".hdr"])
@FUZZ
@given(edits=EDITS)
def test_pictures(tmp_path, capfd, suffix, edits):
    picture = {".16.png": PICTURE.astype(np.uint16) * 4, ".hdr": PICTURE.astype(np.float32)}.get(suffix, PICTURE)
    data = mutated(cv2.imencode(suffix[-4:] if suffix == ".16.png" else suffix, picture)[1].tobytes(), edits)
    path = tmp_path / f"x{suffix}"
    works_or_says_why(lambda path: read_images([path]), path, data, capfd)
    if suffix.endswith(".png"):
        works_or_says_why(lambda path: read_images([path]), path, with_checksums(data), capfd)


@pytest.mark.parametrize("suffix", FLOW_SUFFIXES)
@FUZZ
@given(edits=EDITS)
def test_flows(tmp_path, capfd, suffix, edits):
    path = tmp_path / f"x{suffix}"
    write_flow(path, np.ones((6, 8, 2), np.float32), np.ones((6, 8)))
    works_or_says_why(read_flow, path, mutated(path.read_bytes(), edits), capfd)


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
@FUZZ
@given(edits=EDITS)
def test_videos(tmp_path, capfd, suffix, edits):
    data = make(tmp_path / f"x{suffix}", 4, Fraction(25), 24, 32).read_bytes()
    works_or_says_why(VideoReader, tmp_path / f"x{suffix}", mutated(data, edits), capfd)


@FUZZ
@given(edits=EDITS)
def test_textures(tmp_path, capfd, edits):
    data = cv2.imencode(".png", PICTURE)[1].tobytes()
    (tmp_path / "textures").mkdir(exist_ok=True)
    for content in (mutated(data, edits), with_checksums(mutated(data, edits))):
        works_or_says_why(
            lambda _: Textures(tmp_path / "textures").bank(), tmp_path / "textures" / "x.png", content, capfd
        )


@pytest.mark.parametrize("kind", ["Npz", "Tex"])
def test_files_that_once_broke_a_loader(shared, kind):
    for path in (shared / "cases" / "faults" / "fuzz" / kind).iterdir():
        try:
            (read_flow if kind == "Npz" else read_image)(path)
        except UserError as error:
            assert str(path) in str(error)
