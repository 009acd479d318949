"""Labelled pairs without files, and an engine that predicts them with known errors."""

from __future__ import annotations

import numpy as np
from maskflownet.engine.contract import Engine, Prediction
from maskflownet.reader.sample import Sample
from maskflownet.report.report import Report

from tests.known_engine import validated
from tests.trees import label, picture

SIZE = (64, 128)


class MemorySet:
    """`errors[i]` px is what `MaskEngine` is off by in the i-th pair; the names may be any."""

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
        return Sample(image, picture(index + 1, self.size), flow, None, self.names[index])

    def occlusion(self, index):
        return None if self._noc else self._half()

    def noc(self, index):
        return self._half() if self._noc else None

    def _half(self):
        flags = np.zeros((*self.size, 1), np.uint8)
        flags[: self.size[0] // 2] = 255
        return flags


class MaskEngine(Engine):
    """Predicts the label and the error of a `MemorySet`'s pair, and a mask where it is asked to."""

    def __init__(self):
        self.calls = []

    def parameters(self):
        return {}

    def rebuild(self, record):
        raise TypeError("this engine has no network")

    assign = training = rebuild

    def submit(self, image_1, image_2, sizing=None, mask=True, warped=True):
        self.calls.append((len(image_1), mask))
        flows = [np.full((*image.shape[:2], 2), self._flow(image)) for image in image_1]
        masks = np.linspace(0, 1, image_1[0, ..., 0].size).reshape(image_1.shape[1:3] + (1,))
        return lambda: Prediction(
            np.stack(flows).astype(np.float32),
            np.stack([masks] * len(flows)).astype(np.float32) if mask else None,
            None,
        )

    @staticmethod
    def _flow(image):
        high, low, number = image[0, 0].tolist()
        return np.array(label(number)) + (0, (256 * high + low) / 100)


def reported(engine, sets, folder, facts=None, images=400, width=768, **options):
    """The totals of a validation that writes `8ca_5.html`; `options` are ValidationOptions."""
    with Report(folder / "8ca_5.html", len(sets), images, width) as report:
        results = validated(engine, sets, watcher=report, **options)
        report.write(results, {"Run": "8ca", "Step": 5, **(facts or {})})
    results.write(folder, "8ca", 5)
    return results.totals
