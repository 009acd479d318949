"""Whole data sets: measure a network's flow on labelled ones, predict the benchmarks' test images for their servers."""

import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from maskflownet.engine.contract import Engine, Sizing, equal_sizes, singles
from maskflownet.errors import UserError, warn_once
from maskflownet.inference import metrics
from maskflownet.inference.confidence import measure_confidence, submit_both_ways
from maskflownet.inference.metrics import ImageResult, Measured
from maskflownet.processes import end_is_asked
from maskflownet.reader.dataset import FlowDataset
from maskflownet.reader.files import atomic_path
from maskflownet.reader.films import Sintel, Spring
from maskflownet.reader.formats import write_flow
from maskflownet.reader.kitti import IMAGES, Kitti, held_years
from maskflownet.reader.loader import ordered
from maskflownet.reader.sample import Labelled
from maskflownet.settings.datasets import NO_ROOT
from tqdm import tqdm

ZIP_FOLDERS = {2012: "", 2015: "flow/"}  # where KITTI's servers look inside the zip


@dataclass(frozen=True)
class ValidationOptions:
    """How a validation predicts; its results depend on `sizing` alone."""

    sizing: Sizing = field(default_factory=Sizing)  # at which the network sees the images; labels keep their size
    batch: int = 1  # pairs predicted at a time where consecutive ones agree in size
    workers: int = 0  # processes that decode ahead; 0 = the calling one decodes
    confidence: bool = False  # predict the opposite direction, too, and measure the confidence: twice the time


@dataclass(frozen=True)
class Results:
    """What a validation measured."""

    images: dict[str, list[ImageResult]]  # by set
    totals: dict[str, dict[str, float]]  # by set or union, as `metrics.summarise` gives them
    about: dict  # `time`, `resize`, `pad`, `skipped`: why a set was left out, by its name; and what the caller adds

    def write(self, folder: Path, run: str, steps: int) -> None:
        """Append a line to `RUN.val.log`; write `RUN_STEPS.csv`, a row per image, and `RUN_STEPS.json`, the totals."""
        metrics.write_csv(folder / f"{run}_{steps}.csv", self.images)
        about = {"run": run, "steps": steps, **self.about}
        metrics.write_json(folder / f"{run}_{steps}.json", {**about, "sets": self.totals})
        with open(folder / f"{run}.val.log", "a", encoding="utf-8") as log:
            log.write(f"[{self.about['time']}] {metrics.log_line(steps, self.totals)}\n")


def validate(engine: Engine, sets, options: ValidationOptions, watcher=None) -> Results:
    """Measure the flow of an engine, with the parameters to validate, on labelled data sets.

    `sets` are those of `settings.datasets.validation_sets`. A union with a part that is missing is left out. What is
    skipped is named on stderr. A `watcher`, such as the report, is given every pair, mask included, as soon as it was
    measured: by `add(set_name, index, pair, measured)`, the index counted from 0.

    UserError: There is no set, a file cannot be read, a pair has no label, or the batch is below 1.
    """
    if options.batch < 1:
        raise UserError(f"a batch needs at least one pair, not {options.batch}")
    skipped, unions = dict(sets.skipped), {}
    for name, parts in sets.unions.items():
        missing = [part for part in parts if part not in sets.sets]
        if not missing:
            unions[name] = parts
        elif missing[0] in skipped:
            skipped[name] = skipped[missing[0]]
    names_of = {why: ", ".join(name for name in skipped if skipped[name] == why) for why in skipped.values()}
    reasons = [f"{names}: {why}" for why, names in names_of.items()]
    if not sets.sets:
        raise UserError(f"there is nothing to validate on: {'; '.join(reasons) or 'no set is given'}")
    for line in reasons:
        print(f"skipped {line}", file=sys.stderr)
    images = _measure_sets(engine, sets.sets, options, watcher)
    joined = {**images, **{name: [i for part in parts for i in images[part]] for name, parts in unions.items()}}
    totals = {name: metrics.summarise([image.measures for image in found]) for name, found in joined.items()}
    for name in (name for name, total in totals.items() if not total["pixels"]):
        warn_once(f"{name}: no label has a pixel with a true value, so that the errors are no numbers")
    sizing, now = options.sizing, time.strftime("%Y-%m-%d %H:%M:%S")
    return Results(images, totals, {"time": now, "resize": sizing.resize, "pad": sizing.pad, "skipped": skipped})


def _measure_sets(engine: Engine, sets: Mapping, options: ValidationOptions, watcher) -> dict[str, list[ImageResult]]:
    results: dict[str, list[ImageResult]] = {}
    with tqdm(total=sum(map(len, sets.values())), unit="pair", disable=None) as bar:  # None: none without a terminal
        for name, dataset in sets.items():
            bar.set_description(name)
            images = results[name] = []
            read = partial(_labelled, dataset)  # all that is measured, so that workers decode it too
            pairs = ordered(dataset, options.workers, options.batch + 2 * options.workers, read)
            with closing(pairs):  # at once where an error ends the loop, for that ends the workers
                for pair, measured in _measured(engine, pairs, options, watcher is not None):
                    height, width = pair.sample.img1.shape[:2]
                    if watcher is not None:
                        watcher.add(name, len(images), pair, measured)
                    if end_is_asked():  # only in training, which saves first
                        raise KeyboardInterrupt
                    images.append(ImageResult(pair.sample.name, height, width, measured.measures))
                    bar.update()
    return results


def _labelled(dataset, index: int) -> Labelled:
    sample, *masks = labelled = dataset.labelled(index)
    if sample.flow is None:
        raise UserError(f"{sample.name} has no label although labels are needed to validate")
    if any(mask is not None and mask.shape[:2] != sample.img1.shape[:2] for mask in masks):
        raise UserError(f"{sample.name} has an occlusion or noc file of another size")
    return labelled


def _measured(engine: Engine, pairs, options: ValidationOptions, mask: bool) -> Iterator[tuple[Labelled, Measured]]:
    """Predict labelled pairs in batches, and measure them one by one."""
    for batch in equal_sizes(pairs, lambda _: options.batch, lambda pair: pair.sample.img1.shape):
        images = (np.stack([getattr(pair.sample, name) for pair in batch]) for name in ("img1", "img2"))
        if options.confidence:
            prediction = submit_both_ways(engine, *images, options.sizing, warped=False)()
        else:
            prediction = engine.predict(*images, options.sizing, mask=mask, warped=False)
        for labelled, single in zip(batch, singles(prediction)):
            pair = labelled._replace(sample=metrics.best_fitting(single.flow, labelled.sample))
            truth = pair.sample.flow, pair.sample.mask, pair.occlusion, pair.noc
            measures = metrics.measure(single.flow, *truth)
            if labelled.sample.fine is not None:
                below, count = measures["1px"]
                measures["1px_outliers"] = count - below, count
            if options.confidence:
                measures.update(measure_confidence(single, *truth))
            yield pair, Measured(measures, single)


class Part(NamedTuple):
    """Test images whose predictions make one zip."""

    name: str  # such as kitti.2012
    dataset: FlowDataset
    size: tuple[int, int]  # (H, W) px of the network's input, unless the user wants another
    suffix: str  # appended to a pair's name, gives the file's, and its format
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
    yield Part("sintel", Sintel(root, split="test"), (448, 1024), ".flo", str)


def kitti_parts(root: Path) -> Iterator[Part]:
    """The years that the root holds: files YEAR/%06d_10.png, every pixel valid, zipped as each server wants them."""
    years = held_years(root)
    missing = [str(year) for year in IMAGES if year not in years]
    if missing:
        print(f"skipped: {root} holds no KITTI {' and '.join(missing)}", file=sys.stderr)
    for year in years:
        dataset, top = Kitti(root, "test", (year,)), ZIP_FOLDERS[year]
        yield Part(f"kitti.{year}", dataset, (512, 1152), "_10.png", lambda name, t=top: t + Path(name).name)


def spring_parts(root: Path) -> Iterator[Part]:
    """Both directions of both cameras, as far as the root holds them: files SEQ/flow_FW_left/flow_FW_left_%04d.flo5.

    In the zip they lie below `test`, as in the data set.
    """
    lost = {version: Spring.lacks(root, "test", version) for version in Spring.versions}
    for reason in dict.fromkeys(filter(None, lost.values())):
        print(f"skipped: {reason}", file=sys.stderr)
    versions = [version for version, reason in lost.items() if reason is None]
    if versions:
        yield Part("spring", Spring(root, "test", versions), (1088, 1920), ".flo5", "test/".__add__)


BENCHMARKS = {"sintel": sintel_parts, "kitti": kitti_parts, "spring": spring_parts}


def write_submissions(predictor, roots, checkpoint: str, flows: Path, workers: int = 0) -> list[Submission]:
    """Predict the test images of Sintel, KITTI and Spring; a benchmark without a root is named as skipped on stderr.

    Writes `FLOWS/CHECKPOINT_BENCHMARK/...` and `FLOWS/CHECKPOINT_BENCHMARK[_YEAR].zip`. Every prediction has its
    image's own size. Earlier outputs of the same name are replaced; a zip appears only when it is complete.

    The predictor's sizing, where it asks for nothing, is the benchmark's. `checkpoint` stands for it in the names of
    the outputs, such as `8caNov12-1532_5000`. So many processes as `workers` decode ahead.

    UserError: There is no root, test images are missing or cannot be read, or the network predicts what is no number.
    """
    found = {benchmark: roots.look_up(benchmark) for benchmark in BENCHMARKS}
    parts = [part for benchmark, root in found.items() if root for part in BENCHMARKS[benchmark](root)]
    skipped = f"{', '.join(benchmark for benchmark, root in found.items() if root is None)}: {NO_ROOT}"
    if not parts:
        raise UserError(f"there is nothing to predict: {skipped}")
    if None in found.values():
        print(f"skipped: {skipped}", file=sys.stderr)
    return [_submission(predictor, part, checkpoint, Path(flows), workers) for part in parts]


def _submission(predictor, part: Part, checkpoint: str, flows: Path, workers: int) -> Submission:
    benchmark, _, year = part.name.partition(".")
    top = flows / f"{checkpoint}_{benchmark}"
    names = [pair.name + part.suffix for pair in part.dataset.pairs]
    files = [top / name for name in names]
    if not (predictor.sizing.resize or predictor.sizing.pad):
        predictor = replace(predictor, sizing=Sizing(part.size))
    samples = ordered(part.dataset, workers, (predictor.batch or 1) + 2 * workers)
    pairs = ((sample.img1, sample.img2) for sample in samples)
    bar = tqdm(total=len(files), desc=f"{part.name} test", unit="pair", disable=None)  # None: none without a terminal
    with bar, closing(samples):  # closing them ends the workers
        for file, prediction in zip(files, predictor.stream(pairs, mask=False, warped=False)):
            if not np.isfinite(prediction.flow).all():
                raise UserError(f"the network predicts what is no number for {file}: the checkpoint is unusable")
            file.parent.mkdir(parents=True, exist_ok=True)
            write_flow(file, prediction.flow)
            bar.update()
    archive = flows / f"{checkpoint}_{part.name.replace('.', '_')}.zip"
    # Flow hardly compresses; more than level 1 costs minutes for Sintel's 4 GB.
    how = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1}
    with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w", **how) as members:
        for file, name in zip(files, names):
            members.write(file, part.member(name))
    return Submission(part.name, top / year, archive, len(files))
