"""A lock on a file: held by one process at a time, and gone with it, however it ends.

The kernel keeps it (flock), so a killed holder needs no clean-up and no clock is looked at. On NFS
Linux carries it to the server, and it holds between nodes. This module knows nothing of what is
locked.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from fusionrun.store.atomic import refuse_link

__all__ = ["Held", "locked"]

_LONGEST: Final = 4096


class Held(Exception):
    """Another process holds the lock.

    Attributes:
        holder: what it wrote about itself; empty where that cannot be read.
    """

    def __init__(self, path: Path, holder: Mapping[str, Any]) -> None:
        super().__init__(f"{path}: held by {dict(holder)}")
        self.holder = holder


@contextmanager
def locked(path: Path, holder: Mapping[str, Any]) -> Iterator[bool]:
    """Hold the lock while the block runs; yields False where the file system has no locks.

    Args:
        path: the lock's own file; it is created, and stays.
        holder: plain JSON that tells others who this is.

    Raises:
        Held: another process has it.
        OSError: the file cannot be opened, or is a symbolic link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    refuse_link(path)
    descriptor = os.open(path, flags, 0o666)
    try:
        yield _take(descriptor, path, holder)
    finally:
        with suppress(OSError):
            os.close(descriptor)


def _take(descriptor: int, path: Path, holder: Mapping[str, Any]) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Held(path, _holder(descriptor)) from error
    except OSError:
        return False
    with suppress(OSError):  # on a full disk it is held all the same, by someone without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(dict(holder)).encode(), 0)
    return True


def _holder(descriptor: int) -> Mapping[str, Any]:
    try:
        content = json.loads(os.pread(descriptor, _LONGEST, 0))
    except (OSError, RecursionError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}
