"""Runs that wait in Slurm for another one to complete (`--after RUN`), and are to be told of it.

Slurm knows jobs, not runs. A run that is chained goes on as another job; one that was asked to
stop ends as a job that did well. Neither may start the run that waits for a whole one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fusionrun.errors import FusionrunError, SchedulerError
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import list_runs
from fusionrun.store.status import mark_status, read_status
from fusionrun.submit.journal import Submission, add_event, read_submission, write_submission

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm

__all__ = ["settle_dependents"]


def settle_dependents(layout: RunLayout, goes_on_as: str | None) -> None:
    """Point the runs that wait for this one at its next job, or end them when it has none.

    Called while the job they wait for still runs, or when it was taken from the queue, so that
    none of them has started.

    Args:
        layout: the run that others wait for.
        goes_on_as: its next job; None: it does not go on.
    """
    if goes_on_as is None and read_status(layout).state == "completed":
        return
    for waiting, submission in _waiting(layout):
        if goes_on_as:
            _repoint(waiting, submission, layout, goes_on_as)
        elif (submission.after or {}).get("kind") == "ok":
            _end(waiting, submission, f"{layout.id} did not complete, and this run waited for it")


def _waiting(layout: RunLayout) -> Iterator[tuple[RunLayout, Submission]]:
    for other in list_runs(layout.root.absolute().parent):
        try:
            submission = read_submission(other)
        except FusionrunError:
            continue  # damaged: not ours to complain about
        if submission is None or submission.executor != "slurm":
            continue
        waits = submission.state == "submitted" and layout.id in submission.awaited
        if waits and read_status(other).state in ("queued", "prepared"):
            yield other, submission


def _repoint(layout: RunLayout, submission: Submission, other: RunLayout, job_id: str) -> None:
    """Let a run wait for the job that another one goes on as, and for all else as before."""
    kind = (submission.after or {}).get("kind", "ok")
    jobs = [job_id, *_other_jobs(submission, other)]
    try:
        for own in _jobs(submission):
            _slurm().depend(own, f"after{kind}:{':'.join(jobs)}")
    except SchedulerError as error:
        # Better not at all than with a run's unfinished weights.
        _end(layout, submission, f"it could not be told to wait for job {job_id}: {error}")


def _other_jobs(submission: Submission, other: RunLayout) -> list[str]:
    """The jobs of the runs besides `other` that it still waits for."""
    jobs = []
    for name in submission.awaited:
        run = RunLayout(other.root.absolute().parent / name)
        if name != other.id and read_status(run).state != "completed":
            awaited = read_submission(run)
            jobs += _jobs(awaited) if awaited else []
    return jobs


def _end(layout: RunLayout, submission: Submission, why: str) -> None:
    write_submission(layout, submission.changed("cancelled", why))
    mark_status(layout, "stopped", job_id=submission.job_id)
    add_event(layout, "cancelled", why=why)
    print(f"fusionrun: {layout.id}: cancelled: {why}", file=sys.stderr, flush=True)
    try:
        for own in _jobs(submission):
            _slurm().cancel(own)
    except SchedulerError as error:
        print(f"fusionrun: {layout.id}: {error}", file=sys.stderr, flush=True)


def _jobs(submission: Submission) -> list[str]:
    return [submission.job_id] if submission.job_id else []


def _slurm() -> Slurm:
    from fusionrun.slurm.client import Slurm

    return Slurm()
