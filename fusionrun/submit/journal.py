"""`submission.json`: who was asked to carry a run out, as which job, with which code.

It is written before the scheduler is asked and again when it has answered, so that whoever dies
in between leaves a trace to go on from. How the training itself stands is in `status.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from fusionrun.errors import UserError
from fusionrun.regular import last_bytes, read_regular
from fusionrun.store.atomic import append_line, write_json
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import MOST_PID

__all__ = [
    "Executor",
    "Job",
    "Submission",
    "SubmissionState",
    "add_event",
    "is_lost",
    "now",
    "read_events",
    "read_submission",
    "record_job",
    "write_submission",
]

Executor = Literal["slurm", "local"]
SubmissionState = Literal["preparing", "submitted", "rejected", "cancelled"]


@dataclass(frozen=True)
class Job:
    """One entry in a queue, or one supervisor.

    Attributes:
        id: Slurm's job id; locally the supervisor's process id.
        time: when it was handed over; ISO 8601, UTC.
        attempt: how often the run had been started before, plus one.
        host: locally, the machine; empty for Slurm.
        born: locally, when the process began, in the kernel's ticks, so that another process that
            later bears its id is not taken for it.
        sweep: locally, the sweep whose supervisor that is; empty for the run's own.
    """

    id: str
    time: str
    attempt: int
    host: str = ""
    born: int = 0
    sweep: str = ""


@dataclass(frozen=True)
class Submission:
    """The journal of a run that was submitted.

    Attributes:
        executor: who carries it out.
        state: preparing (the executor is being asked); submitted; rejected; cancelled (somebody
            asked for its end).
        time: of the last change; ISO 8601, UTC.
        job_id: the last job's id; None before there is one.
        jobs: all of them, the first first.
        snapshot: `id`, `commit`, and `left_out` as pairs of path and reason.
        words: the executor's own about the last thing asked of it.
        slurm: the settings it was asked with.
        python: the interpreter.
        pythonpath: what it finds modules in, the snapshot first.
        after: `run`, or several `runs`, and `kind` ("ok" or "any") of what it waits for; None for
            nothing.
        host: the machine it was submitted from.
    """

    executor: Executor
    state: SubmissionState
    time: str
    job_id: str | None = None
    jobs: tuple[Job, ...] = ()
    snapshot: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""
    slurm: Mapping[str, Any] = field(default_factory=dict)
    python: str = ""
    pythonpath: tuple[str, ...] = ()
    after: Mapping[str, Any] | None = None
    host: str = ""

    @property
    def last_job(self) -> Job | None:
        """The one that carries it now, or did last."""
        return self.jobs[-1] if self.jobs else None

    @property
    def awaited(self) -> tuple[str, ...]:
        """Ids of the runs that it waits for."""
        after = self.after or {}
        runs = after.get("runs", [after[key] for key in ("run",) if key in after])
        return tuple(runs) if isinstance(runs, list | tuple) else (runs,)

    def changed(self, state: SubmissionState, words: str = "") -> Submission:
        """The same, in another state from now on."""
        return replace(self, state=state, words=words, time=now())

    def with_job(self, job: Job) -> Submission:
        """Handed over, as one job more; a run that was cancelled meanwhile stays cancelled."""
        others = [known for known in self.jobs if known.id != job.id]
        jobs = tuple(sorted([*others, job], key=lambda each: (each.attempt, each.time)))
        is_cancelled = self.state == "cancelled"
        handed = self if is_cancelled else self.changed("submitted")
        return replace(handed, job_id=jobs[-1].id, jobs=jobs)


_FIELDS = {f.name for f in fields(Submission)}
_JOB_FIELDS = {f.name for f in fields(Job)}


def now() -> str:
    """The time as the journal writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_submission(layout: RunLayout, submission: Submission) -> None:
    """Replace the journal, in one step."""
    write_json(layout.submission, asdict(submission))


def read_submission(layout: RunLayout) -> Submission | None:
    """The journal of a run; None where it was never submitted.

    Raises:
        UserError: it is damaged.
    """
    try:
        content = json.loads(read_regular(layout.submission))
        known = {key: value for key, value in content.items() if key in _FIELDS}
        known["jobs"] = tuple(_job(job) for job in content.get("jobs", ()))
        known["pythonpath"] = tuple(content.get("pythonpath", ()))
        return _checked(Submission(**known))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise UserError(f"{layout.submission}: damaged: {error}") from error


def is_lost(layout: RunLayout) -> bool:
    """Whether a run was handed over, and its journal is gone: its script or job's log is there."""
    handed = layout.job_script.exists() or layout.log.exists()
    return handed and not layout.submission.exists()


def record_job(layout: RunLayout, job: Job) -> Submission:
    """Add a job to the journal as it is now: others may have written since it was read.

    Raises:
        UserError: the run has no journal, or a damaged one.
    """
    submission = read_submission(layout)
    if submission is None:
        raise UserError(f"{layout.submission}: gone while the run was submitted")
    submission = submission.with_job(job)
    write_submission(layout, submission)
    return submission


def _job(content: Mapping[str, Any]) -> Job:
    job = Job(**{key: value for key, value in content.items() if key in _JOB_FIELDS})
    _require(job, {**dict.fromkeys(("id", "time", "host"), str), "attempt": int, "born": int})
    if job.host and not (job.id.isascii() and job.id.isdecimal() and 0 < int(job.id) <= MOST_PID):
        raise ValueError(f"the process {job.id!r}")
    return job


def _checked(submission: Submission) -> Submission:
    """Raises TypeError or ValueError for values that no journal has: nothing later meets them."""
    _require(submission, dict.fromkeys(("executor", "state", "time", "words"), str))
    _require(submission, dict.fromkeys(("python", "host"), str))
    _require(submission, dict.fromkeys(("snapshot", "slurm"), Mapping))
    if submission.job_id is not None:
        _require(submission, {"job_id": str})
    if submission.executor not in get_args(Executor):
        raise ValueError(f"the executor {submission.executor!r}")
    if submission.state not in get_args(SubmissionState):
        raise ValueError(f"the state {submission.state!r}")
    if not all(isinstance(folder, str) for folder in submission.pythonpath):
        raise TypeError("a pythonpath that is not text")
    if submission.after is not None:
        _require(submission, {"after": Mapping})
        for word in (submission.after["kind"], *submission.awaited):
            if not isinstance(word, str):
                raise TypeError(f"after: {word!r}")
        if not submission.awaited:
            raise ValueError("after: no run")
    if submission.time or submission.state == "preparing":
        datetime.fromisoformat(submission.time)
    return submission


def _require(record: Job | Submission, kinds: Mapping[str, type]) -> None:
    for name, kind in kinds.items():
        value = getattr(record, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{name}: {value!r}")


def add_event(layout: RunLayout, what: str, **details: Any) -> None:
    """Append one thing that happened to the run's events, with the time in UTC."""
    append_line(layout.events, {"time": now(), "event": what, **details})


def read_events(layout: RunLayout) -> list[dict[str, Any]]:
    """All that happened, the first first; lines that a dying writer left torn are passed over."""
    try:
        lines = last_bytes(layout.events).decode("utf-8", "replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    events = (_parsed(line) for line in lines)
    return [event for event in events if "event" in event]


def _parsed(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
