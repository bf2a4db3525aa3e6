"""The real job in a process of its own, which dies at the n-th boundary of its file operations.

A boundary is the moment before a call that opens, writes, flushes, renames or removes anything,
counted over all threads; the process kills itself there with SIGKILL, or half-way through a write.
Processes are forked from a server that has imported torch once, so that an attempt takes a second.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from fusionrun.slurm.rendezvous import meeting_port

CALLS = (
    "fsync",
    "ftruncate",
    "mkdir",
    "open",
    "pwrite",
    "rename",
    "replace",
    "rmdir",
    "truncate",
    "unlink",
    "write",
)
WRITES = {"pwrite", "write"}
_ports = count(os.getpid() * 41)


class Fate(NamedTuple):
    """How a process dies.

    Attributes:
        boundary: before which file operation, from 1; 0: never.
        torn: half-way through the operation, if it writes.
        environment: of the process, on top of ours.
    """

    boundary: int = 0
    torn: bool = False
    environment: Mapping[str, str] = {}


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
        code: its exit code; negative: the signal that killed it.
        boundaries: how many it had come to.
        step: the last step that it had begun, counted from 0.
    """

    code: int | None
    boundaries: int
    step: int


UNDISTURBED = Fate()


def attempt(
    run: Path,
    fates: tuple[Fate, ...] = (UNDISTURBED,),
    *,
    timeout_s: float = 120.0,
    meanwhile: Callable[[list[int]], None] = lambda pids: None,
) -> list[Ended]:
    """One attempt at a run, a process for each fate: its ranks.

    Args:
        run: the run's directory.
        fates: of each rank.
        timeout_s: after which they are killed.
        meanwhile: called with their process ids once they have begun.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fusionrun.train.job", "fusionrun.job", __name__])
    tallies = [context.Array("l", 2, lock=False) for _ in fates]
    processes = [
        context.Process(target=_live, args=(run, fate, tally, _place(rank, len(fates))))
        for rank, (fate, tally) in enumerate(zip(fates, tallies, strict=True))
    ]
    _place_port(processes)
    for process in processes:
        process.start()
    meanwhile([process.pid or 0 for process in processes])
    for process in processes:
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            process.join()
    return [Ended(p.exitcode, *tally) for p, tally in zip(processes, tallies, strict=True)]


def _place(rank: int, size: int) -> dict[str, str]:
    if size == 1:
        return {}
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}


def _place_port(processes: list[Any]) -> None:
    """All ranks meet at one port, chosen now."""
    port = str(meeting_port({"SLURM_JOB_ID": str(next(_ports))}))
    for process in processes:
        if place := process._args[-1]:
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            place["FUSIONRUN_RANK_TIMEOUT_S"] = "20"


def _live(run: Path, fate: Fate, tally: Any, place: dict[str, str]) -> None:
    import fusionrun.job
    from fusionrun.train import attempt, boundary

    # A victim whose parent dies must not train on.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.environ.update({**place, **fate.environment})

    class Counted(boundary.Boundary):
        def __call__(self, epochs: Any) -> None:
            tally[1] = epochs.steps
            super().__call__(epochs)

    mock.patch.object(attempt, "Boundary", Counted).start()  # (to the process's end)
    _Boundaries(fate, tally).watch()
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    os._exit(fusionrun.job.main([str(run)]))


class _Boundaries:
    """Counts file operations, and kills the process at the one that is its fate."""

    def __init__(self, fate: Fate, tally: Any) -> None:
        self._fate, self._tally, self._turn = fate, tally, threading.Lock()

    def watch(self) -> None:
        """From now on."""
        from fusionrun.store import atomic

        reading = os.open
        for name in CALLS:
            setattr(os, name, self._watched(getattr(os, name), name in WRITES))
        os.open = _opened_by(reading, os.open)  # type: ignore[assignment]
        fdopen, exchange = os.fdopen, atomic._exchange
        os.fdopen = lambda *a, **k: _File(fdopen(*a, **k), self)  # type: ignore[assignment]
        atomic._exchange = self._watched(exchange, False)

    def _watched(self, call: Callable[..., Any], writes: bool) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            if self.is_the_one():
                if writes and self._fate.torn:
                    call(arguments[0], arguments[1][: len(arguments[1]) // 2], *arguments[2:])
                self.die()
            return call(*arguments, **named)

        return watched

    @property
    def torn(self) -> bool:
        """Whether half of what is written gets through."""
        return self._fate.torn

    def is_the_one(self) -> bool:
        """One more operation."""
        with self._turn:
            self._tally[0] += 1
            return bool(self._tally[0] == self._fate.boundary)

    def die(self) -> None:
        """As the kernel would have it: nothing is flushed, no handler runs."""
        os.kill(os.getpid(), signal.SIGKILL)


def _opened_by(reading: Callable[..., int], counted: Callable[..., int]) -> Callable[..., int]:
    """Not to wait for whoever writes is asked for by those alone who only read."""

    def opened(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        call = reading if flags & os.O_NONBLOCK else counted
        return call(path, flags, *arguments, **named)

    return opened


class _File:
    """A file whose writes are counted."""

    def __init__(self, file: Any, boundaries: _Boundaries) -> None:
        self._file, self._boundaries = file, boundaries

    def write(self, data: Any) -> Any:
        if self._boundaries.is_the_one():
            if self._boundaries.torn:
                self._file.write(data[: len(data) // 2])
                self._file.flush()
            self._boundaries.die()
        return self._file.write(data)

    def __enter__(self) -> _File:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
