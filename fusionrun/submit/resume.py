"""Letting a run go on: the same directory, plan and code, from its last whole checkpoint."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fusionrun.errors import SchedulerError, UserError
from fusionrun.plan.plan import Plan
from fusionrun.plan.stored import read_plan
from fusionrun.schema.base import plain
from fusionrun.schema.slurm import Slurm as SlurmSection
from fusionrun.store.atomic import make_folder, write_json, write_text
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import typed
from fusionrun.store.status import read_status
from fusionrun.submit.asked import script_of
from fusionrun.submit.exactness import refuse_inexact
from fusionrun.submit.handing import alone, ask, hand_over, rejected_on_error
from fusionrun.submit.journal import (
    Executor,
    Submission,
    is_lost,
    now,
    read_submission,
    write_submission,
)
from fusionrun.submit.snapshot import find_snapshot, snapshots_dir, take_snapshot
from fusionrun.submit.standing import standing
from fusionrun.submit.submit import choose_executor, first_submission
from fusionrun.submit.waiting import NO_WAIT, After, Kind, Wait, wait_for

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm, Verdict

__all__ = ["Resumed", "resume"]


class Resumed(NamedTuple):
    """A run that goes on.

    Attributes:
        layout: the run.
        was: how it stood before.
        executor: who carries it on.
        job_id: as which job.
        snapshot: id of the code it runs.
        code: which code that is, in words.
        waits: what it still waits for, in words; empty for nothing.
        verdict: the scheduler's; None without one.
    """

    layout: RunLayout
    was: str
    executor: Executor
    job_id: str
    snapshot: str
    code: str
    waits: str
    verdict: Verdict | None


def resume(
    layout: RunLayout,
    slurm: Slurm,
    executor: Executor | None = None,
    *,
    allow_inexact: bool = False,
) -> Resumed:
    """Hand a run over once more.

    Args:
        layout: the run.
        slurm: the cluster.
        executor: who shall carry it on; None: whoever did before.
        allow_inexact: it may go on where its bits will be others; until it is resumed again.

    Raises:
        UserError: it has completed, it goes on already, its code is gone, what it was to wait for
            has failed, or it can be seen here that it would go on to other bits.
        SchedulerError: the scheduler refused, or is out of reach.
    """
    layout = RunLayout(layout.root.absolute())
    with alone(layout):
        return _resume(layout, slurm, executor, allow_inexact)


def _resume(
    layout: RunLayout, slurm: Slurm, executor: Executor | None, allow_inexact: bool
) -> Resumed:
    found = standing(layout, slurm)
    if found.is_complete:
        raise UserError(f"{layout.id}: has completed; there is nothing left to do")
    if found.is_living:
        raise UserError(f"{layout.id}: goes on already: {found.words}")
    plan = read_plan(layout.plan)
    code = _code(layout)
    submission = _submission(layout, plan, slurm, executor)
    if submission.executor == "slurm":
        _require_answer(layout, slurm)
    elif not allow_inexact:
        refuse_inexact(layout, plan, submission.python)
    wait = _wait(layout, submission, slurm)
    submission = replace(submission, after=wait.after)
    with _journal_stays(layout):
        job_id, said = _handed(layout, plan, submission, slurm, wait, allow_inexact)
    return Resumed(
        layout=layout,
        was=found.words,
        executor=submission.executor,
        job_id=job_id,
        snapshot=str(submission.snapshot["id"]),
        code=f"{code} snapshot {submission.snapshot['id']}",
        waits=wait.words if wait.after else "",
        verdict=said,
    )


def _code(layout: RunLayout) -> str:
    """Which code goes on, but for the snapshot's id: asked before a journal is written."""
    if is_lost(layout):
        return (
            f"its {layout.submission.name} is gone, which names the code it began with: it goes on "
            "with the code as it is now,"
        )
    if read_submission(layout) is None:
        return (
            "it was trained in the foreground, with no snapshot: it goes on with the code as it is "
            "now,"
        )
    return "goes on with the code of"


def _require_answer(layout: RunLayout, slurm: Slurm) -> None:
    """Before anything is written: a journal of Slurm's would have it that a job goes on."""
    try:
        slurm.ping()
    except SchedulerError as error:
        here = typed(layout, "resume")
        raise type(error)(
            f"{error}\n  Nothing was written. `{here} --executor local` goes on with it here, "
            "in the background, without Slurm."
        ) from error


@contextmanager
def _journal_stays(layout: RunLayout) -> Iterator[None]:
    """A run that was trained before stays as it ended where the scheduler refuses it.

    Where it may have been queued all the same the new journal stays: its job is to be looked for.
    """
    from fusionrun.slurm.client import SubmitTimeout

    before, trained = read_submission(layout), read_status(layout).attempts > 0
    had_script = layout.job_script.exists()
    try:
        yield
    except SubmitTimeout:
        raise
    except SchedulerError:
        if trained and before is None:
            layout.submission.unlink(missing_ok=True)
            if not had_script:  # (alone it would tell of a journal that is gone)
                layout.job_script.unlink(missing_ok=True)
        elif trained and before is not None:
            write_submission(layout, before)
        raise


def _handed(
    layout: RunLayout,
    plan: Plan,
    submission: Submission,
    slurm: Slurm,
    wait: Wait,
    allow_inexact: bool,
) -> tuple[str, Verdict | None]:
    """The job's id, and the scheduler's verdict."""
    begins_anew = read_submission(layout) is None  # a script of before names other code
    with rejected_on_error(layout):
        write_submission(layout, submission)
        if allow_inexact:
            write_json(layout.inexact_allowed, {"allowed": now()})
        else:
            layout.inexact_allowed.unlink(missing_ok=True)
        make_folder(layout.logs)
        if submission.executor == "slurm" and (begins_anew or not layout.job_script.exists()):
            text = script_of(
                layout, plan, submission.python, submission.pythonpath, submission.slurm
            )
            write_text(layout.job_script, text)
    said = ask(layout, slurm, wait.arguments) if submission.executor == "slurm" else None
    return hand_over(layout, slurm, wait.arguments), said


def _submission(
    layout: RunLayout, plan: Plan, slurm: Slurm, executor: Executor | None
) -> Submission:
    before = read_submission(layout)
    runs_dir = layout.root.parent
    if before is None:
        return _first(runs_dir, plan, slurm, executor)
    find_snapshot(snapshots_dir(runs_dir), str(before.snapshot.get("id")))
    settings = dict(before.slurm) or _settings(plan)
    wanted = executor or before.executor
    again = replace(before.changed("preparing"), executor=wanted)
    return replace(again, slurm=settings if wanted == "slurm" else {}, host=socket.gethostname())


def _wait(layout: RunLayout, submission: Submission, slurm: Slurm) -> Wait:
    """What it still has to wait for: a run that has begun once had nothing more to wait for."""
    after = submission.after
    if after is None or read_status(layout).attempts:
        return NO_WAIT
    runs_dir = layout.root.parent
    others = [RunLayout(runs_dir / name) for name in submission.awaited]
    kind: Kind = "any" if after["kind"] == "any" else "ok"
    return wait_for(After(others, kind), submission.executor, runs_dir, slurm, asked=False)


def _first(runs_dir: Path, plan: Plan, slurm: Slurm, executor: Executor | None) -> Submission:
    """The journal of a run that has none: nobody knows its project any more.

    It was trained in the foreground, or has lost its journal; fusionrun's own code runs on.
    """
    chosen = choose_executor(executor, plan, slurm).executor
    snapshot = take_snapshot(None, runs_dir)
    return first_submission(chosen, snapshot, _settings(plan) if chosen == "slurm" else {})


def _settings(plan: Plan) -> dict[str, object]:
    return dict(plain(plan.settings.slurm or SlurmSection()))
