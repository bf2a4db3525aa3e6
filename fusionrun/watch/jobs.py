"""The jobs of many runs, by one call of squeue.

A job bears its run's id in its comment. Two directories of runs may hold runs of one id, so a job
that a run's own files do not name counts only when it was made from this run's script.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fusionrun.watch.facts import Facts
from fusionrun.watch.state import Unreachable

if TYPE_CHECKING:
    from fusionrun.slurm.client import QueuedJob, Slurm

__all__ = ["jobs_of"]


def jobs_of(
    runs: Sequence[Facts], slurm: Slurm | None = None
) -> Mapping[str, QueuedJob] | Unreachable:
    """Each run's last job by the run's id, ended ones included as long as Slurm remembers them.

    Slurm is asked once, and only where a run was handed to it and has not completed.

    Args:
        runs: those to look for.
        slurm: the cluster; this machine's unless given.
    """
    asked = [facts for facts in runs if facts.was_queued and facts.state != "completed"]
    if not asked:
        return {}
    from fusionrun.errors import SchedulerError
    from fusionrun.slurm.client import Slurm

    slurm = slurm or Slurm()
    try:
        queue = slurm.queue(ended=True)
        found = {facts.id: _last(facts, queue, slurm) for facts in asked}
    except SchedulerError as error:
        return Unreachable(str(error))
    return {id_: job for id_, job in found.items() if job is not None}


def _last(facts: Facts, queue: Sequence[QueuedJob], slurm: Slurm) -> QueuedJob | None:
    """The living one, else the newest, unless it was handed over anew since."""
    ours = [job for job in queue if _is_of(facts, job, slurm)]
    ours = [job for job in ours if job.is_living or int(job.id) >= facts.last_job_number]
    return max(ours, key=lambda job: (job.is_living, int(job.id)), default=None)


def _is_of(facts: Facts, job: QueuedJob, slurm: Slurm) -> bool:
    if job.handle in facts.job_ids and (job.array_index is not None or job.run_id == facts.id):
        return True
    if job.run_id != facts.id or job.array_index is not None:
        return False
    shown = slurm.show_job(job.handle) or {}
    script = os.path.realpath(facts.layout.job_script)
    return os.path.realpath(shown.get("Command", "")) == script
