"""How the measures of `engine.metrics` are called, written and ordered on the page."""

from __future__ import annotations

import math
from typing import Mapping, NamedTuple


class Measure(NamedTuple):
    """How a measure is shown; `decimals` are those of a single image, totals have one more."""

    label: str
    unit: str  # "px", "%" (of a share from 0 to 1) or "" (a plain number)
    meaning: str
    low_is_worse: bool = False

    def text(self, value: float, more: int = 0) -> str:
        """Format a value for people; what is not finite is told as such."""
        if not math.isfinite(value):
            return "no number"
        if self.unit == "%":
            return f"{100 * value:.{1 + more}f}"
        return f"{value:.{2 + more}f}"


_SHARE = "Share of the pixels whose error is below {} px."
_SPEED = "Mean end-point error of the pixels whose true motion is {} px."
MEASURES = {
    "epe": Measure("EPE", "px", "Mean end-point error: length of flow minus ground truth."),
    "fl": Measure(
        "Fl", "%", "Share of outliers: error above 3 px and above 5 % of the true motion."
    ),
    "1px": Measure("< 1 px", "%", _SHARE.format(1), low_is_worse=True),
    "3px": Measure("< 3 px", "%", _SHARE.format(3), low_is_worse=True),
    "5px": Measure("< 5 px", "%", _SHARE.format(5), low_is_worse=True),
    "s0-10": Measure("s0–10", "px", _SPEED.format("below 10")),
    "s10-40": Measure("s10–40", "px", _SPEED.format("10 to 40")),
    "s40+": Measure("s40+", "px", _SPEED.format("40 or more")),
    "matched": Measure("Matched", "px", "Mean error of the pixels that image 2 shows."),
    "unmatched": Measure("Unmatched", "px", "Mean error of the pixels that are occluded there."),
    "epe_noc": Measure("EPE noc", "px", "Mean error of the pixels that both images show."),
    "fl_noc": Measure("Fl noc", "%", "Share of outliers among these."),
    "consistent": Measure(
        "Consistent",
        "%",
        "Share of the pixels that the flow of the opposite direction leads back.",
        low_is_worse=True,
    ),
    "epe_consistent": Measure("EPE cons.", "px", "Mean error of the consistent pixels."),
    "epe_inconsistent": Measure("EPE incons.", "px", "Mean error of the inconsistent pixels."),
    "occluded": Measure("Occluded", "%", "Share of the pixels that are occluded in image 2."),
    "ause_confidence": Measure(
        "AUSE conf.", "", "Sparsification error of the confidence: 0 = it orders as the error does."
    ),
    "ause_mask": Measure("AUSE mask", "", "The same of the learned mask."),
    "ap_confidence": Measure(
        "AP conf.",
        "",
        "Average precision with which low confidence finds occluded pixels.",
        low_is_worse=True,
    ),
    "ap_mask": Measure("AP mask", "", "The same of the learned mask.", low_is_worse=True),
}


def shown(name: str) -> Measure:
    """How a measure is shown; one that is not in `MEASURES` bears its own name."""
    return MEASURES.get(name, Measure(name, "", name))


def badness(measures: Mapping[str, tuple[float, int]]) -> float:
    """Order of images, the worst highest: EPE; no number is worst, no labelled pixel least."""
    total, count = measures["epe"]
    if not count:
        return -1.0
    return total / count if math.isfinite(total) else math.inf
