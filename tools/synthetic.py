"""Write synthetic image pairs with exact flow and occlusion masks in the layout of FlyingChairs.

    python -m maskflownet.tools.synthetic FOLDER --count 1000

A stopped run goes on where it was; a set can be made longer.
"""

import json
import os
import sys
from contextlib import closing
from pathlib import Path

from maskflownet.errors import UserError
from maskflownet.processes import Pool
from maskflownet.reader.files import write_bytes
from maskflownet.reader.flying import RECORD_FILE, SPLIT_FILE
from maskflownet.reader.formats import write_flo, write_image
from maskflownet.scenes.synthetic import Synthetic
from maskflownet.settings.cli import READERS, Parser, count, height_width, run, seed, whole_number
from tqdm import tqdm


def write_chairs(dataset: Synthetic, folder: str | Path, validation_every: int = 36, workers: int = 0) -> None:
    """Write a synthetic set in the layout of FlyingChairs; `workers` processes render, 0 = the calling one.

    ``data/%05d_img1.ppm``, ``_img2.ppm``, ``_flow.flo`` and, beyond that layout, ``_occ.png`` (255 = occluded),
    numbered from 1, and ``FlyingChairs_train_val.txt`` with 1 = training and 2 = validation: every
    `validation_every`-th pair, 0 = none. Pairs that are complete stay. UserError: the folder holds another set.
    """
    folder = Path(folder)
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    path, record = folder / RECORD_FILE, (json.dumps(dataset.record(), indent=1) + "\n").encode()
    if any(data.iterdir()) and not (path.is_file() and path.read_bytes() == record):
        raise UserError(f"{folder}: holds other pairs; give another folder")
    write_bytes(path, record)
    beyond = [p for p in data.glob("*_img1.ppm") if int(p.name.split("_")[0]) > len(dataset)]
    if beyond:
        raise UserError(f"{folder}: already holds {min(beyond).name}, beyond {len(dataset)} pairs")
    files = {
        index: [data / f"{index + 1:05d}_{name}" for name in ("img1.ppm", "img2.ppm", "flow.flo", "occ.png")]
        for index in range(len(dataset))
    }
    lacking = [index for index, paths in files.items() if not all(path.is_file() for path in paths)]
    with closing(Pool(workers, dataset.labelled)) as pool:
        scenes = pool.results(((index,) for index in lacking), 2 * workers)
        bar = tqdm(lacking, str(folder), len(files), unit="pair", initial=len(files) - len(lacking), disable=None)
        for index, (sample, occlusion, _) in zip(bar, scenes):
            arrays = *sample[:3], occlusion
            for write, path, values in zip((write_image, write_image, write_flo, write_image), files[index], arrays):
                write(path, values)
    numbers = range(1, len(dataset) + 1)
    lines = ["2" if validation_every and n % validation_every == 0 else "1" for n in numbers]
    write_bytes(folder / SPLIT_FILE, ("\n".join(lines) + "\n").encode("ascii"))
    held_out = lines.count("2")
    print(f"{folder}: {len(lines) - held_out} pairs for training, {held_out} for validation")


def main(arguments: list[str]) -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="where to write")
    add("--count", type=count, default=1000, metavar="N", help="number of pairs (default 1000)")
    add("--size", type=height_width, default=(384, 512), metavar="H,W", help="of the pictures, px (default 384,512)")
    add("--seed", type=seed, default=0, metavar="N", help="another seed, another set (default 0)")
    add("--textures", metavar="DIR", help="folder of pictures, searched recursively; those with an alpha channel are "
        "cut-outs (default: the pictures that scikit-image ships)")  # fmt: skip
    add("--validation-every", type=whole_number, default=36, metavar="N",
        help="every N-th pair is for validation, 0 for none (default 36)")  # fmt: skip
    workers = min(READERS, os.cpu_count() or 1)
    add("--workers", type=whole_number, default=workers, metavar="N", help="processes that render, 0: the program does "
        f"(default: {READERS}, as cores allow); each holds all pictures in memory")  # fmt: skip
    args = parser.parse_args(arguments)
    dataset = Synthetic(args.count, *args.size, args.seed, args.textures)
    write_chairs(dataset, args.folder, args.validation_every, args.workers)


if __name__ == "__main__":
    sys.exit(run(main))
