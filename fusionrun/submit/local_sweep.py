"""A sweep without Slurm: one supervisor, which has its points trained one after the other.

`python -m fusionrun.submit.local_sweep FOLDER` leaves it behind; FOLDER has `points.txt`. Each
point gets a supervisor of its own when its turn comes (`local`), and is a run like any other:
cancelling one ends that one, and the next has its turn.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from fusionrun.errors import FusionrunError
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import read_status
from fusionrun.submit.handing import rejected_on_error
from fusionrun.submit.journal import Job, now, read_submission, record_job
from fusionrun.submit.local import leave_behind, start
from fusionrun.submit.standing import standing

__all__ = ["MODULE"]

MODULE: Final = "fusionrun.submit.local_sweep"

_POLL_S: Final = 0.5


def main() -> int:
    """Leave the supervisor behind and print its process id once all journals have it."""
    folder = RunLayout(Path(sys.argv[1]))
    points = [RunLayout(Path(line)) for line in folder.points.read_text().splitlines()]
    return leave_behind(
        folder, lambda job: _enter(points, job, folder.id), lambda: _one_by_one(points)
    )


def _enter(points: list[RunLayout], job: Job, sweep: str) -> None:
    for point in points:
        attempt = read_status(point).attempts + 1
        record_job(point, replace(job, attempt=attempt, sweep=sweep))


def _one_by_one(points: list[RunLayout]) -> int:
    for point in points:
        try:
            _have_trained(point)
        except (FusionrunError, OSError) as error:  # the others do not suffer for it
            print(f"fusionrun: {point.id}: {error}", flush=True)
    return 0


def _have_trained(point: RunLayout) -> None:
    """Start a point and wait for its end, unless somebody has taken it out of the sweep."""
    submission = read_submission(point)
    job = submission.last_job if submission else None
    if not (submission and job) or submission.state == "cancelled" or job.id != str(os.getpid()):
        return
    with rejected_on_error(point):
        start(point, submission)
    print(f"fusionrun: {point.id} began at {now()}", flush=True)
    while standing(point).is_living:
        time.sleep(_POLL_S)


if __name__ == "__main__":
    sys.exit(main())
