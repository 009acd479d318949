"""The synthetic set: image pairs with exact flow, made on the fly or written to disk."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.errors import UserError
from maskflownet.reader.files import atomic_path, write_bytes
from maskflownet.reader.formats import write_flo, write_image
from maskflownet.reader.sample import Sample
from maskflownet.scenes.draw import SceneOptions, check_arguments, draw
from maskflownet.scenes.textures import Textures
from pydantic import RootModel
from tqdm import tqdm

SPLIT_FILE = "FlyingChairs_train_val.txt"
RECORD_FILE = "synthetic.json"  # what made the folder, so that a restart cannot mix two sets


class Scene(NamedTuple):
    """One scene on the host."""

    img1: np.ndarray  # (H, W, 3) uint8 RGB
    img2: np.ndarray
    flow: np.ndarray  # (H, W, 2) float32, px, (u, v)
    occlusion: np.ndarray  # (H, W, 1) uint8, 255 = not visible in image 2


class Synthetic:
    """Scenes 0 .. length - 1 of a seed, rendered on the CPU when asked for and not kept.

    Scene i of a seed is always the same scene; a larger set begins with the same pairs. `textures` is a folder of
    pictures; without one those that scikit-image ships are taken.

    UserError: the set is empty, the textures cannot be used, the seed is negative, the size below 16 px, or PyTorch is
    missing.
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
            raise UserError(f"a synthetic set of {length} pairs is empty")
        check_arguments(seed, 0, height, width)
        if importlib.util.find_spec("torch") is None:
            raise UserError("synthetic scenes need PyTorch, which is not installed: pip install torch")
        self.length, self.size, self.seed = length, (height, width), seed
        self.textures = Textures(textures)
        self.options = options or SceneOptions()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Render a pair; its label is valid everywhere, occluded pixels included."""
        scene = self.scene(index)
        return Sample(scene.img1, scene.img2, scene.flow, None, f"synthetic_{self.seed}/{index % self.length:05d}")

    def scene(self, index: int) -> Scene:
        """Render a pair with its occlusion mask; IndexError if there is no such pair."""
        if not -self.length <= index < self.length:
            raise IndexError(f"pair {index} of a synthetic set of {self.length}")
        from maskflownet.scenes.render import render  # noqa: PLC0415 - PyTorch, which configs are read without

        bank = self.textures.bank()
        scenes = render(draw(bank, self.seed, [index % self.length], self.size, self.options), bank.texels)
        img1, img2, flow, occlusion = (values[0].numpy() for values in scenes)
        return Scene(img1, img2, flow, occlusion[..., None] * np.uint8(255))

    def occlusion(self, index: int) -> np.ndarray:
        """(H, W, 1) uint8, 255 = not visible in image 2."""
        return self.scene(index).occlusion

    def noc(self, index: int) -> None:
        """None: there is no second label; `occlusion` tells the same."""

    def record(self) -> dict:
        """Everything that decides what a pair looks like, for a JSON file; not the length."""
        return {
            "size": [*self.size],
            "seed": self.seed,
            "textures": [p.name for p in self.textures.photographs + self.textures.cutouts],
            "options": RootModel[SceneOptions](self.options).model_dump(),
        }


def write_chairs(dataset: Synthetic, folder: str | Path, validation_every: int = 36) -> None:
    """Write a synthetic set in the layout of FlyingChairs.

    ``data/%05d_img1.ppm``, ``_img2.ppm``, ``_flow.flo`` and, beyond that layout, ``_occ.png`` (255 = occluded),
    numbered from 1, and ``FlyingChairs_train_val.txt`` with 1 = training and 2 = validation: every
    `validation_every`-th pair, 0 = none. Pairs that are complete stay, so that a run that was stopped, or is to be
    made longer, goes on.

    UserError: the folder holds another set or cannot be written.
    """
    folder = Path(folder)
    data = folder / "data"
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{data}: cannot be made ({error.strerror})") from error
    _check_record(folder, dataset)
    beyond = [p for p in data.glob("*_img1.ppm") if int(p.name.split("_")[0]) > len(dataset)]
    if beyond:
        raise UserError(f"{folder}: already holds {min(beyond).name}, beyond {len(dataset)} pairs")
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
    path, record, found = folder / RECORD_FILE, dataset.record(), {}
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            keys = [key for key in record if found.get(key) != record[key]]
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"cannot read {path}: it is not a record of a synthetic set") from error
        if keys:
            raise UserError(f"{folder}: holds a synthetic set with other {', '.join(keys)}")
    elif any((folder / "data").iterdir()):
        raise UserError(f"{folder / 'data'}: holds files but there is no {RECORD_FILE} beside it")
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
        description="Write synthetic image pairs with exact flow in the layout of FlyingChairs, with occlusion masks. "
        "A stopped run goes on where it was; a set can be made longer.",
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="where to write")
    add("--count", type=int, default=1000, help="number of pairs (default 1000)")
    add("--size", type=_size, default=(384, 512), metavar="H,W", help="of the pictures, px (default 384,512)")
    add("--seed", type=int, default=0, help="another seed, another set (default 0)")
    add("--textures", metavar="DIR", help="folder of pictures, searched recursively; those with an alpha channel are "
        "cut-outs (default: the pictures that scikit-image ships)")  # fmt: skip
    add("--validation-every", type=int, default=36, metavar="N",
        help="every N-th pair is for validation, 0 for none (default 36)")  # fmt: skip
    add("--traceback", action="store_true", help="show where an error occurred")
    options = parser.parse_args(arguments)
    try:
        if options.validation_every < 0:
            raise UserError(f"--validation-every is {options.validation_every}, not 0 or more")
        dataset = Synthetic(options.count, *options.size, options.seed, options.textures)
        write_chairs(dataset, options.folder, options.validation_every)
    except UserError as error:
        if options.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
