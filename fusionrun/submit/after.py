"""What follows an attempt: `python -m fusionrun.submit.after RUN_DIR --code N [--cancelled]`.

The batch script's last command, and its exit code is the script's. It goes by what the trainer
wrote (`outcome.json`), not by exit codes, of which Slurm often shows a bystander's. `decide` is
the whole of the judgement, and a pure function; the rest carries it out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from fusionrun.errors import FusionrunError, SchedulerError
from fusionrun.regular import read_regular
from fusionrun.store.layout import RunLayout
from fusionrun.submit.journal import (
    Executor,
    Job,
    Submission,
    add_event,
    now,
    read_events,
    read_submission,
    record_job,
)

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm

__all__ = ["BUSY", "Action", "Ended", "decide", "main"]

FAILED: Final = 1
BUSY: Final = 75
"""The job's exit code where another process trains the run: what becomes of it is the other's."""
SIGNALLED: Final = 128
"""A shell's exit code of a program that a signal ended is this and the signal's number."""
COMPLETED: Final = "completed"

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """What is known of an attempt that has ended.

    Attributes:
        code: exit code of what started the training.
        outcome: `outcome.json`; None where the trainer did not live to write it.
        events: of the whole run, the first first.
        cancelled: the scheduler asked for the end (scancel, or it made room for another job).
        cancel_asked: a person asked for it: `fusionrun cancel`.
        executor: who carries the run out.
        requeue: whether the job may go back into the queue; if not, a new one is chained to it.
        max_requeues: how often the run may go on by itself after it was submitted or resumed.
        lost: of ranks that could not say so themselves, what became of them; empty for none.
        resume: the command that lets the run go on.
    """

    code: int
    outcome: Mapping[str, Any] | None
    events: Sequence[Event]
    cancelled: bool = False
    cancel_asked: bool = False
    executor: Executor = "slurm"
    requeue: bool = True
    max_requeues: int = 20
    lost: str = ""
    resume: str = "fusionrun resume"


@dataclass(frozen=True)
class Action:
    """What to do about an attempt that has ended.

    Attributes:
        kind: none; requeue: the same job again; chain: a new job after this one.
        why: one line for people.
        exit_code: of the batch script.
        step: steps done; None where nobody knows.
        count: which one by itself this is, from 1; 0 for none.
        died: the training ended without a word.
    """

    kind: Literal["none", "requeue", "chain"]
    why: str
    exit_code: int
    step: int | None = None
    count: int = 0
    died: bool = False


def decide(ended: Ended) -> Action:
    """Whether a run goes on, how, and the exit code that says how the attempt ended.

    Only an attempt that stopped for the time limit goes on, and only when it came further than
    any before, and not more often than is allowed. Nothing that somebody cancelled goes on.
    """
    outcome = ended.outcome if _began(ended.events) else None
    if outcome is None:
        return _without_a_word(ended)
    word, step = outcome.get("outcome"), _number(outcome.get("step"))
    if word == COMPLETED:
        return Action("none", COMPLETED, 0, step)
    if word == "refused":
        return Action("none", str(outcome.get("reason")), ended.code or FAILED, step)
    if word != "stopped":
        reason = ended.lost or outcome.get("reason") or "it does not say why"
        why = f"the training failed: {reason}"
        return Action("none", why, ended.code or FAILED, step)
    if ended.cancelled or ended.cancel_asked or outcome.get("reason") != "time_limit":
        return Action("none", _asked(ended, outcome.get("reason")), 0, step)
    return _go_on(ended, step)


def _without_a_word(ended: Ended) -> Action:
    code = ended.code or FAILED
    if ended.cancelled or ended.cancel_asked:
        return Action("none", _asked(ended, None), code, died=_began(ended.events))
    if not _began(ended.events):
        return Action("none", f"the training did not begin (exit code {ended.code})", code)
    said = _in_words(ended.code)
    if ended.code == 0 or ended.code > SIGNALLED:
        return Action("none", f"the training ended without a word ({said})", code, died=True)
    why = f"the training failed ({said}) and could not record why; its own words are in the log"
    return Action("none", why, code, died=True)


def _in_words(code: int) -> str:
    """An exit code of a shell, with the name of the signal where it stands for one."""
    with suppress(ValueError):
        if code > SIGNALLED:
            return f"exit code {code}: {signal.Signals(code - SIGNALLED).name}"
    return f"exit code {code}"


def _asked(ended: Ended, reason: object) -> str:
    if ended.cancel_asked or reason == "cancel":
        return f"it was cancelled; `{ended.resume}` goes on"
    if ended.cancelled or reason == "signal":
        return "the job was ended from outside (scancel, or to make room); it is not queued again"
    return f"it was asked to stop ({reason or 'no reason given'})"


def _go_on(ended: Ended, step: int) -> Action:
    recent = _since_submitted(ended.events)
    done = [event for event in recent if event["event"] == "requeued"]
    before = _furthest(recent)
    if step <= before:
        why = f"no progress: it stopped at step {step}, and was at step {before} before"
        return Action("none", f"{why}; it would go on like that for ever", FAILED, step)
    if len(done) >= ended.max_requeues:
        why = f"it went on by itself {len(done)} times, which is max_requeues"
        return Action("none", f"{why}; `{ended.resume}` goes on at step {step}", 0, step)
    if ended.executor == "local":
        return Action("none", "stopped; nothing here queues it again", 0, step)
    kind: Literal["requeue", "chain"] = "requeue" if ended.requeue else "chain"
    why = f"its time was up at step {step}, {step - before} further than before"
    return Action(kind, why, 0, step, len(done) + 1)


def _began(events: Sequence[Event]) -> bool:
    """Whether the attempt that has just ended came as far as the training."""
    for event in reversed(events):
        if event["event"] == "started":
            return True
        if event["event"] in ("requeued", "not_requeued", "submitted"):
            return False
    return False


def _since_submitted(events: Sequence[Event]) -> Sequence[Event]:
    """The events since a person submitted or resumed the run."""
    marks = [n for n, event in enumerate(events) if event["event"] == "submitted"]
    return events[marks[-1] :] if marks else events


def _furthest(recent: Sequence[Event]) -> int:
    """The furthest step that any attempt before the last one had come to."""
    first = next((event for event in recent if event["event"] == "started"), {})
    requeued = [_number(event.get("step")) for event in recent if event["event"] == "requeued"]
    return max([_number(first.get("resumed_from")), *requeued])


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Decide and do it; returns the exit code of the batch script."""
    # Requeueing ends this very job: the TERM that comes with it must not end us before it is done.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m fusionrun.submit.after", description=_SUMMARY)
    parser.add_argument("directory", metavar="RUN_DIR", type=Path, help="the run's directory")
    parser.add_argument("--code", type=int, required=True, help="exit code of the training")
    parser.add_argument("--cancelled", action="store_true", help="the scheduler ended it")
    given = parser.parse_args(arguments)
    try:
        return after(RunLayout(given.directory), given.code, cancelled=given.cancelled)
    except (FusionrunError, OSError) as error:
        print(f"fusionrun: {error}", file=sys.stderr, flush=True)
        return given.code or FAILED


_SUMMARY = "After an attempt: let the run go on where its time was up, and say how it ended."


def after(layout: RunLayout, code: int, *, cancelled: bool) -> int:
    """Decide what follows the attempt that has ended, do it, and return the exit code.

    Raises:
        UserError: the run's journal is damaged.
        OSError: the run's directory cannot be written.
    """
    from fusionrun.submit.dependents import settle_dependents

    if code == BUSY:
        return code
    submission = read_submission(layout)
    action = decide(_ended(layout, submission, code, cancelled))
    if action.died:
        add_event(layout, "died", code=code, job_id=os.environ.get("SLURM_JOB_ID"))
    if action.exit_code:
        _mark_failed(layout)
    if action.kind == "none":
        if action.why != COMPLETED:  # (which the trainer has said itself)
            details = {"why": action.why, "code": action.exit_code, "step": action.step}
            add_event(layout, "not_requeued", **details)
            print(f"fusionrun: {action.why}", flush=True)
        settle_dependents(layout, None)
        return action.exit_code
    return _carry_on(layout, submission, action)


def _ended(layout: RunLayout, submission: Submission | None, code: int, cancelled: bool) -> Ended:
    settings = submission.slurm if submission else {}
    outcome = _read(layout.outcome)
    return Ended(
        code=code,
        outcome=outcome,
        events=read_events(layout),
        cancelled=cancelled,
        cancel_asked=_cancel_asked(layout, submission),
        executor=_executor(submission),
        requeue=bool(settings.get("requeue", True)),
        max_requeues=int(settings.get("max_requeues", 20)),
        lost=_lost(layout) if (outcome or {}).get("outcome") == "failed" else "",
        resume=f"fusionrun resume {layout.id}",
    )


def _lost(layout: RunLayout) -> str:
    """What the first rank has recorded is then only that it waited in vain."""
    from fusionrun.watch.facts import facts_of
    from fusionrun.watch.post_mortem import cause_of

    cause = cause_of(facts_of(layout), None)
    return cause.words if cause and cause.lost else ""


def _executor(submission: Submission | None) -> Executor:
    if submission:
        return submission.executor
    return "slurm" if "SLURM_JOB_ID" in os.environ else "local"


def _cancel_asked(layout: RunLayout, submission: Submission | None) -> bool:
    """By the journal, or by a request that came when the trainer no longer looked."""
    if submission and submission.state == "cancelled":
        return True
    return (_read(layout.stop_request) or {}).get("reason") == "cancel"


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, Mapping) else None


def _mark_failed(layout: RunLayout) -> None:
    """Where the trainer could not say so: it was killed, or could not even begin."""
    from fusionrun.store.status import mark_status, read_status

    status = read_status(layout)
    if status.state in ("queued", "running"):
        mark_status(layout, "failed", job_id=status.job_id)


def _carry_on(layout: RunLayout, submission: Submission | None, action: Action) -> int:
    """Queue the run again. Where Slurm will have none of it the run stands as stopped."""
    from fusionrun.slurm.clean import own_handle
    from fusionrun.slurm.client import Slurm
    from fusionrun.store.status import mark_status

    job_id = own_handle(os.environ)
    layout.stop_request.unlink(missing_ok=True)  # (one that came too late would end the next one)
    mark_status(layout, "queued", job_id=os.environ["SLURM_JOB_ID"])
    add_event(
        layout,
        "requeued",
        how=action.kind,
        why=action.why,
        step=action.step,
        count=action.count,
        job_id=job_id,
    )
    print(f"fusionrun: {action.why}; it goes on (number {action.count})", flush=True)
    slurm = Slurm()
    try:
        if action.kind == "requeue" and _requeued(layout, slurm, job_id):
            return action.exit_code
        _chain(layout, slurm, submission, job_id)
    except SchedulerError as error:
        mark_status(layout, "stopped", job_id=os.environ["SLURM_JOB_ID"])
        why = f"Slurm takes no further job: {error}"
        add_event(layout, "not_requeued", why=why, code=FAILED, step=action.step)
        print(f"fusionrun: {why}", file=sys.stderr, flush=True)
        return FAILED
    return action.exit_code


def _requeued(layout: RunLayout, slurm: Slurm, job_id: str) -> bool:
    """Whether the same job is in the queue again."""
    try:
        slurm.requeue(job_id)
    except SchedulerError as error:
        add_event(layout, "requeue_refused", words=str(error))
        return False
    with suppress(SchedulerError):  # then it starts, only later
        slurm.hasten(job_id)
    return True


def _chain(layout: RunLayout, slurm: Slurm, submission: Submission | None, job_id: str) -> None:
    """A new job of the same script, that starts when this one is gone."""
    from fusionrun.submit.dependents import settle_dependents
    from fusionrun.submit.queueing import queue_script

    new = queue_script(slurm, layout, [f"--dependency=afterany:{job_id}"], known=(job_id,))
    add_event(layout, "chained", job_id=new, after=job_id)
    if submission:
        attempt = 1 + sum(event["event"] == "started" for event in read_events(layout))
        record_job(layout, Job(new, now(), attempt))
    settle_dependents(layout, new)


if __name__ == "__main__":
    sys.exit(main())
