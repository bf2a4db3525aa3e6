"""Finds and ends what a cluster left behind when its keeper was killed too.

Daemons carry a mark in their environment, jobs the name of their node beside SLURM_CONF. Whoever
merely points SLURM_CONF at a cluster, as a shell does, carries neither and is left alone.
"""

from __future__ import annotations

from pathlib import Path

from . import processes
from .config import Layout

MARK = "SLURM_TEST_CLUSTER"


def note_keeper(file: Path, pid: int) -> None:
    """Write down which process answers for a cluster."""
    file.write_text(f"{pid} {processes.started_at(pid)}\n")


def sweep() -> list[int]:
    """End every process of a cluster whose keeper is gone, and return their ids."""
    roots = {pid: root for pid in processes.all_pids() if (root := _root_of(pid))}
    lost = {pid for pid, root in roots.items() if not _is_kept(Layout(Path(root)))}
    lost |= processes.descendants(lost)
    processes.end(lost)
    return sorted(lost)


def marked(root: Path) -> list[int]:
    """Return the daemons of the cluster in `root`, and its job steps as far as one can see."""
    return processes.carrying(MARK, str(root))


def _root_of(pid: int) -> str | None:
    variables = processes.variables(pid)
    if MARK in variables:
        return variables[MARK]
    # A job of ours; a keeper's file tells it from one of a cluster that is none of ours. Job
    # steps hide their environment from all but root, and end with their job.
    root = Path(variables.get("SLURM_CONF", "")).parent
    ours = "SLURMD_NODENAME" in variables and Layout(root).keeper_file.is_file()
    return str(root) if ours else None


def _is_kept(layout: Layout) -> bool:
    try:
        pid, since = layout.keeper_file.read_text().split()
    except (OSError, ValueError):
        return False
    return processes.started_at(int(pid)) == since
