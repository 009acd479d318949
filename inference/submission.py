"""Predictions for the test images of the benchmarks, as files and as zips for their servers."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.engine.contract import Engine, Sizing
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


class Submission(NamedTuple):
    """What was written: a tree of `count` files, and a zip of them."""

    name: str
    folder: Path
    archive: Path
    count: int


def submit(
    engine: Engine,
    roots: Roots,
    checkpoint: str,
    flows,
    sizing: Sizing = Sizing(),  # noqa: B008 - frozen
    batch: int = 1,
    workers: int = 0,
) -> list[Submission]:
    """Predict the test images of Sintel and KITTI; a set without a root is named as skipped.

    Parameters are those of `predict_sintel`.

    Raises
    ------
    UserError
        Neither has a root, or the network predicts something that is not a number.
    DataError
        Test images are missing or cannot be read, or the outputs cannot be written.
    """
    submissions, skipped = [], []
    for name, predict in (("sintel", predict_sintel), ("kitti", predict_kitti)):
        try:
            root = roots.find(name)
        except UserError as error:
            skipped.append(str(error))
            continue
        submissions += predict(engine, root, checkpoint, flows, sizing, batch, workers)
    if not submissions:
        raise UserError(f"there is nothing to predict: {'; '.join(skipped)}")
    for reason in skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    return submissions


def predict_sintel(
    engine: Engine,
    root,
    checkpoint: str,
    flows,
    sizing: Sizing = Sizing(),  # noqa: B008 - frozen
    batch: int = 1,
    workers: int = 0,
) -> list[Submission]:
    """Predict Sintel's test images of both passes, clean and final.

    Writes `FLOWS/CHECKPOINT_sintel/PASS/SEQ/frame_%04d.flo`, and the same tree without its top
    folder as `FLOWS/CHECKPOINT_sintel.zip`. Sintel's server takes neither: it wants a bundle that
    the `bundler` program of the data set's download makes from the folders `clean` and `final`. The
    zip is for keeping and for passing on.

    Parameters
    ----------
    engine : Engine
        With the parameters to predict with.
    root : path
        Sintel's root, which holds `test`.
    checkpoint : str
        The name that stands for it in the names of the outputs, such as `8caNov12-1532_5000`.
    flows : path
        Folder of the outputs, made where it is missing. Earlier outputs of the same name are
        replaced; a zip appears only when it is complete.
    sizing : Sizing
        The size at which the network sees the images, 448x1024 without `resize` and `pad`. The
        predictions have the images' own size.
    batch : int
        Pairs predicted at a time where consecutive ones agree in size.
    workers : int
        Processes that decode ahead; 0 = the calling one does.

    Returns
    -------
    list of Submission
        One.

    Raises
    ------
    DataError
        The test images are missing or cannot be read, or the outputs cannot be written.
    UserError
        The network predicts something that is not a number.
    """
    dataset = Sintel(root, split="test")
    folder = Path(flows) / f"{checkpoint}_sintel"
    names = [f"{pair.name}.flo" for pair in dataset.pairs]  # PASS/SEQ/frame_0001.flo
    predictor = Predictor(engine, _or_default(sizing, SINTEL_SIZE), batch)
    files = _predict(predictor, dataset, folder, names, write_flo, "sintel test", workers)
    archive = _zip(folder.with_name(f"{folder.name}.zip"), zip(files, names))
    return [Submission("sintel", folder, archive, len(files))]


def predict_kitti(
    engine: Engine,
    root,
    checkpoint: str,
    flows,
    sizing: Sizing = Sizing(),  # noqa: B008 - frozen
    batch: int = 1,
    workers: int = 0,
) -> list[Submission]:
    """Predict the test images of KITTI 2012 and 2015, each at its own size.

    Writes `FLOWS/CHECKPOINT_kitti/YEAR/%06d_10.png`, 16-bit flow with every pixel valid, and a zip
    as each server wants it beside that folder: `CHECKPOINT_kitti_2012.zip` with the files in its
    root, `CHECKPOINT_kitti_2015.zip` with them in `flow/`.

    Parameters, outputs and errors are those of `predict_sintel`; the network sees 512x1152 unless
    `sizing` says otherwise. A year that the root lacks is named as skipped on stderr.

    Returns
    -------
    list of Submission
        One for each year.
    """
    years = held_years(root)
    skipped = [str(year) for year in IMAGES if year not in years]
    if skipped:
        print(f"skipped: {root} holds no KITTI {' and '.join(skipped)}", file=sys.stderr)
    datasets = {year: Kitti(root, year, "test") for year in years}
    predictor = Predictor(engine, _or_default(sizing, KITTI_SIZE), batch)
    top = Path(flows) / f"{checkpoint}_kitti"
    submissions = []
    for year, dataset in datasets.items():
        names = [f"{pair.name}_10.png" for pair in dataset.pairs]  # 2012/000000_10.png
        title = f"kitti {year} test"
        files = _predict(predictor, dataset, top, names, write_kitti_png, title, workers)
        members = [ZIP_FOLDERS[year] + file.name for file in files]
        archive = _zip(top.with_name(f"{top.name}_{year}.zip"), zip(files, members))
        submissions.append(Submission(f"kitti.{year}", top / str(year), archive, len(files)))
    return submissions


def _or_default(sizing: Sizing, size: tuple[int, int]) -> Sizing:
    return sizing if sizing.resize or sizing.pad else Sizing(resize=size)


def _predict(
    predictor: Predictor,
    dataset,
    folder: Path,
    names: list[str],
    write: Callable[[Path, np.ndarray], None],
    title: str,
    workers: int,
) -> list[Path]:
    """Predict every pair of a data set into the file of its name below a folder."""
    samples = ordered(dataset, workers, predictor.batch + 2 * workers)
    pairs = ((sample.img1, sample.img2) for _, sample in samples)
    files = [folder / name for name in names]
    # disable=None: no bar where stderr is no terminal. Closing the samples ends the workers.
    bar = tqdm(total=len(files), desc=title, unit="pair", disable=None)
    with bar, closing(samples):
        for file, prediction in zip(files, predictor.stream(pairs, mask=False, warped=False)):
            if not np.isfinite(prediction.flow).all():
                raise UserError(
                    f"the network predicts values that are no numbers for {file}: the checkpoint is unusable"
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file, prediction.flow)
            bar.update()
    return files


def _zip(path: Path, members: Iterable[tuple[Path, str]]) -> Path:
    """Write files under the given names into a zip that appears when it is complete."""
    # Flow hardly compresses; more than level 1 costs minutes for Sintel's 4 GB.
    how = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", **how) as archive:
        for file, name in members:
            archive.write(file, name)
    return path
