"""Reads /proc: who descends from whom, and who carries a variable in its environment."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path


def all_pids() -> Iterator[int]:
    """Yield the id of every process there is."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def variables(pid: int) -> dict[str, str]:
    """Return the environment a process was started with; empty when it is gone or not ours."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in raw.split(b"\0") if b"=" in item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def carrying(name: str, value: str) -> list[int]:
    """Return the living processes, zombies apart, that were started with `name=value`."""
    return [pid for pid in all_pids() if variables(pid).get(name) == value]


def descendants(ancestors: Iterable[int]) -> set[int]:
    """Return every process below the given ones, zombies included, themselves excluded."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        children.setdefault(_parent(pid), []).append(pid)
    found: set[int] = set()
    waiting = list(ancestors)
    while waiting:
        below = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
        found.update(below)
        waiting.extend(below)
    return found


def name(pid: int) -> str:
    """Return the name the kernel knows a process by; empty when it is gone."""
    return _stat_text(pid).partition("(")[2].rpartition(")")[0]


def started_at(pid: int) -> str | None:
    """Return when a living process began (ticks since boot), which tells a pid used again."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def end(pids: Iterable[int], signum: int = signal.SIGKILL) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on: the name before it may hold anything."""
    return _stat_text(pid).rpartition(")")[2].split()


def _stat_text(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
