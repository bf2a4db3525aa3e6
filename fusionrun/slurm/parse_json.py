"""`squeue --json` as values, whatever the version: the way out where its text cannot be read.

The shapes changed: `job_state` is a word in 22.05 and a list from 23.11; `exit_code` a raw wait
status, then an object; most numbers turned into `{"set", "infinite", "number"}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from fusionrun.slurm.parse import LIVING, QueuedJob, bounded_s, run_id_of

__all__ = ["queue"]


def queue(text: str, *, now: float, user_id: int | None = None) -> list[QueuedJob]:
    """The jobs in the output of `squeue --json`; of an array, each task.

    Args:
        text: what it printed.
        now: seconds since 1970, which the time left is counted from.
        user_id: whose jobs; None: everybody's. (22.05 prints all, whatever it is asked for.)

    Raises:
        ValueError: it is no JSON, or holds no list of jobs.
    """
    content = json.loads(text)
    jobs = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(jobs, list):
        raise ValueError("expected an object with a list 'jobs'")
    chosen = (job for job in jobs if user_id is None or _number(job.get("user_id")) == user_id)
    return [task for job in chosen for task in _tasks(job, now)]


def _tasks(job: Mapping[str, Any], now: float) -> Iterator[QueuedJob]:
    """The job itself, or the tasks of an array that wait as one entry."""
    waiting = _indices(str(job.get("array_task_string") or ""))
    index = _number(job.get("array_task_id"))
    if index is None and waiting:
        yield from (_job(job, task, now) for task in waiting)
    else:
        yield _job(job, index, now)


def _job(job: Mapping[str, Any], index: int | None, now: float) -> QueuedJob:
    state = _state(job.get("job_state"))
    living = state in LIVING
    code, signal = (None, 0) if living else _exit(job.get("exit_code"))
    reason = str(job.get("state_reason") or "")
    return QueuedJob(
        id=str(_number(job.get("array_job_id")) or _number(job.get("job_id"))),
        array_index=index,
        state=state,
        reason="" if reason == "None" else reason,
        run_id=run_id_of(_comment(job.get("comment"))),
        time_left_s=bounded_s(_left(job, state, now)),
        start=_start(job.get("start_time")),
        nodes=str(job.get("nodes") or ""),
        restarts=_number(job.get("restart_cnt")) or 0,
        exit_code=code,
        signal=signal,
    )


def _number(value: Any) -> int | None:
    """A number in any of Slurm's shapes; None where it is not set, or infinite."""
    if isinstance(value, Mapping):
        known = value.get("set", True) and not value.get("infinite", False)
        value = value.get("number") if known else None
    return int(value) if isinstance(value, int | float) else None


# squeue's text shows these instead of the state they come with.
_FLAGS = frozenset(LIVING - {"PENDING", "RUNNING", "SUSPENDED", "POWER_UP_NODE"})


def _state(value: Any) -> str:
    """A word, or a list: the state and what goes on besides (`["COMPLETED", "COMPLETING"]`)."""
    words = [str(word) for word in (value if isinstance(value, list) else [value]) if word]
    return next((word for word in words if word in _FLAGS), words[0] if words else "UNKNOWN")


def _exit(value: Any) -> tuple[int | None, int]:
    """Exit code and signal; no code where Slurm gives none."""
    if not isinstance(value, Mapping):
        status = _number(value)
        return (None, 0) if status is None else (status >> 8, status & 0x7F)
    signal = value.get("signal")
    by = signal.get("id", signal.get("signal_id")) if isinstance(signal, Mapping) else signal
    return _number(value.get("return_code")), _number(by) or 0


def _comment(value: Any) -> str:
    """The job's own; once Slurm kept it beside those of administrators."""
    return str((value.get("job") if isinstance(value, Mapping) else value) or "")


def _left(job: Mapping[str, Any], state: str, now: float) -> int | None:
    """Seconds to the end of a job that runs; the whole limit of one that waits."""
    limit_min = _number(job.get("time_limit"))
    if limit_min is None:
        return None
    end = _number(job.get("end_time"))
    if state == "PENDING" or not end:
        return limit_min * 60
    return max(0, round(end - now))


def _start(value: Any) -> str | None:
    seconds = _number(value)
    return datetime.fromtimestamp(seconds).isoformat() if seconds else None


def _indices(text: str) -> list[int]:
    """`0-2,7,10-20:5%2` is 0, 1, 2, 7, 10, 15, 20."""
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        if match := re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part):
            first, last, step = match.groups()
            found += range(int(first), int(last or first) + 1, int(step or 1))
    return found
