"""Reading and writing whole files, so that a reader never meets half of one; the order of file names."""

import os
import re
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from maskflownet.errors import UserError, warn_once

PathLike = str | os.PathLike[str]
_TEMPORARY = re.compile(r"\.+(.+)\.[0-9a-f]{12}\.tmp(\.[^.]*)?")  # of the file whose name begins so
_DAY = 86400  # s; no process writes one file for so long
# A picture of 100 million pixels wants more than 100 GB in the network.
_MAX_PIXELS = "MASKFLOWNET_MAX_PIXELS"


def natural(name: PathLike) -> list:
    """Key that sorts names by the numbers in them: frame_2 before frame_10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", os.fspath(name)))]


def walk(root: PathLike) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, with a warning about the folders that it leaves out: unreadable ones and links."""
    left_out: list[str] = []
    errors: list[OSError] = []
    for folder, subfolders, names in os.walk(root, onerror=errors.append):
        paths = [os.path.join(folder, name) for name in subfolders if not name.startswith(".")]
        left_out += [f"{path} (a link)" for path in paths if os.path.islink(path)]
        yield folder, subfolders, names
    warn_left_out(root, left_out + [f"{error.filename} ({error.strerror})" for error in errors])


def warn_left_out(root: PathLike, paths: Sequence) -> None:
    """Count what lies below `root` and is not used, and name the first three."""
    if paths:
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        named = ", ".join(str(path).removeprefix(os.path.join(root, "")) for path in paths[:3])
        warnings.warn(f"{root}: {len(paths)} files or folders are left out: {named}{more}", stacklevel=2)


@contextmanager
def atomic_path(path: PathLike, durable: bool = False) -> Iterator[Path]:
    """Write a file under a temporary name and give it its own name once it is complete.

    Yields a name in the same folder and with the same suffix, for the body of the ``with`` to
    write. It replaces `path` when the body ends, and is removed when the body raises. `durable`: even
    after a power cut the file is the old or the new one, which costs some 10 ms.

    UserError: The file cannot be written; the message has its name and the reason, such as a full disk.
    """
    path = Path(path)
    # The suffix stays last because encoders choose their format by it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: its folder {path.parent} does not exist")
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder")
        yield temporary
        if durable:
            with open(temporary, "r+b") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        ours = "None", str(path), str(temporary), f"file:{temporary}"
        if isinstance(error, OSError) and str(error.filename) in ours:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def write_bytes(path: PathLike, data: bytes, durable: bool = False) -> None:
    with atomic_path(path, durable) as temporary:
        temporary.write_bytes(data)


@contextmanager
def if_possible(what: PathLike) -> Iterator[None]:
    """What cannot be written inside is left out, with a warning."""
    try:
        yield
    except (OSError, UserError) as error:
        reason = error.__cause__ if isinstance(error, UserError) else error
        warn_once(f"cannot write {what}: {getattr(reason, 'strerror', None) or error}; the training goes on without it")


def sweep(folder: PathLike, prefix: str) -> None:
    """Remove what killed processes left of files whose names begin so, and all that is older than a day."""
    for path in Path(folder).glob(".*.tmp*"):
        found = _TEMPORARY.fullmatch(path.name)
        with suppress(OSError):  # another one sweeps, too
            if found and (found[1].startswith(prefix) or time.time() - path.stat().st_mtime > _DAY):
                path.unlink()


def check_file(path: PathLike) -> None:
    """Raise a UserError unless `path` is a file with something in it."""
    if os.path.isdir(path):
        raise UserError(f"cannot read {path}: it is a folder")
    if not os.path.exists(path):
        raise UserError(f"cannot read {path}: there is no such file")
    if os.path.getsize(path) == 0:
        raise UserError(f"cannot read {path}: the file is empty")


def read_bytes(path: PathLike) -> bytes:
    """Return the content of a file; a UserError where it is missing, a folder, empty or refused."""
    check_file(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def max_pixels() -> int:
    """Return how many pixels a picture, flow or frame may have: 10^8, or what the environment says."""
    stated = os.environ.get(_MAX_PIXELS, "100000000")
    if not stated.isdecimal():
        raise UserError(f"the environment variable {_MAX_PIXELS} is a whole number, not {stated!r}")
    return int(stated)


def check_pixels(path: PathLike, count: int) -> None:
    """Raise a UserError where a file states more pixels than `max_pixels`."""
    if count > max_pixels():
        raise UserError(
            f"cannot read {path}: its header states {count:,} pixels, more than {max_pixels():,}; "
            f"the environment variable {_MAX_PIXELS} sets another limit"
        )
