"""The error that a user's data can cause."""


class DataError(Exception):
    """A file or data set that cannot be used: one sentence that names the path and the reason."""
