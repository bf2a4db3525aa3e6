"""Ending a run: gracefully, by the stop file, or at once.

Whichever way: first the journal, so that nothing lets the run go on by itself, and then the run.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from fusionrun.errors import SchedulerError, UserError
from fusionrun.store.atomic import write_json
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import typed
from fusionrun.store.status import mark_status, read_status
from fusionrun.submit.journal import add_event, now, read_submission, write_submission
from fusionrun.submit.standing import Standing, standing

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm

__all__ = ["Cancelled", "cancel"]


class Cancelled(NamedTuple):
    """What was done.

    Attributes:
        done: nothing (it had ended); asked (it saves and stops at its next step); removed (from
            the queue, it did not run); killed.
        words: for people.
    """

    done: str
    words: str


def cancel(layout: RunLayout, *, at_once: bool, slurm: Slurm | None = None) -> Cancelled:
    """End a run.

    Args:
        layout: the run.
        at_once: do not let it save; what its last checkpoint holds is kept.
        slurm: the cluster; this machine's unless given.

    Raises:
        UserError: it runs where it cannot be ended at once.
        SchedulerError: the scheduler refused, or is out of reach.
    """
    found = standing(layout, slurm)
    if not found.is_living:
        return Cancelled("nothing", f"{layout.id}: nothing to cancel: {found.words}")
    if not (at_once or found.waits):
        _note(layout, "cancel")
        write_json(layout.stop_request, {"reason": "cancel", "time": now()})
        return Cancelled("asked", f"{layout.id}: saves and stops at its next step ({found.words})")
    if found.waits and not found.job:
        _note(layout, "cancel")
        _mark_ended(layout)
        return Cancelled("removed", f"{layout.id}: taken from the sweep")
    if found.job:
        return _end_job(layout, found, slurm)
    if not at_once:
        raise UserError(f"{layout.id}: {found.words}; try again in a moment")
    return _kill(layout, found)


def _note(layout: RunLayout, how: str) -> None:
    if submission := read_submission(layout):
        write_submission(layout, submission.changed("cancelled", f"fusionrun {how}"))
    add_event(layout, "cancel_requested", how=how)


def _end_job(layout: RunLayout, found: Standing, slurm: Slurm | None) -> Cancelled:
    from fusionrun.slurm.client import Slurm

    job = found.job
    if job is None:
        raise RuntimeError("no job to end")
    _note(layout, "cancel --now")
    (slurm or Slurm()).cancel(job.handle)
    if found.waits:
        _mark_ended(layout)
        return Cancelled("removed", f"{layout.id}: job {job.handle} taken from the queue")
    return Cancelled("killed", f"{layout.id}: job {job.handle} ended at once")


def _kill(layout: RunLayout, found: Standing) -> Cancelled:
    if not found.is_certain:
        raise SchedulerError(
            f"{layout.id}: {found.words}\n  `{typed(layout, 'cancel')}` without --now reaches "
            "it by a file, without Slurm"
        )
    if found.pid is None:
        raise UserError(
            f"{layout.id}: {found.words}, not here\n  `{typed(layout, 'cancel')}` without --now "
            "reaches it by a file; --now works on that machine"
        )
    _note(layout, "cancel --now")
    with suppress(ProcessLookupError):
        # A supervisor leads a group that is the run's alone; a foreground run stands in a shell's.
        if os.getpgid(found.pid) == found.pid and read_submission(layout):
            os.killpg(found.pid, signal.SIGKILL)
        else:
            os.kill(found.pid, signal.SIGKILL)
    _mark_ended(layout)
    return Cancelled("killed", f"{layout.id}: process {found.pid} killed")


def _mark_ended(layout: RunLayout) -> None:
    """Nobody is left who could, nor who could tell those that wait for it."""
    from fusionrun.submit.dependents import settle_dependents

    add_event(layout, "cancelled", why="fusionrun cancel")
    layout.stop_request.unlink(missing_ok=True)
    mark_status(layout, "stopped", job_id=read_status(layout).job_id)
    settle_dependents(layout, None)
