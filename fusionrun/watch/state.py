"""How a run stands, in a word: a pure function of its files, its job and the time.

The run's own files are the truth. Slurm adds to it what they cannot know: that a job waits, runs
no more, or was ended from outside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal, TypeAlias

from fusionrun.slurm.parse import QueuedJob
from fusionrun.watch.facts import WAITING, Facts
from fusionrun.watch.post_mortem import (
    Cause,
    cause_of,
    how_to_go_on,
    how_to_go_on_otherwise,
    last_words,
)
from fusionrun.watch.reasons import reason_of, refusal

__all__ = ["ENDED", "HUNG_S", "RunState", "Unreachable", "Word", "heartbeat_age_s", "state_of"]

Word: TypeAlias = Literal[
    "preparing",
    "queued",
    "starting",
    "running",
    "stopping",
    "requeued",
    "completed",
    "stopped",
    "failed",
    "rejected",
    "hung?",
    "lost",
    "unknown",
]

ENDED: Final = frozenset({"completed", "stopped", "failed", "rejected", "lost"})
"""Nothing more comes of these by itself."""

HUNG_S: Final = 60.0
"""A heartbeat comes every 5 s; assumed: a healthy file system shows it within a minute."""
HUNG_STEPS: Final = 20
"""It comes between two steps, so a run of slow ones may be silent for longer."""
HUNG_SAVES: Final = 3
BEFORE_FIRST_STEP: Final = 10
"""So much longer while data are read and devices warmed, when there is no step to beat at."""

PREPARING_S: Final = 120.0
"""No submit takes longer between its two entries in the journal."""
CLOCKS_S: Final = 5.0
"""How far the clocks of two machines may be apart."""


@dataclass(frozen=True)
class RunState:
    """How a run stands.

    Attributes:
        word: one of a fixed list.
        why: one line; may be empty where the word says all.
        advice: what to do; may be empty.
        certain: False: the last known state, as the scheduler could not be asked.
        cause: of a bad end; None for others, or where nobody knows.
    """

    word: Word
    why: str = ""
    advice: str = ""
    certain: bool = True
    cause: Cause | None = None


@dataclass(frozen=True)
class Unreachable:
    """In a job's place: the scheduler could not be asked. `words` say why."""

    words: str


def state_of(
    facts: Facts, job: QueuedJob | Unreachable | None, now: float, hung_s: float = HUNG_S
) -> RunState:
    """How a run stands.

    Args:
        facts: its files.
        job: its last job as Slurm knows it, ended ones included; None where Slurm knows none, or
            has nothing to do with the run.
        now: seconds since 1970.
        hung_s: a heartbeat older than this, at least, looks like a hung process.
    """
    if facts.state == "completed":
        return RunState("completed")
    if isinstance(job, Unreachable):
        return _last_known(facts, now, hung_s)
    if job is not None and job.is_living:
        return _in_queue(facts, job, now, hung_s)
    if facts.executor == "local" and facts.supervisor_lives and not _left_sweep(facts):
        return _supervised(facts, now, hung_s)
    if facts.state == "running" and _may_train(facts, job, now, hung_s):
        return _training(facts, now, hung_s)
    return _over(facts, job, now)


def _left_sweep(facts: Facts) -> bool:
    """Whether the living supervisor is a sweep's that does not wait for this run any more."""
    return bool(facts.jobs[-1].sweep) and facts.handed in ("cancelled", "rejected")


def heartbeat_age_s(facts: Facts, now: float) -> float | None:
    """Seconds since the trainer's last sign of life; None before there is one."""
    return None if facts.heartbeat is None else max(0.0, now - facts.heartbeat)


def _is_silent(facts: Facts, now: float, hung_s: float) -> bool:
    """Whether the trainer has given no sign of life for longer than a healthy one would."""
    age = heartbeat_age_s(facts, now)
    if facts.step_s is None:
        return age is not None and age > BEFORE_FIRST_STEP * hung_s
    patience = max(hung_s, HUNG_STEPS * facts.step_s, HUNG_SAVES * (facts.save_s or 0.0))
    return age is not None and age > patience


def _may_train(facts: Facts, job: QueuedJob | None, now: float, hung_s: float) -> bool:
    """Whether somebody trains it although no queue says so."""
    if facts.trainer_lives is not None and facts.executor != "slurm":
        return facts.trainer_lives
    if facts.executor == "slurm":  # its job is gone; where Slurm never knew it, a beat counts
        silent = _is_silent(facts, now, hung_s) or cause_of(facts, None) is not None
        return job is None and not silent
    return True  # on another machine: only its heartbeat tells


# While somebody trains it, or will


def _training(facts: Facts, now: float, hung_s: float) -> RunState:
    if _is_silent(facts, now, hung_s):
        return _hung(facts, now)
    if facts.stop_reason:
        why = _STOPPING.get(facts.stop_reason, f"it was asked to ({facts.stop_reason})")
        return RunState("stopping", f"saves and stops at its next step: {why}")
    return RunState("running")


_STOPPING: Final = {
    "time_limit": "its time is nearly up",
    "cancel": "it was cancelled",
    "signal": "its job is being ended",
}


def _hung(facts: Facts, now: float) -> RunState:
    age = heartbeat_age_s(facts, now) or 0.0
    where = f"process {facts.pid} on {facts.host}" if facts.host else "its process"
    why = f"no sign of life for {age:.0f} s from {where}, after step {facts.step:,}"
    if facts.host and facts.trainer_lives is None and facts.executor != "slurm":
        why += ", which cannot be seen from here"
    advice = (
        f"`{facts.typed('logs')}` may say more, and `py-spy dump --pid {facts.pid}` on that "
        f"machine where it stands. `{facts.typed('cancel')} --now` ends it; then "
        f"{how_to_go_on(facts)}"
    )
    return RunState("hung?", why, advice)


def _supervised(facts: Facts, now: float, hung_s: float) -> RunState:
    if facts.jobs[-1].sweep:
        return RunState("queued", f"waits for its turn in the sweep of process {facts.jobs[-1].id}")
    if facts.state == "running" and facts.trainer_lives is not False:
        return _training(facts, now, hung_s)
    if facts.state not in WAITING:
        return RunState("stopping", "its process has ended, and its supervisor is about to")
    if facts.waits_for:
        return RunState("queued", f"waits for {facts.waits_for} to end")
    return RunState("starting", "its process has not begun to train")


def _in_queue(facts: Facts, job: QueuedJob, now: float, hung_s: float) -> RunState:
    match job.state:
        case "PENDING":
            return _pending(facts, job)
        case "REQUEUED" | "REQUEUE_FED":
            return RunState("requeued", f"job {job.handle} goes back into the queue")
        case "REQUEUE_HOLD" | "SPECIAL_EXIT" | "RESV_DEL_HOLD":
            advice = f"`scontrol release {job.handle}` lets it go."
            return RunState("requeued", f"job {job.handle} is held ({job.state})", advice)
        case "CONFIGURING" | "POWER_UP_NODE":
            return RunState("starting", f"the nodes of job {job.handle} are getting ready")
        case "SUSPENDED" | "STOPPED":
            why = f"Slurm has suspended job {job.handle}"
            return RunState("hung?", why, f"`scontrol resume {job.handle}` lets it go on.")
        case "COMPLETING" | "STAGE_OUT" | "SIGNALING":
            return _leaving(facts, job)
    return _running_job(facts, job, now, hung_s)


def _pending(facts: Facts, job: QueuedJob) -> RunState:
    if facts.handed == "cancelled":
        return RunState("stopping", f"it was cancelled; job {job.handle} leaves the queue")
    reason = reason_of(job.reason)
    word: Word = "requeued" if job.restarts or facts.last_event("requeued") else "queued"
    said = f" ({job.reason.partition(',')[0]})" if job.reason else ""
    meaning = reason.meaning
    if facts.waits_for and job.reason == "Dependency":
        meaning = f"it waits for {facts.waits_for} to end"
    advice = reason.advice.replace("JOB", job.handle)
    advice = advice.replace("fusionrun cancel RUN", facts.typed("cancel"))
    return RunState(word, f"job {job.handle}: {meaning}{said}", advice)


def _leaving(facts: Facts, job: QueuedJob) -> RunState:
    if facts.last_event("requeued"):
        return RunState("requeued", f"job {job.handle} goes back into the queue")
    if facts.state == "failed":
        return _failed(facts, job)
    return RunState("stopping", f"job {job.handle} is ending")


def _running_job(facts: Facts, job: QueuedJob, now: float, hung_s: float) -> RunState:
    if facts.state in WAITING or _is_of_before(facts, job):
        where = f" on {job.nodes}" if job.nodes else ""
        return RunState("starting", f"job {job.handle} runs{where}, and has not begun to train")
    if facts.state == "running":
        return _training(facts, now, hung_s)
    if facts.state == "failed":
        return _failed(facts, job)
    return RunState("stopping", f"it has saved and stopped; job {job.handle} is ending")


def _is_of_before(facts: Facts, job: QueuedJob) -> bool:
    """Whether the status was written by an attempt before the job's present one."""
    if facts.heartbeat is None:
        return True
    try:
        start = datetime.fromisoformat(job.start or "").timestamp()  # local time, as it bears none
    except (ValueError, OverflowError):
        return False
    return facts.heartbeat < start - CLOCKS_S


# When nobody does


def _over(facts: Facts, job: QueuedJob | None, now: float) -> RunState:
    if facts.handed == "rejected":
        return _rejected(facts)
    if facts.outcome == "refused":
        word: Word = "failed" if facts.state == "failed" else "stopped"
        return RunState(word, facts.outcome_reason, how_to_go_on_otherwise(facts))
    match facts.state:
        case "failed":
            return _failed(facts, job)
        case "stopped" | "interrupted":
            return _stopped(facts, job)
        case "running":
            return _died(facts, job)
    if facts.state in WAITING:
        return _not_begun(facts, job, now)
    raise AssertionError(f"a state that status_and_damage lets through: {facts.state!r}")


def _rejected(facts: Facts) -> RunState:
    why = refusal(facts.handed_words, facts.id) or "the scheduler refused it"
    resume = f"`{facts.typed('resume')}`"
    again = f"When that is mended, {resume}; or change the recipe and submit it again."
    return RunState("rejected", why, again)


def _was_cancelled(facts: Facts, cause: Cause | None) -> bool:
    asked = facts.handed == "cancelled" or facts.outcome_reason == "cancel"
    by_slurm = cause is not None and cause.kind == "user"
    return asked or by_slurm or bool(facts.last_event("cancelled"))


def _failed(facts: Facts, job: QueuedJob | None) -> RunState:
    cause = cause_of(facts, job)
    if facts.outcome != "failed" and _was_cancelled(facts, cause):
        return _cancelled(facts, cause)
    if cause is None:
        why = last_words(facts) or "it ended without a word"
        return RunState("failed", why, f"The log may say why. {how_to_go_on(facts)}")
    return RunState("failed", cause.words, cause.advice, cause=cause)


def _cancelled(facts: Facts, cause: Cause | None) -> RunState:
    asked = facts.handed == "cancelled" or facts.outcome_reason == "cancel"
    why = facts.last_event("cancelled").get("why") or ("by `fusionrun cancel`" if asked else "")
    words = str(why or "") or (cause.words if cause else "")
    return RunState("stopped", words, how_to_go_on(facts), cause=cause)


def _stopped(facts: Facts, job: QueuedJob | None) -> RunState:
    cause = cause_of(facts, job)
    if _was_cancelled(facts, cause):
        return _cancelled(facts, cause)
    if facts.state == "interrupted":
        return RunState("stopped", "interrupted at the keyboard", how_to_go_on(facts))
    why = last_words(facts) or _STOPPED.get(facts.outcome_reason, facts.outcome_reason)
    return RunState("stopped", why, how_to_go_on(facts))


_STOPPED: Final = {
    "time_limit": "its time was up, and it was not queued again",
    "signal": "its job was ended from outside (scancel, or to make room)",
    "interrupt": "interrupted at the keyboard",
}


def _died(facts: Facts, job: QueuedJob | None) -> RunState:
    """It says that it trains, and there is nobody."""
    cause = cause_of(facts, job)
    if _was_cancelled(facts, cause):
        return _cancelled(facts, cause)
    if cause:
        return RunState("failed", cause.words, cause.advice, cause=cause)
    ended = f"its job {job.handle} has ended ({job.state})" if job else _gone(facts)
    why = f"it ended without a word after step {facts.step:,}; {ended}"
    return RunState("lost", why, f"The log may say why. {how_to_go_on(facts)}")


def _gone(facts: Facts) -> str:
    if facts.executor == "slurm":
        return "Slurm does not know its job any more"
    return f"process {facts.pid} on {facts.host} is gone"


def _not_begun(facts: Facts, job: QueuedJob | None, now: float) -> RunState:
    if facts.handed == "cancelled" or facts.last_event("cancelled"):
        return _cancelled(facts, None)
    if facts.handed == "preparing":
        return _preparing(facts, now)
    if facts.handed != "submitted":
        return _never_submitted(facts, now)
    cause = cause_of(facts, job)
    if cause and cause.kind == "user":
        return _cancelled(facts, cause)
    if cause:
        return RunState("failed", cause.words, cause.advice, cause=cause)
    advice = f"The log may say why. {how_to_go_on(facts)}"
    if why := last_words(facts):
        return RunState("failed", why, advice)
    ended = "its supervisor is gone" if facts.executor == "local" else _gone(facts)
    if job:
        ended = f"job {job.handle} has ended ({job.state})"
    again = " again" if facts.attempts else ""
    return RunState("lost", f"it has not begun to train{again}; {ended}", advice)


def _preparing(facts: Facts, now: float) -> RunState:
    if facts.handed_time is not None and now - facts.handed_time < PREPARING_S:
        return RunState("preparing", "it is being submitted right now")
    why = "whoever submitted it died, or the scheduler did not answer; no job of it is known"
    advice = "Submit it again: a job that was queued after all is looked for, and taken."
    return RunState("lost", why, advice)


def _never_submitted(facts: Facts, now: float) -> RunState:
    if facts.trainer_lives is not None:
        words = f"process {facts.pid} on {facts.host} has not begun to train"
        return RunState("starting", words) if facts.trainer_lives else _died(facts, None)
    if facts.made is not None and now - facts.made < PREPARING_S:
        return RunState("preparing", "it is being prepared right now")
    why = "it was never begun"
    if facts.lost:
        why = f"which job carries it is not known: its {facts.layout.submission.name} is gone"
    return RunState("unknown", why, how_to_go_on(facts))


# When the scheduler cannot be asked


def _last_known(facts: Facts, now: float, hung_s: float) -> RunState:
    if facts.is_settled:
        return _over(facts, None, now)
    return replace(_by_files(facts, now, hung_s), certain=False)


def _by_files(facts: Facts, now: float, hung_s: float) -> RunState:
    if facts.state == "running":
        if not _is_silent(facts, now, hung_s):
            return _training(facts, now, hung_s)
        return RunState("stopping" if facts.stop_reason else "running", _last_heard(facts, now))
    if facts.state in WAITING and facts.handed == "submitted":
        word: Word = "requeued" if facts.last_event("requeued") else "queued"
        return RunState(word, "it waited in the queue when last heard of")
    return _over(facts, None, now)


def _last_heard(facts: Facts, now: float) -> str:
    age = heartbeat_age_s(facts, now)
    return "" if age is None else f"last heard of {age:.0f} s ago"
