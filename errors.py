"""The error that a user can put right."""

import difflib


class UserError(Exception):
    """Something the user can put right: one sentence that says what is wrong and what would do."""


def nearest(name: str, known) -> str:
    """A hint ", did you mean X?" for the known name that is nearest to `name`, or nothing."""
    match = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f", did you mean {match[0]!r}?" if match else ""
