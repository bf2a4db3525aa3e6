"""Writing so that a reader, or a machine that dies, finds the old content or the new, whole.

Every file is written aside in its own directory under a hidden name created for it alone, flushed
to disk, and renamed over its target; then the directory is flushed, so that the rename lasts too.
Permissions follow the process's umask, as for any file a program creates. One process at a time
may replace a given target. A symbolic link that stands where a file is to be written is replaced,
or refused where the file is appended to: nothing is written through it. This module knows nothing
of what it writes.
"""

from __future__ import annotations

import errno
import hashlib
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
    "create_bytes",
    "finite",
    "make_folder",
    "open_appending",
    "refuse_link",
    "remove_leftovers",
    "replace_directory",
    "replacing",
    "require_space",
    "sync_file",
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


def create_bytes(path: Path, data: bytes | memoryview) -> str:
    """Makes a new file of `data`, flushed to disk; returns its SHA-256 in hexadecimal.

    For files of a directory that is built aside: they need no rename of their own.

    Raises:
        OSError: what the file system says; `FileExistsError` where something bears the name.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _naming(path, error) from error
    return hashlib.sha256(data).hexdigest()


def require_space(folder: Path, size: int) -> None:
    """Raises OSError (ENOSPC) where the file system of `folder` has no room for `size` bytes.

    Half a checkpoint on a full disk helps nobody, and takes the room that logs need. A folder
    that is not there yet is judged by the nearest one above it.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        words = f"{size:,} bytes are to be written, {free:,} are free"
        raise OSError(errno.ENOSPC, words, str(folder))


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
    descriptor = open_appending(path)
    try:
        if _ends_in_mid_line(descriptor):
            line = b"\n" + line
        written = os.write(descriptor, line)
        if written != len(line):
            _take_back(descriptor, written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise _naming(path, error) from error
    finally:
        os.close(descriptor)


def _take_back(descriptor: int, written: int) -> None:
    """Removes the half of a line that the disk has taken, unless another's came behind it."""
    size = os.fstat(descriptor).st_size
    if size == os.lseek(descriptor, 0, os.SEEK_CUR):
        os.ftruncate(descriptor, size - written)


def open_appending(path: Path) -> int:
    """The descriptor of a file to append to and read, created when it is not there.

    Raises:
        OSError: what the file system says; ELOOP where a symbolic link stands there, for whoever
            has put it there would have us write into another file.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        raise _link(path) if error.errno == errno.ELOOP else error from error


def make_folder(path: Path) -> None:
    """Makes a folder of a run where there is none; its parent must exist.

    Raises:
        OSError: what the file system says; ELOOP where a symbolic link stands there, for what is
            written below it would land elsewhere.
    """
    refuse_link(path)
    path.mkdir(exist_ok=True)


def refuse_link(path: Path) -> None:
    """For a path that another program writes to. Raises OSError (ELOOP) for a symbolic link."""
    if path.is_symlink():
        raise _link(path)


def _link(path: Path) -> OSError:
    return OSError(errno.ELOOP, "a symbolic link, which nothing is written through", str(path))


def replace_directory(target: Path, fill: Callable[[Path], None]) -> None:
    """Builds a directory aside with `fill`, then swaps it in for `target`.

    The directory around `target` is made where it is missing; what is above that must be there.

    `fill` gets an empty directory and writes into it, by `create_bytes` or so: what it writes it
    flushes to disk. When it raises, or the swap fails, `target` is as it was. A directory takes
    another's place in one call, so that a reader finds the old one or the new one at any moment;
    where the file system cannot do that (NFS) in two, and a process killed exactly between them
    leaves the old one beside `target`, hidden, until the next call puts it back. Leftovers of
    killed calls are removed.

    Raises:
        OSError: what the file system says, also where the directory around `target` is a symbolic
            link, which nothing of ours has put there; and whatever `fill` raises.
    """
    target.parent.mkdir(exist_ok=True)  # (what lies above it is somebody else's to make)
    if target.parent.is_symlink():
        raise OSError(errno.ELOOP, "a symbolic link, expected a directory", str(target.parent))
    _settle(target)
    fresh = _aside(target, "tmp")
    fresh.mkdir()
    try:
        fill(fresh)
        for folder, _, _ in os.walk(fresh, topdown=False):
            _sync_directory(Path(folder))
        _swap(fresh, target)
    except BaseException:
        _discard(fresh)
        raise


def _swap(fresh: Path, target: Path) -> None:
    if not os.path.lexists(target):
        os.rename(fresh, target)
        _sync_directory(target.parent)
    elif _exchange(fresh, target):
        _sync_directory(target.parent)
        _discard(fresh)  # (the old one, by now)
    else:
        _swap_in_two(fresh, target)


def _exchange(one: Path, other: Path) -> bool:
    """Both names trade places in one call; False where the file system or the system cannot."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    done = libc.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)
    )
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


# Linux: renameat2(2).
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def _swap_in_two(fresh: Path, target: Path) -> None:
    old = _aside(target, "old")
    os.rename(target, old)
    try:
        os.rename(fresh, target)
    except BaseException:
        os.rename(old, target)
        raise
    _sync_directory(target.parent)
    _discard(old)


def _discard(folder: Path) -> None:
    """Removes what is not needed any more; what cannot be removed costs room and nothing else."""
    if folder.is_symlink():
        _remove(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _settle(target: Path) -> None:
    """Ends what killed calls began: the old directory back in place, everything else removed."""
    for old in _leftovers(target, "old"):
        if os.path.lexists(target):
            _discard(old)
        else:
            os.rename(old, target)
    for unfinished in _leftovers(target, "tmp"):
        _discard(unfinished)


def _leftovers(target: Path, kind: str) -> list[Path]:
    start = _hidden(target, kind)
    return [p for p in sorted(target.parent.iterdir()) if p.name.startswith(start) and p.is_dir()]


def _hidden(path: Path, kind: str) -> str:
    # Cut so that the longest name a file system allows, 255 bytes, still leaves room for the rest.
    return f".{os.fsdecode(os.fsencode(path.name)[:230])}.{kind}-"


def _aside(path: Path, kind: str) -> Path:
    return path.parent / (_hidden(path, kind) + os.urandom(6).hex())


def sync_file(path: Path) -> None:
    """Flushes a file to disk."""
    _sync(path, os.O_RDONLY)


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


def remove_leftovers(path: Path) -> None:
    """Removes what killed writers of `path`, a file, have left beside it; nobody may write now."""
    for name in os.listdir(path.parent):
        if name.startswith(_hidden(path, "tmp")):
            _remove(path.parent / name)


def finite(obj: object) -> Any:
    """`obj` with null for every number that is not finite, and tuples as lists."""
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {key: finite(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [finite(value) for value in obj]
    return obj
