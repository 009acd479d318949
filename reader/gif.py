"""The check that a GIF is complete."""

from __future__ import annotations

from pathlib import Path

from reader.errors import DataError


def check_gif(path: Path) -> None:
    """Walk the blocks of a GIF (CompuServe, GIF89a specification) to its trailer.

    FFmpeg takes whatever is left of a cut or damaged GIF for the whole.

    Raises
    ------
    DataError
        A block is missing, incomplete or of an unknown kind.
    """
    with path.open("rb") as file:

        def read(size: int) -> bytes:
            data = file.read(size)
            if len(data) < size:
                raise DataError(f"cannot read {path}: the GIF is cut short")
            return data

        def skip_colour_table(flags: int) -> None:
            if flags & 0x80:
                read(3 << ((flags & 7) + 1))

        if file.read(6) not in (b"GIF87a", b"GIF89a"):
            raise DataError(f"cannot read {path}: it is not a GIF")
        skip_colour_table(read(7)[4])
        while True:
            kind = read(1)
            if kind == b";":
                return
            if kind == b",":
                skip_colour_table(read(9)[8])
            elif kind != b"!":
                raise DataError(f"cannot read {path}: the GIF is damaged")
            read(1)  # an extension's label, or the code size of an image
            while size := read(1)[0]:
                read(size)
