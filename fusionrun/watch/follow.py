"""A run's log as it grows, across attempts, until nothing more will come.

Requeued jobs append to the same file. Where one is cut or replaced all the same, what is there
then is new.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fusionrun.regular import open_regular
from fusionrun.store.layout import RunLayout
from fusionrun.watch.files import json_object, text
from fusionrun.watch.look import SeenRun, look
from fusionrun.watch.state import ENDED

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm

__all__ = ["Growing", "end_of", "follow"]

READ_EVERY_S: Final = 0.5
LOOK_EVERY_S: Final = 15.0
"""How often Slurm is asked about a run whose files say that it goes on."""
LOOK_AGAIN_S: Final = 2.0
"""Likewise where they have changed, or say that it has ended, which a job may refute."""
_GOES_ON: Final = frozenset({"running", "queued"})

_BLOCK: Final = 1 << 16


def end_of(path: Path, lines: int) -> tuple[bytes, int]:
    """The last lines of a file, and the offset behind them; nothing where there is no file.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        with open_regular(path) as file:
            end = position = file.seek(0, os.SEEK_END)
            data = b""
            # One more line break than lines: the one before the first of them.
            while position and data.count(b"\n", 0, max(0, len(data) - 1)) < lines:
                step = min(_BLOCK, position)
                position -= step
                file.seek(position)
                data = file.read(step) + data
    except FileNotFoundError:
        return b"", 0
    return b"".join(_lines(data)[-lines:]) if lines else b"", end


def _lines(data: bytes) -> list[bytes]:
    """Cut at line feeds alone: a progress bar's carriage returns make no lines."""
    parts = [part + b"\n" for part in data.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return [part for part in parts if part]


class Growing:
    """A file that somebody appends to.

    Args:
        path: it may not be there yet.
        offset: what was read of it already.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path, self._offset = path, offset
        self._identity = self._identity_now()

    def more(self) -> bytes:
        """What has come since; empty where nothing has, or the file cannot be read now."""
        try:
            with open_regular(self._path) as file:
                found = os.fstat(file.fileno())
                identity = (found.st_dev, found.st_ino)
                if found.st_size < self._offset or identity != (self._identity or identity):
                    self._offset = 0
                self._identity = identity
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return b""
        self._offset += len(data)
        return data

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def follow(
    layout: RunLayout,
    offset: int,
    *,
    slurm: Slurm | None = None,
    notify: Callable[[SeenRun], None] = lambda run: None,
) -> Iterator[bytes]:
    """What a run's log says from an offset on, as it comes, until the run has ended.

    Args:
        layout: the run.
        offset: in the log's bytes.
        slurm: the cluster; this machine's unless given.
        notify: told how the run stands whenever that has changed, after what the log said before.
    """
    log, word, looked_at, seen_files = Growing(layout.log, offset), "", 0.0, ""
    while True:
        files = _word_of_files(layout)
        wait_s = LOOK_EVERY_S if files in _GOES_ON and files == seen_files else LOOK_AGAIN_S
        if time.monotonic() < looked_at + wait_s and word:
            yield log.more()
            time.sleep(READ_EVERY_S)
            continue
        (run,) = look([layout], slurm).runs
        looked_at, seen_files = time.monotonic(), files
        yield log.more()  # after the look: all that was written before an end is there now
        if run.state.word != word:
            notify(run)
        word = run.state.word
        if word in ENDED and run.state.certain:
            return


def _word_of_files(layout: RunLayout) -> str:
    """How the run stands by its status alone: cheap, and enough to know when to look again."""
    return text(json_object(layout.status), "state")
