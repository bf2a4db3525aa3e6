"""Checkpoints on disk: each either whole, down to its last byte, or not there.

A checkpoint is a directory `step-000000123` of files and a manifest with every file's SHA-256 and
one of its own content. It is written aside, flushed to disk, the manifest last, and renamed. A
reader takes the bytes only together with their hash. This module knows nothing of what the files
hold, and imports no torch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from fusionrun.regular import MOST_BYTES, read_regular
from fusionrun.store import atomic
from fusionrun.store.layout import MANIFEST
from fusionrun.store.manifest import digest_of

__all__ = [
    "PLACE",
    "Checkpoint",
    "Damaged",
    "list_checkpoints",
    "remove_checkpoints",
    "save_checkpoint",
    "set_aside",
]

FORMAT: Final = 2

PLACE: Final = "run.json"
"""Where the run stood and what its bits depend on: JSON, for those without torch too."""

T = TypeVar("T")

_NAME: Final = re.compile(r"step-(\d{9,})")
# What a killed `save_checkpoint` leaves: see `atomic.replace_directory`.
_UNFINISHED: Final = re.compile(r"\.step-\d{9,}\.(tmp|old)-[0-9a-f]+")


class Damaged(Exception):
    """A checkpoint is not what was saved. It is passed over, so this never reaches a user alone."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, nothing of it read yet.

    Attributes:
        path: its directory.
        step: steps that the run had taken.
    """

    path: Path
    step: int

    @property
    def name(self) -> str:
        """What it is called in events and messages."""
        return self.path.name

    def read(self) -> dict[str, bytes]:
        """Every file's content by name, each proved to be what was saved.

        Raises:
            Damaged: anything is missing, unreadable or other than it was written.
        """
        return self._each(self._content)

    def read_one(self, name: str) -> bytes:
        """One file's content, proved likewise.

        Raises:
            Damaged: likewise, or there is no such file.
        """
        try:
            return self._content(name, **self._manifest()["files"][name])
        except (KeyError, TypeError) as error:
            raise Damaged(f"{MANIFEST} has another shape: {error!r}") from error

    def problem(self, *, thorough: bool) -> str:
        """What is wrong with it, in words; empty where nothing is.

        Args:
            thorough: also whether every byte is as it was written: a second for each gigabyte.
        """
        try:
            self._each(self._check_content if thorough else self._check_size)
        except Damaged as error:
            return str(error)
        return ""

    def _each(self, look: Callable[..., T]) -> dict[str, T]:
        """What `look` makes of every file, given its name and what the manifest says of it."""
        content = self._manifest()
        try:
            files = content["files"].items()
            return {name: look(name, **record) for name, record in files}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{MANIFEST} has another shape: {error!r}") from error

    def _manifest(self) -> Mapping[str, Any]:
        try:
            raw = json.loads(_read(self.path / MANIFEST))
            content = {key: value for key, value in raw.items() if key != "sha256"}
            sound = raw["sha256"] == digest_of(content)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise Damaged(f"{MANIFEST} is not what was written: {error!r}") from error
        if not sound:
            raise Damaged(f"{MANIFEST} does not match its own sha256")
        if (found := content.get("format")) != FORMAT:
            raise Damaged(f"{MANIFEST} has format {found!r}, expected {FORMAT}")
        if (step := content.get("step")) != self.step:
            raise Damaged(
                f"{MANIFEST} is of step {step!r}, and the directory is called {self.name}: the "
                "manifest counts, so it is not the checkpoint it is called; renamed it can be used"
            )
        return content

    def _check_size(self, name: str, *, bytes: int, sha256: str) -> None:
        if os.path.basename(name) != name:
            raise Damaged(f"{MANIFEST} names {name!r}, which is no file of a checkpoint")
        size = _size(self.path / name)
        if size != bytes:
            raise Damaged(f"{name}: {size:,} bytes, expected {bytes:,}")

    def _check_content(self, name: str, *, bytes: int, sha256: str) -> None:
        self._content(name, bytes=bytes, sha256=sha256)

    def _content(self, name: str, *, bytes: int, sha256: str) -> bytes:
        self._check_size(name, bytes=bytes, sha256=sha256)
        content = _read(self.path / name, bytes)
        got = hashlib.sha256(content).hexdigest()
        if got != sha256:
            raise Damaged(f"{name}: sha256 {got[:12]}…, expected {sha256[:12]}…")
        return content


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """All that lie in `folder`, the newest first, whole or not; none where there is no folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [(int(match[1]), name) for name in names if (match := _NAME.fullmatch(name))]
    return [Checkpoint(folder / name, step) for step, name in sorted(found, reverse=True)]


def save_checkpoint(
    folder: Path, step: int, files: Iterable[tuple[str, bytes | memoryview]]
) -> Checkpoint:
    """Writes a checkpoint, in place of one of the same step.

    Args:
        folder: `RunLayout.checkpoints`; created where it is not there.
        step: steps taken.
        files: name and content of each; drawn one at a time, so that not all need be in memory.

    Raises:
        OSError: what the file system says; nothing has changed then.
    """
    checkpoint = Checkpoint(folder / f"step-{step:09d}", step)

    def fill(aside: Path) -> None:
        records = {name: _write(aside / name, content) for name, content in files}
        manifest = {"format": FORMAT, "step": step, "files": records}
        atomic.write_json(aside / MANIFEST, {**manifest, "sha256": digest_of(manifest)})

    atomic.replace_directory(checkpoint.path, fill)
    return checkpoint


def set_aside(checkpoint: Checkpoint) -> Path:
    """Gives a damaged checkpoint another name, under which nothing here finds it any more.

    It stays, as evidence of what damaged it, until `remove_checkpoints` takes the whole folder.

    Returns:
        Where it is: `step-000000123.damaged`, or `….damaged-2` where there is one already.

    Raises:
        OSError: what the file system says.
    """
    names = (f".damaged-{n}" if n > 1 else ".damaged" for n in itertools.count(1))
    paths = (checkpoint.path.with_name(checkpoint.name + name) for name in names)
    free = next(path for path in paths if not os.path.lexists(path))
    os.rename(checkpoint.path, free)
    return free


def remove_checkpoints(folder: Path, keep: Collection[Checkpoint] = ()) -> None:
    """Removes all but `keep`, and what killed saves have left; the folder too where none stay.

    What cannot be removed stays: it costs room and nothing else.
    """
    kept = {checkpoint.name for checkpoint in keep}
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name in os.listdir(folder):
        if name not in kept and (_NAME.fullmatch(name) or _UNFINISHED.fullmatch(name)):
            shutil.rmtree(folder / name, ignore_errors=True)


def _write(path: Path, content: bytes | memoryview) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": atomic.create_bytes(path, content)}


def _size(path: Path) -> int:
    """Of a regular file: a pipe would block whoever reads it."""
    try:
        found = os.lstat(path)
    except OSError as error:
        raise Damaged(f"{path.name}: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise Damaged(f"{path.name}: not a regular file")
    return found.st_size


def _read(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    try:
        return read_regular(path, most_bytes)
    except OSError as error:
        raise Damaged(f"{path.name}: {error.strerror or error}") from error
