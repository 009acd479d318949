"""A run's file by what a user calls it: a path, the run's id, or a unique beginning of one."""

from __future__ import annotations

from pathlib import Path
from typing import Collection

from engine.errors import UserError


def as_path(name, suffix: str, what: str) -> Path | None:
    """The path that a name is, None where it is none but a run's id.

    Parameters
    ----------
    name : str or Path
    suffix : str
        Of such files; a name with it, or with a slash, is a path.
    what : str
        Of which kind the file is, for the message: "checkpoint".

    Raises
    ------
    UserError
        There is no such file.
    """
    text = str(name)
    if not text.endswith(suffix) and "/" not in text:
        return None
    if not Path(name).is_file():
        raise UserError(f"no {what} {name}: there is no such file")
    return Path(name)


def find_run(prefix: str, runs: Collection[str], not_unique: str, missing: str) -> str:
    """The run whose id is `prefix`, or the only one that begins so.

    Raises
    ------
    UserError
        `not_unique` or `missing`, with the runs that there are.
    """
    fitting = [prefix] if prefix in runs else [run for run in runs if run.startswith(prefix)]
    if len(fitting) > 1:
        raise UserError(f"{not_unique} is ambiguous: it fits {', '.join(sorted(fitting))}")
    if not fitting:
        there = f"it holds {', '.join(sorted(runs))}" if runs else "it holds none"
        raise UserError(f"{missing}: {there}")
    return fitting[0]
