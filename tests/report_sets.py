"""Labelled pairs without files, whose predictions have known errors."""

from contextlib import closing

import numpy as np
from maskflownet.reader.sample import Labelled, Sample
from maskflownet.report.report import Report

from tests.known_engine import KnownEngine, validated
from tests.trees import label, picture

SIZE = (64, 128)


class MemorySet:
    """`errors[i]` px is what `known_error` is off by in the i-th pair; the names may be any."""

    def __init__(self, errors, names=None, size=SIZE, noc=False):
        self.errors, self.size, self._noc = list(errors), size, noc
        self.names = names or [f"scene/frame_{i:04d}" for i in range(len(self.errors))]

    def __len__(self):
        return len(self.errors)

    def __getitem__(self, index):
        image = picture(index, self.size)
        # The engine reads its error from here, in hundredths of a px.
        image[0, 0] = divmod(round(self.errors[index] * 100), 256) + (index % 20,)
        flow = np.full((*self.size, 2), label(index), np.float32)
        valid = np.full((*self.size, 1), 255, np.uint8)
        return Sample(image, picture(index + 1, self.size), flow, valid, self.names[index])

    def labelled(self, index):
        flags = np.zeros((*self.size, 1), np.uint8)
        flags[: self.size[0] // 2] = 255
        return Labelled(self[index], **{"noc" if self._noc else "occlusion": flags})


def known_error(image_1, _):
    """The label of a `MemorySet`'s pair and its error, for a `KnownEngine`."""
    high, low, number = image_1[0, 0].tolist()
    return np.full((*image_1.shape[:2], 2), label(number)) + (0, (256 * high + low) / 100)


def reported(sets, folder, engine=None, facts=None, images=400, width=768, **options):
    """The totals of a validation that writes `8ca_5.html`; `options` are ValidationOptions."""
    engine = engine or KnownEngine(known_error)
    with closing(Report(folder / "8ca_5.html", len(sets), images, width)) as report:
        results = validated(engine, sets, watcher=report, **options)
        report.write(results, {"Run": "8ca", "Step": 5, **(facts or {})})
    results.write(folder, "8ca", 5)
    return results.totals
