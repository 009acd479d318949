"""Reading and writing whole files, so that a reader never meets half of one."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Union

from maskflownet.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

PathLike = Union[str, "os.PathLike[str]"]


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Write a file under a temporary name and give it its own name once it is complete.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write. An existing one is replaced.

    Yields
    ------
    pathlib.Path
        A name in the same folder and with the same suffix, for the body of the ``with`` to write.
        It becomes `path` when the body ends, and is removed when the body raises.

    Raises
    ------
    DataError
        The folder of `path` does not exist, or `path` is itself a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise DataError(f"cannot write {path}: its folder {path.parent} does not exist")
    if path.is_dir():
        raise DataError(f"cannot write {path}: it is a folder")
    # The suffix stays last because encoders choose their format by it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        if temporary.exists():
            temporary.unlink()
        raise


def write_bytes(path: PathLike, data: bytes) -> None:
    """Write `data` as the file `path` through `atomic_path`.

    Raises
    ------
    DataError
        The file cannot be written, with the system's reason.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def check_file(path: PathLike) -> None:
    """Check that `path` is a file with something in it.

    Raises
    ------
    DataError
        It is missing, a folder, or empty.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"cannot read {path}: it is a folder")
    if not path.exists():
        raise DataError(f"cannot read {path}: there is no such file")
    if path.stat().st_size == 0:
        raise DataError(f"cannot read {path}: the file is empty")


def read_bytes(path: PathLike) -> bytes:
    """Return the content of the file `path`.

    Raises
    ------
    DataError
        The file is missing, a folder, empty, or the system refuses to read it.
    """
    check_file(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
