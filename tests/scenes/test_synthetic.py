"""The pictures of synthetic scenes: what is refused, left out and read."""

import cv2
import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.scenes import synthetic
from maskflownet.scenes.synthetic import Textures


@pytest.mark.parametrize(
    ("shapes", "value", "said"),
    [
        ({}, 0, "no photograph"),
        ({"cut.png": (64, 64, 4)}, 255, "no photograph"),
        ({"tiny.png": (8, 64, 3)}, 0, "smaller than 16"),
        ({"a.png": (64, 64, 3), "clear.png": (64, 64, 4)}, 0, "opaque"),
    ],
)
def test_faults_are_named(tmp_path, shapes, value, said):
    for name, shape in shapes.items():
        cv2.imwrite(str(tmp_path / name), np.full(shape, value, np.uint8))
    with pytest.raises(UserError, match=said):
        Textures(tmp_path).bank()


def test_a_cut_picture_and_a_folder_that_is_not_there_are_named(tmp_path):
    _, data = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    (tmp_path / "cut_off.png").write_bytes(data.tobytes()[: len(data) // 2])
    for folder, said in ((tmp_path, "cut_off.png"), (tmp_path / "textures", "no such folder")):
        with pytest.raises(UserError, match=said):
            Textures(folder).bank()


def test_pictures_beyond_the_bank_are_left_out_with_a_warning(tmp_path, monkeypatch):
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((480, 640, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "cut.png"), np.full((64, 64, 4), 255, np.uint8))
    monkeypatch.setattr(synthetic, "BANK_BYTES", 4_000_000)
    with pytest.warns(UserWarning, match="1 of 4 textures are left out"):
        bank = Textures(tmp_path).bank()
    assert bank.texels.nbytes <= 4_000_000 and bank.photographs == 2 and len(bank.first) == 3


def test_grey_and_deep_pictures_are_textures(tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((64, 64), 257 * 200, np.uint16))
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64), 50, np.uint8))
    (tmp_path / "._grey.png").write_bytes(b"what macOS leaves beside files")
    np.testing.assert_allclose(Textures(tmp_path).bank().mean, [[200] * 3, [50] * 3])
