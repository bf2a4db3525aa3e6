"""Writing so that a reader, or a machine that dies, finds the old content or the new, whole.

Every file is written aside in its own directory under a hidden name created for it alone, flushed
to disk, and renamed over its target; then the directory is flushed, so that the rename lasts too.
Permissions follow the process's umask, as for any file a program creates. One process at a time
may replace a given target. This module knows nothing of what it writes.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

__all__ = [
    "append_line",
    "finite",
    "replace_directory",
    "replacing",
    "write_bytes",
    "write_json",
    "write_text",
]


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that takes `path`'s place when the block ends well.

    When the block raises, or the disk does, nothing is left behind and `path` is as it was. (The
    one exception: the rename is done and flushing the directory fails. Then the new content is in
    place, and only its survival of a power cut is in doubt.)

    Raises:
        OSError: what the file system says.
    """
    aside = _aside(path, "tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(aside, flags, 0o666)  # the kernel takes the umask away
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(aside, path)
    except OSError as error:
        _remove(aside)
        raise _naming(path, error) from error
    except BaseException:
        _remove(aside)
        raise
    _sync_directory(path.parent)


def _remove(path: Path) -> None:
    with suppress(OSError):
        os.unlink(path)


def _naming(path: Path, error: OSError) -> OSError:
    """The error with the file it is about: a write to an open file does not say."""
    return error if error.filename else OSError(error.errno, error.strerror, str(path))


def write_bytes(path: Path, data: bytes) -> None:
    """Makes `data` the whole content of `path`. Its directory must exist."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Makes `text` the whole content of `path`, in UTF-8, line breaks as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, obj: object) -> None:
    """Makes `obj`, as JSON, the whole content of `path`: two spaces of indent, keys in order.

    A number that is not finite becomes null: JSON has no word for it, and a loss that diverged
    must not cost the record of it.
    """
    write_bytes(path, _json(obj, indent=2))


def append_line(path: Path, obj: object) -> None:
    """Adds `obj` as one line of JSON, in one write, creating the file when it is not there.

    Several processes may append. The line is not flushed to disk: it survives a killed process,
    not a power cut. Where an earlier writer died in mid-line, the new line starts on its own, so
    that one record is lost and not two.

    Raises:
        OSError: what the file system says, also when it took only part of the line.
    """
    line = _json(obj)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        if _ends_in_mid_line(descriptor):
            line = b"\n" + line
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise _naming(path, error) from error
    finally:
        os.close(descriptor)


def replace_directory(target: Path, fill: Callable[[Path], None]) -> None:
    """Builds a directory aside with `fill`, then swaps it in for `target`.

    `fill` gets an empty directory and writes into it. When it raises, or the swap fails, `target`
    is as it was. A directory can only be replaced by two renames: a process killed exactly between
    them leaves the old one beside `target`, hidden, and the next call starts by putting it back.
    Leftovers of killed calls are removed.

    Raises:
        OSError: what the file system says; and whatever `fill` raises.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _settle(target)
    fresh = _aside(target, "tmp")
    fresh.mkdir()
    try:
        fill(fresh)
        _sync_tree(fresh)
        _swap(fresh, target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _swap(fresh: Path, target: Path) -> None:
    old = _aside(target, "old")
    with suppress(FileNotFoundError):
        os.rename(target, old)
    try:
        os.rename(fresh, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.rename(old, target)
        raise
    _sync_directory(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _settle(target: Path) -> None:
    """Ends what killed calls began: the old directory back in place, everything else removed."""
    for old in _leftovers(target, "old"):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, target)
    for unfinished in _leftovers(target, "tmp"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _leftovers(target: Path, kind: str) -> list[Path]:
    start = _hidden(target, kind)
    return [p for p in sorted(target.parent.iterdir()) if p.name.startswith(start) and p.is_dir()]


def _hidden(path: Path, kind: str) -> str:
    # Cut so that the longest name a file system allows, 255 bytes, still leaves room for the rest.
    return f".{os.fsdecode(os.fsencode(path.name)[:230])}.{kind}-"


def _aside(path: Path, kind: str) -> Path:
    return path.parent / (_hidden(path, kind) + os.urandom(6).hex())


def _sync_tree(directory: Path) -> None:
    for parent, _, files in os.walk(directory, topdown=False):
        for name in files:
            _sync(Path(parent, name), os.O_RDONLY)
        _sync_directory(Path(parent))


def _sync_directory(directory: Path) -> None:
    try:
        _sync(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        # Some network file systems cannot flush a directory, and say so; the rename stands.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ends_in_mid_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _json(obj: object, indent: int | None = None) -> bytes:
    text = json.dumps(finite(obj), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name may hold bytes that are no text; JSON's own escape carries them.
    return text.encode("utf-8", "backslashreplace")


def finite(obj: object) -> Any:
    """`obj` with null for every number that is not finite, and tuples as lists."""
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {key: finite(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [finite(value) for value in obj]
    return obj
