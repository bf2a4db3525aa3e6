"""The moment a run is handed to Slurm or to a supervisor: asked, written down, done, written down.

The same for a new run and for one that goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from fusionrun.errors import FusionrunError, SchedulerError, UserError
from fusionrun.store.atomic import refuse_link
from fusionrun.store.disk_errors import in_words, way_out
from fusionrun.store.layout import RunLayout
from fusionrun.store.lock import Held, locked
from fusionrun.store.status import mark_status, read_status
from fusionrun.submit.journal import (
    Job,
    Submission,
    SubmissionState,
    add_event,
    now,
    read_submission,
    record_job,
    write_submission,
)

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm, Verdict

__all__ = ["alone", "ask", "begin", "hand_over", "rejected_on_error"]


@contextmanager
def alone(layout: RunLayout) -> Iterator[None]:
    """Nobody else hands this run over while the block runs.

    Raises:
        UserError: somebody does right now, or the run's directory cannot be written.
    """
    try:
        with locked(layout.handing_lock, {"pid": os.getpid()}):
            yield
    except Held as error:
        raise UserError(f"{layout.id}: somebody is handing it over right now") from error


@contextmanager
def rejected_on_error(layout: RunLayout) -> Iterator[None]:
    """A known error within leaves the run marked rejected, with the error's words.

    A run that was trained before stays as it ended. Nor is it so where nobody knows whether it
    was queued: then its job is to be looked for.
    """
    from fusionrun.slurm.client import SubmitTimeout

    before = read_status(layout)
    try:
        yield
    except SubmitTimeout as error:
        if submission := read_submission(layout):
            write_submission(layout, submission.changed("preparing", str(error)))
        raise
    except (FusionrunError, OSError, KeyboardInterrupt) as error:
        words = _in_words(error)
        submission = read_submission(layout)
        if submission:
            state: SubmissionState = "submitted" if before.attempts else "rejected"
            write_submission(layout, submission.changed(state, words))
        with suppress(OSError):  # (which may be the very error)
            add_event(layout, "rejected", words=words)
        if read_status(layout).state == "queued":
            mark_status(layout, before.state, job_id=before.job_id)
        if isinstance(error, OSError):
            raise UserError(f"{layout.id}: cannot be submitted: {words}") from error
        raise


def _in_words(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{in_words(error)}; {way_out(error)}"
    return str(error) or "interrupted at the keyboard"


def ask(layout: RunLayout, slurm: Slurm, arguments: Sequence[str] = ()) -> Verdict:
    """What the scheduler says to the run's script.

    Raises:
        SchedulerError: it refuses it, in its own words; or it is out of reach. The run is marked
            rejected.
    """
    from fusionrun.slurm.words import explained

    with rejected_on_error(layout):
        verdict = slurm.verdict(layout.job_script, *arguments)
        if not verdict.accepted:
            raise SchedulerError(explained(f"{layout.id}: Slurm refuses it", verdict.words))
        return verdict


def hand_over(layout: RunLayout, slurm: Slurm, arguments: Sequence[str] = ()) -> str:
    """Queue the run, or start its supervisor; returns the job's id.

    Args:
        layout: the run, its journal `preparing`.
        slurm: the cluster.
        arguments: further options of sbatch.

    Raises:
        SchedulerError: it was refused, and the run is marked rejected; or nobody knows
            (SubmitTimeout), and the journal stays as it is, so that the job is looked for.
    """
    with rejected_on_error(layout):
        submission = begin(layout)
        job_id = _handed(layout, submission, slurm, arguments)
    add_event(layout, "queued", job_id=job_id, executor=submission.executor)
    return job_id


def begin(layout: RunLayout) -> Submission:
    """Written down before anybody is asked: what follows in the events belongs to this."""
    submission = read_submission(layout)
    if submission is None:
        raise UserError(f"{layout.submission}: missing; a run is submitted by `fusionrun submit`")
    layout.stop_request.unlink(missing_ok=True)  # an old one would end the new attempt at once
    submission = submission.changed("preparing")
    write_submission(layout, submission)
    snapshot = submission.snapshot.get("id")
    add_event(layout, "submitted", executor=submission.executor, snapshot=snapshot)
    mark_status(layout, "queued")
    return submission


def _handed(
    layout: RunLayout, submission: Submission, slurm: Slurm, arguments: Sequence[str]
) -> str:
    if submission.executor == "local":
        from fusionrun.submit.local import start

        return start(layout, submission)
    from fusionrun.submit.queueing import queue_script

    refuse_link(layout.logs)
    refuse_link(layout.log)  # (Slurm writes it, and would write through)
    known = [job.id for job in submission.jobs]
    attempt = read_status(layout).attempts + 1
    job_id = queue_script(slurm, layout, arguments, known)
    record_job(layout, Job(job_id, now(), attempt))
    return job_id
