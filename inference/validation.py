"""Validation: a network's flow measured against the labels of data sets."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from maskflownet.engine.contract import Engine, Sizing, equal_sizes, singles
from maskflownet.errors import UserError
from maskflownet.inference.confidence import measure_confidence, submit_both_ways
from maskflownet.inference.metrics import (
    ImageResult,
    Labelled,
    Measured,
    append_log,
    log_line,
    measure,
    summarise,
    write_csv,
    write_json,
)
from maskflownet.reader.loader import ordered
from tqdm import tqdm


class Watcher(Protocol):
    """Sees every pair of a validation, mask included: the report and the sample pictures are watchers."""

    def add(self, set_name: str, index: int, pair: Labelled, measured: Measured) -> None:
        """Take a pair of a set, counted from 0, as soon as it was measured."""


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
    about: dict  # `time`, `resize`, `pad`, and `skipped`: why a set was left out, by its name

    def write(self, folder: Path, run: str, steps: int) -> None:
        """Append a line to `RUN.val.log`; write `RUN_STEPS.csv`, a row per image, and `RUN_STEPS.json`, the totals."""
        write_csv(folder / f"{run}_{steps}.csv", self.images)
        about = {"run": run, "steps": steps, **self.about}
        write_json(folder / f"{run}_{steps}.json", {**about, "sets": self.totals})
        append_log(folder / f"{run}.val.log", log_line(steps, self.totals))


def validate(engine: Engine, sets, options: ValidationOptions | None = None, watcher: Watcher | None = None) -> Results:
    """Measure an engine's flow on labelled data sets.

    Parameters
    ----------
    engine : Engine
        With the parameters to validate.
    sets : settings.datasets.ValidationSets
        A union with a part that is missing is left out. What is skipped is named on stderr.
    options : ValidationOptions, optional
    watcher : Watcher, optional

    Raises
    ------
    UserError
        There is no set, one is empty, a file cannot be read, a pair has no label, or the batch is below 1.
    """
    options = options or ValidationOptions()
    if options.batch < 1:
        raise UserError(f"a batch needs at least one pair, not {options.batch}")
    skipped, unions = dict(sets.skipped), {}
    for name, parts in sets.unions.items():
        missing = [part for part in parts if part not in sets.sets]
        if not missing:
            unions[name] = parts
        elif missing[0] in skipped:
            skipped[name] = skipped[missing[0]]
    reasons = _by_reason(skipped)
    if not sets.sets:
        raise UserError(f"there is nothing to validate on: {'; '.join(reasons) or 'no set is given'}")
    for name, dataset in sets.sets.items():
        if not len(dataset):
            raise UserError(f"{name} has no pairs to validate on")
    for line in reasons:
        print(f"skipped {line}", file=sys.stderr)
    images = _measure_sets(engine, sets.sets, options, watcher)
    joined = {**images, **{name: [i for part in parts for i in images[part]] for name, parts in unions.items()}}
    totals = {name: summarise([image.measures for image in found]) for name, found in joined.items()}
    sizing, now = options.sizing, time.strftime("%Y-%m-%d %H:%M:%S")
    return Results(images, totals, {"time": now, "resize": sizing.resize, "pad": sizing.pad, "skipped": skipped})


def _by_reason(skipped: Mapping[str, str]) -> list[str]:
    """Format `NAME, NAME: REASON` for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        reasons.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _measure_sets(engine: Engine, sets: Mapping, options: ValidationOptions, watcher) -> dict[str, list[ImageResult]]:
    results: dict[str, list[ImageResult]] = {}
    with tqdm(total=sum(map(len, sets.values())), unit="pair", disable=None) as bar:  # None: none without a terminal
        for name, dataset in sets.items():
            bar.set_description(name)
            images = results[name] = []
            samples = ordered(_LabelledPairs(dataset), options.workers, options.batch + 2 * options.workers)
            with closing(samples):  # at once where an error ends the loop, for that ends the workers
                for pair, measured in _measured(engine, samples, options, watcher is not None):
                    height, width = pair.sample.img1.shape[:2]
                    if watcher is not None:
                        watcher.add(name, len(images), pair, measured)
                    images.append(ImageResult(pair.sample.name, height, width, measured.measures))
                    bar.update()
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
            raise UserError(f"{sample.name} has no label although labels are needed to validate")
        masks = self.dataset.occlusion(index), self.dataset.noc(index)
        if any(mask is not None and mask.shape[:2] != sample.img1.shape[:2] for mask in masks):
            raise UserError(f"{sample.name} has an occlusion or noc file of another size")
        return Labelled(sample, *masks)


def _measured(engine: Engine, samples, options: ValidationOptions, mask: bool) -> Iterator[tuple[Labelled, Measured]]:
    """Predict labelled pairs in batches, and measure them one by one."""
    pairs = (pair for _, pair in samples)
    for batch in equal_sizes(pairs, options.batch, lambda pair: pair.sample.img1.shape):
        images = (np.stack([getattr(pair.sample, name) for pair in batch]) for name in ("img1", "img2"))
        if options.confidence:
            prediction = submit_both_ways(engine, *images, options.sizing, warped=False)()
        else:
            prediction = engine.predict(*images, options.sizing, mask=mask, warped=False)
        for pair, single in zip(batch, singles(prediction)):
            truth = pair.sample.flow, pair.sample.mask, pair.occlusion, pair.noc
            measures = measure(single.flow, *truth)
            if options.confidence:
                measures.update(measure_confidence(single, *truth))
            yield pair, Measured(measures, single)
