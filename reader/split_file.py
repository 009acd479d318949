"""Files that say which pairs of a data set are for training and which for validation."""

from __future__ import annotations

import os

from reader.errors import DataError


def read_split(path: str | os.PathLike, count: int) -> list[str]:
    """Read a split file: one line per pair, 1 = training, 2 = validation.

    Parameters
    ----------
    path : path
        The file.
    count : int
        How many pairs it must describe.

    Returns
    -------
    list of str
        ``"1"`` or ``"2"`` per pair.

    Raises
    ------
    DataError
        The file is missing, holds anything else, or has another number of lines.
    """
    try:
        with open(path, encoding="ascii") as file:
            lines = file.read().split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a split file: {error}") from error
    wrong = sorted(set(lines) - {"1", "2"})
    if wrong:
        raise DataError(f"{path} holds {wrong[0]!r} where only 1 (training) and 2 are allowed")
    if len(lines) != count:
        raise DataError(f"{path} describes {len(lines)} pairs where the data set holds {count}")
    return lines
