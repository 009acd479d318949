"""The synthetic set: image pairs with exact flow, made on the fly or written to disk."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from maskflownet.errors import DataError
from maskflownet.reader.files import atomic_path, write_bytes
from maskflownet.reader.formats import write_flo, write_image
from maskflownet.reader.sample import Sample
from maskflownet.scenes.options import SceneOptions
from maskflownet.scenes.render import Scene, check_arguments, render_scene
from maskflownet.scenes.textures import Textures
from tqdm import tqdm

SPLIT_FILE = "FlyingChairs_train_val.txt"
RECORD_FILE = "synthetic.json"  # what made the folder, so that a restart cannot mix two sets


class Synthetic:
    """Scenes 0 .. length - 1 of a seed, rendered when asked for and not kept.

    Parameters
    ----------
    length : int
        Number of pairs; a larger set begins with the same pairs.
    height, width : int
        px.
    seed : int
        Scene i of a seed is always the same scene.
    textures : str or Path, optional
        Folder of pictures; default: the pictures that scikit-image ships.
    options : SceneOptions, optional
        The difficulty.

    Raises
    ------
    DataError
        If the set is empty or the textures cannot be used.
    ValueError
        If the seed is negative or the size below 16 px.
    """

    def __init__(
        self,
        length: int,
        height: int = 320,
        width: int = 448,
        seed: int = 0,
        textures: str | Path | None = None,
        options: SceneOptions | None = None,
    ) -> None:
        if length < 1:
            raise DataError(f"a synthetic set of {length} pairs is empty")
        check_arguments(seed, 0, height, width)
        self.length = length
        self.height = height
        self.width = width
        self.seed = seed
        self.folder = textures
        self.textures = Textures(textures)
        self.options = options or SceneOptions()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Render a pair; its label is valid everywhere, occluded pixels included."""
        scene = self.scene(index)
        name = f"synthetic_{self.seed}/{index % self.length:05d}"
        return Sample(scene.img1, scene.img2, scene.flow, None, name)

    def scene(self, index: int) -> Scene:
        """Render a pair with its occlusion mask.

        Raises
        ------
        IndexError
            If there is no such pair.
        """
        if not -self.length <= index < self.length:
            raise IndexError(f"pair {index} of a synthetic set of {self.length}")
        index = index % self.length
        return render_scene(self.textures, self.seed, index, self.height, self.width, self.options)

    def occlusion(self, index: int) -> np.ndarray:
        """Return (H, W, 1) uint8, 255 = not visible in image 2."""
        return self.scene(index).occlusion

    def noc(self, index: int) -> None:  # noqa: ARG002
        """Return None: there is no second label; `occlusion` tells the same."""

    def record(self) -> dict:
        """Everything that decides what a pair looks like, for a JSON file; not the length."""
        return {
            "size": [self.height, self.width],
            "seed": self.seed,
            "textures": [p.name for p in self.textures.photographs + self.textures.cutouts],
            "options": asdict(self.options),
        }


def write_chairs(dataset: Synthetic, folder: str | Path, validation_every: int = 36) -> None:
    """Write a synthetic set in the layout of FlyingChairs.

    ``data/%05d_img1.ppm``, ``_img2.ppm``, ``_flow.flo`` and, beyond that layout, ``_occ.png`` (255
    = occluded), numbered from 1, and ``FlyingChairs_train_val.txt`` with 1 = training and 2 =
    validation. Pairs that are complete stay, so that a run that was stopped, or is to be made
    longer, goes on.

    Parameters
    ----------
    dataset : Synthetic
    folder : str or Path
        Made if absent.
    validation_every : int
        Every pair of which the number is a multiple of this is for validation, 0 = none. 36 is the
        share of FlyingChairs.

    Raises
    ------
    DataError
        If the folder holds another set or cannot be written.
    """
    folder = Path(folder)
    data = folder / "data"
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{data}: cannot be made ({error.strerror})") from error
    _check_record(folder, dataset)
    beyond = [p for p in data.glob("*_img1.ppm") if int(p.name.split("_")[0]) > len(dataset)]
    if beyond:
        raise DataError(f"{folder}: already holds {min(beyond).name}, beyond {len(dataset)} pairs")
    for index in tqdm(range(len(dataset)), desc=str(folder), unit="pair", disable=None):
        names = ("img1.ppm", "img2.ppm", "flow.flo", "occ.png")
        img1, img2, flow, occlusion = (data / f"{index + 1:05d}_{name}" for name in names)
        if all(path.is_file() for path in (img1, img2, flow, occlusion)):
            continue
        scene = dataset.scene(index)
        write_image(img1, scene.img1)
        write_image(img2, scene.img2)
        write_flo(flow, scene.flow)
        write_image(occlusion, scene.occlusion)
    numbers = range(1, len(dataset) + 1)
    lines = ["2" if validation_every and n % validation_every == 0 else "1" for n in numbers]
    write_bytes(folder / SPLIT_FILE, ("\n".join(lines) + "\n").encode("ascii"))
    held_out = lines.count("2")
    print(f"{folder}: {len(lines) - held_out} pairs for training, {held_out} for validation")


def _check_record(folder: Path, dataset: Synthetic) -> None:
    """Refuse a folder that holds other pairs; write down what this one holds."""
    path = folder / RECORD_FILE
    record = dataset.record()
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}") from error
        if not isinstance(found, dict):
            raise DataError(f"{path}: not a record of a synthetic set")
        if isinstance(found.get("options"), dict):  # options that did not exist yet were off
            found["options"] = {**asdict(SceneOptions()), **found["options"]}
        keys = [key for key in record if found.get(key) != record[key]]
        if keys:
            raise DataError(f"{folder}: holds a synthetic set with other {', '.join(keys)}")
    elif any((folder / "data").iterdir()):
        raise DataError(f"{folder / 'data'}: holds files but there is no {RECORD_FILE} beside it")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not H,W in px, such as 384,512") from None
    return height, width


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m maskflownet.scenes.synthetic",
        description="Write synthetic image pairs with exact flow in the layout of FlyingChairs, "
        "with occlusion masks. A stopped run goes on where it was; a set can be made longer.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="where to write")
    parser.add_argument("--count", type=int, default=1000, help="number of pairs (default 1000)")
    parser.add_argument(
        "--size", type=_size, default=(384, 512), metavar="H,W",
        help="height and width of the pictures in px (default 384,512)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set (default 0)")
    parser.add_argument(
        "--textures", metavar="DIR",
        help="folder of pictures, searched recursively; those with an alpha channel are cut-outs "
        "(default: the pictures that scikit-image ships)",
    )  # fmt: skip
    parser.add_argument(
        "--validation-every", type=int, default=36, metavar="N",
        help="every N-th pair is for validation, 0 for none (default 36)",
    )  # fmt: skip
    parser.add_argument("--traceback", action="store_true", help="show where an error occurred")
    options = parser.parse_args(arguments)
    try:
        if options.validation_every < 0:
            raise ValueError(f"--validation-every is {options.validation_every}, not 0 or more")
        dataset = Synthetic(options.count, *options.size, options.seed, options.textures)
        write_chairs(dataset, options.folder, options.validation_every)
    except (DataError, ValueError) as error:
        if options.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
