"""Pictures for synthetic scenes out of Debian's packages, at the sizes that scenes use.

    python -m maskflownet.tools.textures FOLDER gnome-backgrounds openclipart-png [--limit 400]

`apt-get` downloads each package, or a .deb file is given. FOLDER/PACKAGE holds its pictures and their licences.
"""

import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from maskflownet.errors import UserError
from maskflownet.scenes.synthetic import CUTOUT_SIDE, PHOTOGRAPH_SIDES
from maskflownet.settings.cli import Parser, count, run
from PIL import Image, ImageStat
from tqdm import tqdm

SIDES = {"photos": (256, *PHOTOGRAPH_SIDES), "cutouts": (96, CUTOUT_SIDE, CUTOUT_SIDE)}  # px: the least, two largest
NO_COLOURS = re.compile(r"[_-](norm|normal|local|nm|bump|gloss|glow|spec|luma|mask)$", re.IGNORECASE)
FORMATS = ("PNG", "JPEG", "TGA", "BMP", "TIFF", "WEBP")  # what Pillow reads by itself, for certain
LEAST_CONTRAST = 20  # standard deviation of the brightness, of 255
CLEAR = 0.1, 0.9  # share of a cut-out's pixels that are transparent


def texture(path: Path) -> tuple[str, Image.Image] | None:
    """The kind of a picture, "photos" or "cutouts", and the picture scaled down; None for what scenes cannot use."""
    try:
        with Image.open(path, formats=FORMATS) as opened:
            picture = opened.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    clear = ImageStat.Stat(picture.getchannel("A").point(lambda alpha: 255 * (alpha < 128))).mean[0] / 255
    kind = "cutouts" if clear else "photos"
    least, *most = SIDES[kind]
    if min(picture.size) < least or NO_COLOURS.search(path.stem) or (clear and not CLEAR[0] < clear < CLEAR[1]):
        return None
    if not clear:
        picture = picture.convert("RGB")
        if ImageStat.Stat(picture.convert("L")).stddev[0] < LEAST_CONTRAST:
            return None
    picture.thumbnail(most[::-1] if picture.width > picture.height else most)
    return kind, picture


def collect(folder: Path, package: str, limit: int) -> None:
    """Write at most so many pictures of a package, evenly out of all that are usable, and its licences."""
    name = Path(package).stem.split("_")[0] if package.endswith(".deb") else package
    target = folder / name
    if target.exists():
        raise UserError(f"{target} exists already: remove it, or name another FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as work:
        if not package.endswith(".deb"):
            _call("apt-get", "download", package, cwd=work)
        archive = next(Path(work).glob("*.deb"), Path(package))
        _call("dpkg-deb", "-x", archive, f"{work}/tree")
        for archived in (path for path in _files(work) if path.suffix == ".pk3"):  # of games
            try:
                with ZipFile(archived) as pictures:
                    pictures.extractall(f"{archived}.d")
            except (BadZipFile, RuntimeError, zlib.error) as error:
                raise UserError(f"{archived.name} of {package} is damaged or encrypted ({error})") from error
        found = _files(work)
        usable = [path for path in tqdm(found, desc=name, unit="file", disable=None) if texture(path)]
        licences = [path for path in found if path.name == "copyright"]
        if not (usable and licences):
            lacks = "picture that scenes can use" if licences else "file of licences, copyright"
            raise UserError(f"{archive} has no {lacks}")
        made = Path(work, "made")
        made.mkdir()
        (made / "copyright").write_bytes(licences[0].read_bytes())
        chosen = usable[:: -(-len(usable) // limit)]
        for number, path in enumerate(chosen):
            kind, picture = texture(path)
            suffix = "jpg" if kind == "photos" else "png"
            picture.save(made / f"{number:04d}_{path.stem}.{suffix}", quality=90)
        shutil.move(made, target)
        print(f"{target}: {len(chosen)} pictures; {len(usable)} of its {len(found)} files can be used")


def _files(folder: str) -> list[Path]:
    return sorted(path for path in Path(folder, "tree").rglob("*") if path.is_file() and not path.is_symlink())


def _call(*command, **options) -> None:
    try:
        subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True, **options)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{command[0]} failed: {getattr(error, 'stderr', None) or error}".strip()) from error


def main(arguments: list[str]) -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write")
    parser.add_argument("packages", nargs="+", metavar="PACKAGE", help="names, or .deb files")
    parser.add_argument("--limit", type=count, default=400, metavar="N", help="pictures of a package (default 400)")
    args = parser.parse_args(arguments)
    for package in args.packages:
        collect(args.folder, package, args.limit)


if __name__ == "__main__":
    sys.exit(run(main))
