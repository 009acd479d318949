"""reader/textures.py: which pictures are found, what they become, what is refused."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from maskflownet.errors import DataError
from maskflownet.scenes.textures import BUNDLED, MAX_SIDE, Textures


def picture(height=40, width=60, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def test_bundled_pictures_are_found_without_importing_scikit_image():
    textures = Textures()
    assert len(textures.photographs) == len(BUNDLED)
    assert textures.cutouts == []
    for index in range(len(BUNDLED)):
        level = textures.photograph(index)[0]
        assert level.shape[2] == 3
        assert level.std() > 10
    code = "import sys; from reader.textures import Textures; Textures(); print('skimage' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_folder_is_sorted_recursive_and_split_by_alpha(tmp_path):
    (tmp_path / "b").mkdir()
    red = np.full((40, 60, 3), (0, 0, 255), np.uint8)  # BGR, as OpenCV writes
    cv2.imwrite(str(tmp_path / "b" / "red.png"), red)
    cv2.imwrite(str(tmp_path / "c.jpg"), picture())
    cv2.imwrite(str(tmp_path / "a.png"), picture(channels=4) | 128)
    cv2.imwrite(str(tmp_path / "grey.png"), picture(channels=1))
    (tmp_path / "notes.txt").write_text("not a picture")
    textures = Textures(tmp_path)
    assert [p.name for p in textures.photographs] == ["red.png", "c.jpg", "grey.png"]
    assert [p.name for p in textures.cutouts] == ["a.png"]
    assert textures.photograph(0)[0][0, 0].tolist() == [255, 0, 0]
    assert textures.photograph(2)[0].shape == (40, 60, 3)
    assert textures.cutout(0)[0].shape == (40, 60, 4)


def test_sixteen_bit_grey_keeps_its_brightness(tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((40, 60), 128 * 257, np.uint16))
    assert (Textures(tmp_path).photograph(0)[0] == 128).all()


def test_large_pictures_are_reduced_and_levels_halve(tmp_path):
    cv2.imwrite(str(tmp_path / "large.jpg"), picture(500, 2 * MAX_SIDE))
    levels = Textures(tmp_path).photograph(0)
    assert levels[0].shape == (250, MAX_SIDE, 3)
    assert levels[1].shape == (125, MAX_SIDE // 2, 3)
    assert not levels[0].flags.writeable


def test_transparent_pixels_take_the_nearest_opaque_colour(tmp_path):
    pixels = np.zeros((40, 60, 4), np.uint8)  # transparent black
    pixels[10:30, 10:30] = (10, 20, 200, 255)
    cv2.imwrite(str(tmp_path / "cut.png"), pixels)
    cv2.imwrite(str(tmp_path / "photo.png"), picture())
    level = Textures(tmp_path).cutout(0)[0]
    assert (level[..., :3] == (200, 20, 10)).all()
    assert level[0, 0, 3] == 0


def test_refusals_name_the_path(tmp_path):
    with pytest.raises(DataError, match="absent"):
        Textures(tmp_path / "absent")
    with pytest.raises(DataError, match=tmp_path.name):
        Textures(tmp_path)
    cv2.imwrite(str(tmp_path / "cut.png"), picture(channels=4))
    with pytest.raises(DataError, match="no photograph"):
        Textures(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        Textures(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_half_a_file_is_an_error_when_it_is_used(tmp_path, suffix):
    path = tmp_path / f"half{suffix}"
    cv2.imwrite(str(path), picture(200, 200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"half\\{suffix}"):
        Textures(tmp_path).photograph(0)


def test_useless_pictures_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "clear.png"), np.zeros((40, 60, 4), np.uint8))
    cv2.imwrite(str(tmp_path / "tiny.png"), picture(8, 60))
    textures = Textures(tmp_path)
    with pytest.raises(DataError, match=r"clear\.png"):
        textures.cutout(0)
    with pytest.raises(DataError, match=r"tiny\.png"):
        textures.photograph(0)
