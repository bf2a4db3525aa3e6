"""Processes of this machine, told apart although their ids are used again. Linux and macOS."""

from __future__ import annotations

import os

__all__ = ["born", "is_living"]


def born(pid: int) -> int:
    """When a process began, in the kernel's ticks; 0 where this system does not say."""
    return int(_stat(pid)[19] if _stat(pid) else 0)


def is_living(pid: int, born_at: int = 0) -> bool:
    """Whether a process is there and does not merely wait to be buried.

    Args:
        pid: its id.
        born_at: what `born` said of it; 0 when that is not known.
    """
    fields = _stat(pid)
    if fields:
        return fields[0] not in "ZX" and born_at in (0, int(fields[19]))
    if os.path.isdir("/proc/self"):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat (proc(5)) from the third, the state, on; none without it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The second field is the program's name, in parentheses, with whatever it likes inside.
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []
