"""How much memory this process may still take: of the machine, and of its control group."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_MEMINFO: Final = Path("/proc/meminfo")
_GROUP: Final = Path("/proc/self/cgroup")
_GROUPS: Final = Path("/sys/fs/cgroup")


def free_bytes() -> int | None:
    """The least of what the machine has left and what a control group allows; None: unknown."""
    known = [size for size in (_of_machine(), *_of_groups()) if size is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _of_groups() -> list[int]:
    """What is left in the process's group and in those that it is in: batch systems limit there."""
    try:
        own = next(line[3:] for line in _GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = _GROUPS / own.lstrip("/")
    return [left for folder in (group, *group.parents) if (left := _left(folder)) is not None]


def _left(group: Path) -> int | None:
    try:
        limit = int((group / "memory.max").read_text())
        return max(limit - int((group / "memory.current").read_text()), 0)
    except (OSError, ValueError):  # no such group, or "max"
        return None
