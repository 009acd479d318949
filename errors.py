"""The error that a user can put right, packages that may be missing, and warnings."""

import difflib
import reprlib
import sys
import warnings
from contextlib import suppress
from functools import cache
from importlib import import_module
from types import ModuleType

LONGEST = 2000  # characters of an error, which may name what someone's file holds


class UserError(Exception):
    """Something the user can put right: one sentence that says what is wrong and what would do."""

    def __str__(self) -> str:
        return shortened(super().__str__())


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def imported(name: str, needs: str, advice: str) -> ModuleType:
    """A module of a package that may be missing; else a UserError: who `needs` it, why there is none, what would do."""
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: a library that it needs is missing
        raise UserError(f"{needs} ({error}): {advice}") from error


def nearest(name: str, known) -> str:
    """A hint ", did you mean X?" for the known name that is nearest to `name`, or nothing."""
    match = difflib.get_close_matches(str(name)[:100], [str(k) for k in known], n=1, cutoff=0.5)
    return f", did you mean {match[0]!r}?" if match else ""


class _Short(reprlib.Repr):
    def repr_int(self, x, level):  # noqa: ARG002
        return hex(x) if x.bit_length() > 10_000 else repr(x)  # Python refuses to write thousands of digits


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlist = _SHORT.maxdict = 12


def shown(value) -> str:
    """What was given, for an error: its `repr`, cut where it is long."""
    text = _SHORT.repr(value)
    return text if len(text) < 100 else f"{text[:80]}..."


def show_warning(message, *_, **__) -> None:
    """In the place of `warnings.showwarning`: one sentence, without the line of the code."""
    with suppress(OSError):
        print(f"warning: {message}", file=sys.stderr)


@cache
def warn_once(text: str) -> None:
    warnings.warn(text, stacklevel=2)
