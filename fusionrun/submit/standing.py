"""Whether a run is somebody's business now: it trains, waits in a queue, or is about to.

For those who must not start, end or follow a run without knowing. Showing how it stands in words,
with reasons and advice, is `fusionrun status`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from fusionrun.errors import SchedulerError
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import Status, read_status
from fusionrun.submit.journal import Submission, is_lost, read_events, read_submission
from fusionrun.submit.process import is_living
from fusionrun.submit.trainer import last_trainer

if TYPE_CHECKING:
    from fusionrun.slurm.client import QueuedJob, Slurm

__all__ = ["Standing", "standing"]

FRESH_S: Final = 60.0
"""A heartbeat so young is of a living process elsewhere: it beats every 5 s even in long epochs."""
SUBMITTING_S: Final = 120.0
"""No submit takes longer between its two entries in the journal; see `queue_script`."""

_ENDED: Final = frozenset({"completed", "failed", "stopped", "interrupted"})


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    Attributes:
        is_living: somebody trains it, or will unless told otherwise.
        words: who and how, or how it ended: `job 12 runs`, `completed`, `failed`.
        is_complete: it ended, and has its results.
        job: its job in Slurm's queue; None where there is none.
        pid: its supervisor or trainer on this machine; None where there is none.
        is_certain: False: the scheduler could not be asked, and the files do not say.
        waits: it is in a queue, of Slurm's or of a sweep here; nothing of it runs.
    """

    is_living: bool
    words: str
    is_complete: bool = False
    job: QueuedJob | None = None
    pid: int | None = None
    is_certain: bool = True
    waits: bool = False


def standing(layout: RunLayout, slurm: Slurm | None = None) -> Standing:
    """How a run stands now. Slurm is asked only about runs that were handed to it.

    Args:
        layout: the run.
        slurm: the cluster; this machine's unless given.

    Raises:
        UserError: the run's journal is damaged.
    """
    submission, status = read_submission(layout), read_status(layout)
    if submission and submission.executor == "slurm":
        known = {job.id for job in submission.jobs}
        return _in_slurm(layout, submission, status, slurm, known)
    if is_lost(layout) and (known := _told_of(layout)):
        return _in_slurm(layout, None, status, slurm, known)
    if submission and (supervised := _supervised(submission)):
        return supervised
    if status.is_alive():
        words = f"process {status.pid} on {status.host} trains it"
        return Standing(True, words, pid=status.pid)
    if _trains_elsewhere(status):
        return Standing(True, f"process {status.pid} on {status.host} trains it")
    if submission and _is_being_submitted(submission):
        return Standing(True, f"it is being submitted on {submission.host}")
    if submission is None and status.state == "prepared" and (found := _about_to_train(layout)):
        return found
    return _ended(submission, status)


def _about_to_train(layout: RunLayout) -> Standing | None:
    """By a `train` in the foreground that has not come to its first word yet."""
    found = last_trainer(layout)
    if not found or found.host != socket.gethostname() or not is_living(found.pid, found.born):
        return None
    words = f"process {found.pid} on {found.host} is about to train it"
    return Standing(True, words, pid=found.pid)


def _supervised(submission: Submission) -> Standing | None:
    job = submission.last_job
    if job is None or job.host != socket.gethostname() or not is_living(int(job.id), job.born):
        return None
    if job.sweep:
        if submission.state in ("cancelled", "rejected"):
            return None  # (the sweep goes on without it)
        words = f"waits for its turn in the sweep of process {job.id} on {job.host}"
        return Standing(True, words, waits=True)
    words = f"process {job.id} on {job.host} carries it out"
    return Standing(True, words, pid=int(job.id))


def _told_of(layout: RunLayout) -> set[str]:
    """Jobs of Slurm's by the run's events alone: one of them may still wait."""
    events = read_events(layout)
    if not any(event.get("executor") == "slurm" for event in events):
        return set()
    handed = [event for event in events if event["event"] in ("queued", "chained")]
    return {str(event.get("job_id")) for event in handed}


def _in_slurm(
    layout: RunLayout,
    submission: Submission | None,
    status: Status,
    slurm: Slurm | None,
    known: Collection[str],
) -> Standing:
    from fusionrun.slurm.client import Slurm
    from fusionrun.submit.queueing import jobs_of

    try:
        jobs = jobs_of(slurm or Slurm(), layout, known)
    except SchedulerError as error:
        return _unasked(submission, status, error) if submission else _ended(None, status)
    if jobs:
        job = jobs[-1]
        words = f"job {job.handle} {_DOES.get(job.state, job.state)}"
        return Standing(True, words, job=job, waits=job.state == "PENDING")
    if submission and _is_being_submitted(submission):
        return Standing(True, f"it is being submitted on {submission.host}")
    return _ended(submission, status)


_DOES: Final[Mapping[str, str]] = {"PENDING": "waits in the queue", "RUNNING": "runs"}


def _unasked(submission: Submission, status: Status, error: SchedulerError) -> Standing:
    if submission.state == "rejected" or status.state in _ENDED:
        return _ended(submission, status)
    if submission.job_id is None and not _is_being_submitted(submission):
        return _ended(submission, status)
    said = str(error).splitlines()[0]
    words = f"job {submission.job_id} was {status.state} when last heard of ({said})"
    return Standing(True, words, is_certain=False)


def _ended(submission: Submission | None, status: Status) -> Standing:
    if status.state in _ENDED:
        return Standing(False, status.state, is_complete=status.state == "completed")
    if submission and submission.state in ("rejected", "cancelled"):
        return Standing(False, "rejected" if submission.state == "rejected" else "stopped")
    if status.state == "prepared":
        return Standing(False, "never begun")
    if status.state == "queued":
        again = f"not begun again after step {status.step:,}" if status.attempts else "never begun"
        return Standing(False, f"{again}: its job is gone")
    return Standing(False, f"cut off after epoch {status.epoch}: its process is gone")


def _trains_elsewhere(status: Status) -> bool:
    return (
        status.state == "running"
        and status.host != socket.gethostname()
        and time.time() - status.heartbeat < FRESH_S
    )


def _is_being_submitted(submission: Submission) -> bool:
    if submission.state != "preparing":
        return False
    return time.time() - datetime.fromisoformat(submission.time).timestamp() < SUBMITTING_S
