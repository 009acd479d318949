"""The commands that write synthetic pairs, and collect pictures for them."""

import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.formats import read_flo, read_image
from maskflownet.scenes.synthetic import Synthetic
from maskflownet.settings.cli import run
from maskflownet.tools import textures
from maskflownet.tools.synthetic import main, write_chairs

from tests.programs import python


def test_write_chairs_is_readable_and_goes_on(tmp_path):
    folder = tmp_path / "chairs"
    write_chairs(Synthetic(2, 64, 96, 5), folder, validation_every=2)
    kept = folder / "data" / "00002_img1.ppm"
    stamp = kept.stat().st_mtime_ns
    (folder / "data" / "00001_occ.png").unlink()
    write_chairs(Synthetic(3, 64, 96, 5), folder, validation_every=2, workers=1)
    assert kept.stat().st_mtime_ns == stamp
    for index in (0, 2):
        stem, (sample, occlusion, _) = str(folder / f"data/{index + 1:05d}_"), Synthetic(3, 64, 96, 5).labelled(index)
        np.testing.assert_array_equal(read_image(f"{stem}img1.ppm"), sample.img1)
        np.testing.assert_array_equal(read_flo(f"{stem}flow.flo")[0], sample.flow)
        np.testing.assert_array_equal(cv2.imread(f"{stem}occ.png", cv2.IMREAD_UNCHANGED), occlusion[..., 0])
    assert (folder / "FlyingChairs_train_val.txt").read_text() == "1\n2\n1\n"
    with pytest.raises(UserError, match="holds other pairs"):
        write_chairs(Synthetic(3, 64, 96, 6), folder)
    with pytest.raises(UserError, match="beyond 2 pairs"):
        write_chairs(Synthetic(2, 64, 96, 5), folder)


@pytest.mark.parametrize(
    ("others", "said"),
    [(["--textures", "nowhere"], "nowhere: no such folder of textures"), (["--size", "8,64"], "8x64 px is smaller"),
     (["--count", "0"], "'0' is not a whole number above 0")],
)  # fmt: skip
def test_faults_are_one_sentence(tmp_path, others, said, capsys):
    assert run(main, [str(tmp_path / "out"), *others]) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1


def test_without_pytorch_it_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; from maskflownet.settings.cli import run; "
        "from maskflownet.tools.synthetic import main; sys.exit(run(main, ['x']))"
    )
    done = python("-c", code, cwd=tmp_path)
    said = "error: synthetic scenes need PyTorch, which is not installed: pip install torch\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no package can be made")
def test_pictures_out_of_a_package(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (700, 1000, 4), np.uint8)
    noise[..., 3] = 255 * (np.arange(1000) < 500)
    pictures = {
        "sea": noise[..., :3], "sea_norm": noise[..., :3], "fog": noise[..., :3] // 99, "small": noise[:90, :, :3],
        "bird": noise, "veil": noise[:, :520],
    }  # fmt: skip
    for folder in ("DEBIAN", "doc"):
        (tmp_path / "tree" / folder).mkdir(parents=True)
    Path("tree/DEBIAN/control").write_text("Package: a\nVersion: 1\nArchitecture: all\nMaintainer: b\nDescription: c\n")
    Path("tree/doc/copyright").write_text("free")
    Path("tree/doc/damaged.png").write_text("no picture")
    for name, picture in pictures.items():
        cv2.imwrite(f"tree/{name}.png", picture)
    with ZipFile("tree/game.pk3", "w") as game:
        game.write("tree/bird.png", "art/bird.png")
    subprocess.run(["dpkg-deb", "--build", "tree", "views_1_all.deb"], check=True, capture_output=True)
    assert run(textures.main, ["out", "views_1_all.deb"]) == 0
    assert "out/views: 3 pictures; 3 of its 10 files" in capsys.readouterr().out
    photograph, cutout = (cv2.imread(f"out/views/{name}", -1) for name in ("0002_sea.jpg", "0000_bird.png"))
    assert (photograph.shape, cutout.shape) == ((602, 860, 3), (179, 256, 4))
    assert Path("out/views/copyright").read_text() == "free"
    assert run(textures.main, ["out", "views_1_all.deb"]) == 2 and "exists already" in capsys.readouterr().err
    assert run(textures.main, ["one", "views_1_all.deb", "--limit", "1"]) == 0
    assert {path.name for path in Path("one/views").iterdir()} == {"copyright", "0000_bird.png"}
    assert run(textures.main, ["out", "nowhere.deb"]) == 2 and "dpkg-deb failed" in capsys.readouterr().err
