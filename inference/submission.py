"""Predictions for the test images of the benchmarks, as files and as zips for their servers."""

import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.engine.contract import Sizing
from maskflownet.errors import UserError
from maskflownet.inference.predictor import Predictor
from maskflownet.reader.files import atomic_path
from maskflownet.reader.formats import write_flo, write_kitti_png
from maskflownet.reader.kitti import IMAGES, Kitti, held_years
from maskflownet.reader.loader import ordered
from maskflownet.reader.sintel import Sintel
from maskflownet.settings.datasets import Roots
from tqdm import tqdm

SINTEL_SIZE = (448, 1024)  # (H, W) of the network's input for 436x1024
KITTI_SIZE = (512, 1152)  # (H, W) of the network's input for about 375x1242
ZIP_FOLDERS = {2012: "", 2015: "flow/"}  # where KITTI's servers look inside the zip


class Part(NamedTuple):
    """Test images whose predictions make one zip."""

    name: str  # such as kitti.2012
    dataset: Sintel | Kitti
    size: tuple[int, int]  # (H, W) px of the network's input, unless the user wants another
    suffix: str  # appended to a pair's name, gives the file's
    write: Callable[[Path, np.ndarray], None]
    member: Callable[[str], str]  # from a file's name to that in the zip


class Submission(NamedTuple):
    """What was written: a tree of `count` files, and a zip of them."""

    name: str
    folder: Path
    archive: Path
    count: int


def sintel_parts(root: Path) -> Iterator[Part]:
    """Both passes, clean and final: files PASS/SEQ/frame_%04d.flo.

    Sintel's server does not take their zip: it wants a bundle that the `bundler` program of the data set's download
    makes from the folders `clean` and `final`. The zip is for keeping and for passing on.
    """
    yield Part("sintel", Sintel(root, split="test"), SINTEL_SIZE, ".flo", write_flo, str)


def kitti_parts(root: Path) -> Iterator[Part]:
    """The years that the root holds: files YEAR/%06d_10.png, every pixel valid, zipped as each server wants them."""
    years = held_years(root)
    missing = [str(year) for year in IMAGES if year not in years]
    if missing:
        print(f"skipped: {root} holds no KITTI {' and '.join(missing)}", file=sys.stderr)
    for year in years:
        dataset, top = Kitti(root, "test", (year,)), ZIP_FOLDERS[year]
        yield Part(
            f"kitti.{year}", dataset, KITTI_SIZE, "_10.png", write_kitti_png, lambda name, t=top: t + Path(name).name
        )


BENCHMARKS = {"sintel": sintel_parts, "kitti": kitti_parts}


def write_submissions(
    predictor: Predictor, roots: Roots, checkpoint: str, flows: Path, workers: int = 0
) -> list[Submission]:
    """Predict the test images of Sintel and KITTI; a benchmark without a root is named as skipped on stderr.

    Writes `FLOWS/CHECKPOINT_BENCHMARK/...` and `FLOWS/CHECKPOINT_BENCHMARK[_YEAR].zip`. Every prediction has its
    image's own size. Earlier outputs of the same name are replaced; a zip appears only when it is complete.

    Parameters
    ----------
    predictor : Predictor
        Its sizing, where it asks for nothing, is the benchmark's.
    roots : Roots
    checkpoint : str
        What stands for it in the names of the outputs, such as `8caNov12-1532_5000`.
    flows : Path
    workers : int
        Processes that decode ahead; 0 = the calling one decodes.

    Raises
    ------
    UserError
        There is no root, test images are missing or cannot be read, or the network predicts what is no number.
    """
    parts, skipped = [], []
    for benchmark, parts_of in BENCHMARKS.items():
        try:
            root = roots.find(benchmark)
        except UserError as error:
            skipped.append(str(error))
        else:
            parts += parts_of(root)
    if not parts:
        raise UserError(f"there is nothing to predict: {'; '.join(skipped)}")
    for reason in skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    return [_submission(predictor, part, checkpoint, Path(flows), workers) for part in parts]


def _submission(predictor: Predictor, part: Part, checkpoint: str, flows: Path, workers: int) -> Submission:
    benchmark, _, year = part.name.partition(".")
    top = flows / f"{checkpoint}_{benchmark}"
    names = [pair.name + part.suffix for pair in part.dataset.pairs]
    files = [top / name for name in names]
    if not (predictor.sizing.resize or predictor.sizing.pad):
        predictor = replace(predictor, sizing=Sizing(part.size))
    samples = ordered(part.dataset, workers, predictor.batch + 2 * workers)
    pairs = ((sample.img1, sample.img2) for _, sample in samples)
    bar = tqdm(total=len(files), desc=f"{part.name} test", unit="pair", disable=None)  # None: none without a terminal
    with bar, closing(samples):  # closing them ends the workers
        for file, prediction in zip(files, predictor.stream(pairs, mask=False, warped=False)):
            if not np.isfinite(prediction.flow).all():
                raise UserError(
                    f"the network predicts values that are no numbers for {file}: the checkpoint is unusable"
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            part.write(file, prediction.flow)
            bar.update()
    archive = flows / f"{checkpoint}_{part.name.replace('.', '_')}.zip"
    _zip(archive, zip(files, map(part.member, names)))
    return Submission(part.name, top / year, archive, len(files))


def _zip(path: Path, members: Iterable[tuple[Path, str]]) -> None:
    """Write files under the given names into a zip that appears when it is complete."""
    # Flow hardly compresses; more than level 1 costs minutes for Sintel's 4 GB.
    how = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", **how) as archive:
        for file, name in members:
            archive.write(file, name)
