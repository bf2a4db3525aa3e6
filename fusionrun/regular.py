"""Reading what should be a file, and may be anything.

A pipe would block whoever opens it, a device never ends, and a data file in the place of a recipe
fills the memory. So nothing is opened to wait, nothing but a regular file is read, and no more of
it than what reads it can use. It imports nothing of the project.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["MOST_BYTES", "last_bytes", "open_regular", "read_regular"]

MOST_BYTES: Final = 256 << 20
"""No record of a run is as large: a plan of 100,000 epochs takes a few megabytes a component."""

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_regular(path: Path) -> BinaryIO:
    """A file to read from.

    Raises:
        OSError: what the file system says; EINVAL where it is a pipe, a device or a socket.
    """
    descriptor = os.open(path, _FLAGS)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """All of a file.

    Raises:
        OSError: as for `open_regular`; EFBIG where it is larger than `most_bytes`.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise OSError(errno.EFBIG, f"more than {most_bytes:,} bytes", str(path))
        return file.read()


def last_bytes(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The end of a file of lines, from the beginning of a line where it is longer than so many.

    Raises:
        OSError: as for `open_regular`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - most_bytes))
        data = file.read(most_bytes)
    return data.partition(b"\n")[2] if size > most_bytes else data
