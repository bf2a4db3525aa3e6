"""A run's jobs in Slurm's queue: putting one there, exactly one, and finding those that are there.

A job bears its run's id in its comment. Two directories of runs may hold runs of one id, so a job
counts as ours only when it was made from this run's script.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fusionrun.errors import SchedulerError
from fusionrun.store.layout import RunLayout

if TYPE_CHECKING:
    from fusionrun.slurm.client import QueuedJob, Slurm

__all__ = ["jobs_of", "queue_script"]

ADOPT_WITHIN_S: Final = 20.0
"""How long a job may take to show after a sbatch that did not answer; assumed."""
_POLL_S: Final = 1.0


def jobs_of(slurm: Slurm, layout: RunLayout, known: Collection[str] = ()) -> list[QueuedJob]:
    """The living jobs of a run, the newest last.

    Args:
        slurm: the cluster.
        layout: the run.
        known: ids that are its own beyond doubt: those in its journal.

    Raises:
        SchedulerError: the scheduler is out of reach.
    """
    ours = [job for job in slurm.queue() if job.is_living and _is_ours(slurm, job, layout, known)]
    return sorted(ours, key=lambda job: int(job.id))


def _is_ours(slurm: Slurm, job: QueuedJob, layout: RunLayout, known: Collection[str]) -> bool:
    if job.handle in known or job.id in known:
        return True  # (a task of an array bears the array's comment)
    return job.run_id == layout.id and _is_of(slurm, job, layout)


def _is_of(slurm: Slurm, job: QueuedJob, layout: RunLayout) -> bool:
    shown = slurm.show_job(job.handle) or {}
    script = shown.get("Command", "")
    return os.path.realpath(script) == os.path.realpath(layout.job_script)


def queue_script(
    slurm: Slurm,
    layout: RunLayout,
    arguments: Sequence[str] = (),
    known: Collection[str] = (),
    within_s: float = ADOPT_WITHIN_S,
) -> str:
    """Queue a run's script once; returns the job's id.

    Where sbatch does not answer, the job that it may have queued all the same is looked for, and
    taken.

    Args:
        slurm: the cluster.
        layout: the run; its `job_script` is there.
        arguments: further options of sbatch.
        known: the run's jobs that were there before.
        within_s: how long to look.

    Raises:
        SchedulerError: it was refused.
        SubmitTimeout: nobody knows whether it was queued, and no job was seen.
    """
    from fusionrun.slurm.client import SubmitTimeout

    try:
        return slurm.submit(layout.job_script, *arguments)
    except SubmitTimeout as error:
        adopted = _adopted(slurm, layout, known, within_s)
        if adopted is None:
            raise SubmitTimeout(
                f"{error}\n  No job of this run has shown within {within_s:g} s. Submitting it "
                "again looks for one first, and takes it."
            ) from error
        return adopted


def _adopted(
    slurm: Slurm, layout: RunLayout, known: Collection[str], within_s: float
) -> str | None:
    end = time.monotonic() + within_s
    while True:
        with suppress(SchedulerError):  # it was busy a moment ago
            new = [job for job in jobs_of(slurm, layout) if job.id not in known]
            if new:
                return new[-1].id
        if time.monotonic() >= end:
            return None
        time.sleep(min(_POLL_S, within_s))
