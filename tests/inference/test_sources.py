"""Pairs, folders and videos as streams of pairs."""

from fractions import Fraction

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.inference.sources import Folder, Pair, Video
from maskflownet.reader.formats import write_image
from maskflownet.reader.video import VideoWriter


def frame(number, height=32, width=48):
    return np.full((height, width, 3), 20 * number, np.uint8)


@pytest.fixture
def folder(tmp_path):
    for number in (1, 2, 10):
        write_image(tmp_path / f"frame_{number}.png", frame(number))
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.fixture
def video(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", Fraction(10), 32, 48) as writer:
        for number in range(1, 6):
            writer.write(frame(number))
    return tmp_path / "clip.mp4"


def values(pairs):
    return [tuple(round(float(image.mean()) / 20) for image in pair) for pair in pairs]


def test_a_folder_is_paired_in_natural_order(folder):
    source = Folder(folder)
    assert (source.count, source.height, source.width) == (2, 32, 48)
    assert values(source.pairs()) == [(1, 2), (2, 10)]


def test_a_video_is_paired_frame_by_frame(video):
    source = Video(video)
    assert (source.count, source.height, source.width, source.rate) == (4, 32, 48, 10)
    assert values(source.pairs()) == [(1, 2), (2, 3), (3, 4), (4, 5)]
    assert values(source.pairs()) == [(1, 2), (2, 3), (3, 4), (4, 5)]  # again from the start


@pytest.mark.parametrize(("number", "sampled"), [(1, [1]), (2, [1, 4]), (3, [1, 2, 4]), (9, [1, 2, 3, 4])])
def test_samples_are_spread(video, number, sampled):
    assert [first for first, _ in values(Video(video).sample(number))] == sampled


def test_wrong_folders_are_one_sentence(folder, tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        Folder(tmp_path / "none")
    write_image(tmp_path / "frame_3.png", frame(3, 30))
    with pytest.raises(UserError, match=r"frame_1\.png and .*frame_3\.png differ in size: 32x48"):
        Folder(folder)
    (tmp_path / "frame_3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"frame_3\.png"):
        Folder(folder)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="holds 0 pictures"):
        Folder(folder)


def test_a_video_of_one_frame_is_refused(tmp_path):
    with VideoWriter(tmp_path / "one.gif", Fraction(10), 32, 48) as writer:
        writer.write(frame(1))
    with pytest.raises(UserError, match="a single frame"):
        Video(tmp_path / "one.gif")


def test_a_pair_of_two_sizes_names_both(tmp_path):
    write_image(tmp_path / "a.png", frame(1))
    write_image(tmp_path / "b.png", frame(1, 16, 48))
    with pytest.raises(UserError, match=r"a\.png and .*b\.png differ in size: 32x48 and 16x48"):
        Pair(tmp_path / "a.png", tmp_path / "b.png")
