"""Validation: a network's flow measured against the labels of data sets."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from maskflownet.engine.contract import ConfidentPrediction, Engine, Labelled, Prediction, Sizing, singles
from maskflownet.errors import DataError, UserError
from maskflownet.inference.confidence import measure_confidence
from maskflownet.inference.metrics import (
    ImageResult,
    Measured,
    Totals,
    append_log,
    log_line,
    measure,
    write_csv,
    write_json,
)
from maskflownet.inference.predictor import submit_both_ways
from maskflownet.reader.loader import ordered
from maskflownet.report.report import Report, ReportOptions, report_name
from tqdm import tqdm


def validate(
    engine: Engine,
    sets: Mapping[str, object],
    sizing: Sizing = Sizing(),  # noqa: B008 - frozen
    batch: int = 1,
    log_folder=None,
    run: str = "unnamed",
    steps: int = 0,
    workers: int = 0,
    unions: Mapping[str, Sequence[str]] | None = None,
    skipped: Mapping[str, str] | None = None,
    confidence: bool = False,
    report: ReportOptions | None = None,
    watcher=None,
) -> dict[str, dict[str, float]]:
    """Measure an engine's flow on labelled data sets and write the results.

    Parameters
    ----------
    engine : Engine
        With the parameters to validate.
    sets : mapping of str to data set
        By the name that the results bear (`sintel.training2.clean`). A data set has `len`,
        `dataset[i] -> Sample`, `occlusion(i)` and `noc(i)`.
    sizing : Sizing
        The size at which the network sees the images; labels always keep theirs.
    batch : int
        Pairs predicted at a time where consecutive ones agree in size.
    log_folder : path, optional
        Folder of `RUN.val.log` (a line is appended), `RUN_STEPS.csv` (a row per image) and
        `RUN_STEPS.json` (the totals), the last two written as a whole; made where it is missing.
        Without it nothing is written.
    run : str
    steps : int
        Of the checkpoint.
    workers : int
        Processes that decode ahead; 0 = the calling one does.
    unions : mapping of str to sequence of str, optional
        Further results that join measured sets, predicting nothing twice:
        `{"sintel.training.clean": ["sintel.training1.clean", "sintel.training2.clean"]}`. One that
        names a skipped set is skipped too.
    skipped : mapping of str to str, optional
        Sets that are left out, with a sentence that says why; they are named on stderr and in the
        JSON.
    confidence : bool
        Predict the opposite direction, too, and measure the confidence and the learned mask
        (`maskflownet.inference.confidence.measure_confidence`): twice the time and memory.
    report : ReportOptions, optional
        Also write `RUN_STEPS.html` to the log folder: a page with tables and pictures.
    watcher : object, optional
        Its `add(set_name, index, pair, measured)` is called for every Labelled pair with what was
        Measured, mask included; not beside a report.

    Returns
    -------
    dict of str to dict
        By set: `images`, `pixels` (valid ones), and every measure of `maskflownet.inference.metrics.measure` that
        the set has labels for, as mean over images (`epe`) and over pixels (`epe.pooled`); NaN
        where it has no such pixel.

    Raises
    ------
    UserError
        There is no set, one is empty, or `batch` is below 1.
    DataError
        A file cannot be read, or a pair has no label.
    """
    if batch < 1:
        raise UserError(f"a batch needs at least one pair, not {batch}")
    unions = unions or {}
    skipped = dict(skipped or {})
    for name, parts in unions.items():
        for part in parts:
            if part not in sets and part not in skipped:
                raise ValueError(f"{name} joins {part}, which is not among the sets {list(sets)}")
            if part in skipped:
                skipped[name] = skipped[part]
    _check_sets(sets, skipped)
    for line in _by_reason(skipped):
        print(f"skipped {line}", file=sys.stderr)
    if report is not None and log_folder is None:
        raise ValueError("a report needs the folder of the log")
    if log_folder is not None:
        # Before hours of computing, should that not be possible.
        Path(log_folder).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        pictures = None
        if report is not None:
            pictures = stack.enter_context(Report(Path(log_folder), len(sets), report))
        seen_by = pictures or watcher
        results = _measure_sets(engine, sets, sizing, batch, workers, confidence, seen_by)
        totals = _all_totals(results, unions, skipped)
        if log_folder is not None:
            about = {
                "run": run,
                "steps": steps,
                "time": time.strftime("%Y-%m-%d %H:%M:%S"),
                "resize": sizing.resize,
                "pad": sizing.pad,
                "skipped": skipped,
            }
            _write(Path(log_folder), about, totals, results, pictures)
    return totals


def _check_sets(sets: Mapping[str, object], skipped: Mapping[str, str]) -> None:
    if not sets:
        why = "; ".join(_by_reason(skipped)) or "no set is given"
        raise UserError(f"there is nothing to validate on: {why}")
    for name, dataset in sets.items():
        if not len(dataset):
            raise UserError(f"{name} has no pairs to validate on")


def _write(folder: Path, about: dict, totals, results, report: Report | None) -> None:
    name = f"{about['run']}_{about['steps']}"
    if report is not None:
        report.write(folder / report_name(about["run"], about["steps"]), about, totals, results)
    write_csv(folder / f"{name}.csv", results)
    write_json(folder / f"{name}.json", {**about, "sets": totals})
    append_log(folder / f"{about['run']}.val.log", log_line(about["steps"], totals))


def _all_totals(results, unions, skipped) -> dict[str, dict[str, float]]:
    totals = {name: _totals(images) for name, images in results.items()}
    for name, parts in unions.items():
        if name not in skipped:
            totals[name] = _totals([image for part in parts for image in results[part]])
    return totals


def _by_reason(skipped: Mapping[str, str]) -> list[str]:
    """Format `NAME, NAME: REASON` for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        reasons.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _totals(images: Sequence[ImageResult]) -> dict[str, float]:
    return Totals([image.measures for image in images]).summary()


def _measure_sets(engine, sets, sizing, batch, workers, confidence, watcher) -> dict[str, list[ImageResult]]:
    results = {}
    # disable=None: no bar where stderr is no terminal.
    with tqdm(total=sum(map(len, sets.values())), unit="pair", disable=None) as bar:
        for set_name, dataset in sets.items():
            bar.set_description(set_name)
            results[set_name] = images = []
            # Closed at once where an error ends the loop, for that ends the workers.
            with closing(_batches(dataset, batch, workers)) as batches:
                for pairs in batches:
                    measured = measure_batch(engine, pairs, sizing, watcher is not None, confidence)
                    for pair, result in zip(pairs, measured):
                        height, width = pair.sample.img1.shape[:2]
                        image = ImageResult(pair.sample.name, height, width, result.measures)
                        if watcher is not None:
                            watcher.add(set_name, len(images), pair, result)
                        images.append(image)
                    bar.update(len(pairs))
    return results


class _LabelledPairs:
    """A data set whose items hold all that is measured, so that workers decode it too."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Labelled:
        sample = self.dataset[index]
        if sample.flow is None:
            raise DataError(f"{sample.name} has no label although labels are needed to validate")
        masks = self.dataset.occlusion(index), self.dataset.noc(index)
        for mask in masks:
            if mask is not None and mask.shape[:2] != sample.img1.shape[:2]:
                raise DataError(f"{sample.name} has an occlusion or noc file of another size")
        return Labelled(sample, *masks)


def _batches(dataset, size: int, workers: int) -> Iterator[list[Labelled]]:
    """Consecutive pairs of equal size, at most `size` at a time."""
    waiting: list[Labelled] = []
    for _, pair in ordered(_LabelledPairs(dataset), workers, size + 2 * workers):
        if waiting and waiting[0].sample.img1.shape != pair.sample.img1.shape:
            yield waiting
            waiting = []
        waiting.append(pair)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def measure_batch(
    engine: Engine, batch: Sequence[Labelled], sizing: Sizing, mask: bool, confidence: bool
) -> list[Measured]:
    """Measure the flow of labelled pairs of equal size, predicted at once.

    With `mask` the mask is predicted, too; with `confidence` also the opposite direction, and the predictions are
    ConfidentPredictions.
    """
    images_1 = np.stack([pair.sample.img1 for pair in batch])
    images_2 = np.stack([pair.sample.img2 for pair in batch])
    if confidence:
        prediction = submit_both_ways(engine, images_1, images_2, sizing, warped=False)()
    else:
        prediction = engine.predict(images_1, images_2, sizing, mask=mask, warped=False)
    return [_measured(single, pair) for single, pair in zip(singles(prediction), batch)]


def _measured(prediction: Prediction | ConfidentPrediction, pair: Labelled) -> Measured:
    truth = pair.sample.flow, pair.sample.mask, pair.occlusion, pair.noc
    measures = measure(prediction.flow, *truth)
    if isinstance(prediction, ConfidentPrediction):
        measures.update(measure_confidence(prediction, *truth))
    return Measured(measures, prediction)
