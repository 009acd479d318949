"""Pictures with their names, side by side, for the benchmarks that are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

LINE, GAP = 26, 6  # px: height of a name, space between pictures
BACKGROUND = 255


def grey(values: np.ndarray) -> np.ndarray:
    """Draw (H, W) or (H, W, 1) in [0, 1] as (H, W, 3) uint8, 1 is white."""
    picture = np.rint(255 * np.clip(values.reshape(values.shape[:2]), 0, 1)).astype(np.uint8)
    return np.repeat(picture[..., None], 3, axis=2)


def longest(flow: np.ndarray) -> float:
    """Length of the longest vector of a flow (H, W, 2), px; 1 of a flow at rest."""
    return float(np.hypot(flow[..., 0], flow[..., 1]).max()) or 1.0


def panels(rows: Sequence[Sequence[tuple[str, np.ndarray] | None]], width: int) -> np.ndarray:
    """Arrange named pictures of one size in rows.

    Parameters
    ----------
    rows : sequence of sequences of (name, picture) or None
        Pictures are (H, W, 3) uint8 RGB; None leaves a place empty.
    width : int
        Of each picture in the result, px.

    Returns
    -------
    (h, w, 3) uint8 array, RGB
    """
    first = next(panel for row in rows for panel in row if panel is not None)[1]
    size = width, round(first.shape[0] * width / first.shape[1])
    empty = np.full((size[1] + LINE + GAP, width + GAP, 3), BACKGROUND, np.uint8)
    columns = max(map(len, rows))
    lines = []
    for row in rows:
        places = []
        for panel in (*row, *[None] * (columns - len(row))):
            place = empty.copy()
            if panel is not None:
                name, picture = panel
                cv2.putText(place, name, (2, LINE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1,
                            cv2.LINE_AA)  # fmt: skip
                shrinks = picture.shape[1] > width
                how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
                place[LINE : LINE + size[1], :width] = cv2.resize(picture, size, interpolation=how)
            places.append(place)
        lines.append(np.hstack(places))
    return np.vstack(lines)[:-GAP, :-GAP]
