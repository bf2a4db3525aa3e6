"""What Slurm's commands print, as values. Pure functions of text: nothing here calls anything.

Text is what all versions agree on (22.05 to 25.05 were looked at). Where a user's own words can
stand in it (a comment, a job's name) they stand last on the line, so that they break nothing.
Slurm's times are local and bear no zone; they stay text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = [
    "LIVING",
    "QUEUE_FORMAT",
    "QueuedJob",
    "Verdict",
    "bounded_s",
    "duration_s",
    "exit_of",
    "or_empty",
    "queue",
    "run_id_of",
    "submitted_id",
    "verdict",
    "version",
]

LIVING: Final = frozenset(
    {
        "PENDING",
        "CONFIGURING",
        "RUNNING",
        "SUSPENDED",
        "STOPPED",
        "SIGNALING",
        "STAGE_OUT",
        "COMPLETING",
        "REQUEUED",
        "REQUEUE_HOLD",
        "REQUEUE_FED",
        "RESIZING",
        "RESV_DEL_HOLD",
        "SPECIAL_EXIT",
        "EXPEDITING",
        "POWER_UP_NODE",
    }
)
"""States of a job that still runs, or may run yet."""

COMMENT_PREFIX: Final = "fusionrun:"
_SEPARATOR: Final = "|"
_QUEUE_FIELDS: Final = (
    "ArrayJobID",
    "ArrayTaskID",
    "State",
    "exit_code",
    "TimeLeft",
    "StartTime",
    "RestartCnt",
    "NodeList",
    "Reason",
    "Comment",
)
# A colon without a number: as wide as it needs, neither cut nor padded; then what ends it.
QUEUE_FORMAT: Final = ",".join(f"{field}:{_SEPARATOR}" for field in _QUEUE_FIELDS)
"""`squeue --Format=…` whose lines `queue` reads."""

_NO_LIMIT_S: Final = 300 * 86_400
"""Slurm gives a job a year where neither it nor its partition has a limit."""

_NOTHING: Final = frozenset({"", "(null)", "N/A", "None", "NONE", "Unknown", "UNLIMITED", "n/a"})


@dataclass(frozen=True)
class QueuedJob:
    """A job as squeue sees it; of an array, one task.

    Attributes:
        id: the job's id as sbatch told it; of an array, that of the whole array.
        array_index: the task's index; None where the job is no array.
        state: Slurm's word, in capitals: PENDING, RUNNING, FAILED, …
        reason: why it waits, or how it failed, in Slurm's word; empty when there is none.
        run_id: the run it carries, from its comment; None when it is none of ours.
        time_left_s: seconds until the time limit; None when there is none, or it is not known.
        start: when it started, or is expected to; local time, `2026-11-23T00:53:01`.
        nodes: where it runs, as Slurm abbreviates it: `n[1-2]`.
        restarts: how often Slurm has requeued it.
        exit_code: of the batch script, once it has ended; None before.
        signal: that ended the batch script; 0 for none.
    """

    id: str
    array_index: int | None
    state: str
    reason: str
    run_id: str | None
    time_left_s: int | None
    start: str | None
    nodes: str
    restarts: int
    exit_code: int | None = None
    signal: int = 0

    @property
    def handle(self) -> str:
        """What scancel and scontrol call it: `12`, or `12_3` for a task of an array."""
        return self.id if self.array_index is None else f"{self.id}_{self.array_index}"

    @property
    def is_living(self) -> bool:
        """Whether it still runs, or may run yet."""
        return self.state in LIVING


@dataclass(frozen=True)
class Verdict:
    """What the scheduler says to a script without queueing it.

    Attributes:
        accepted: whether it would queue it.
        start: when it would start, local time; None when refused, or when nobody knows.
        words: its own words, without the program's name before them.
    """

    accepted: bool
    start: str | None
    words: str


def version(text: str) -> tuple[int, int, int]:
    """`slurm-wlm 22.05.8` is (22, 5, 8). Raises ValueError when no version stands there."""
    found = re.search(r"\b(\d+)\.(\d+)(?:\.(\d+))?", text)
    if not found:
        raise ValueError(f"expected a version such as 'slurm 23.11.4', got {text.strip()!r}")
    year, month, patch = (int(number or 0) for number in found.groups())
    return year, month, patch


def duration_s(text: str) -> int | None:
    """Seconds of a time that Slurm prints: `4:58`, `1:00:00`, `1-12:00:00`.

    None for UNLIMITED, INVALID, NOT_SET and whatever else is no number.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not found:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def exit_of(text: str) -> tuple[int, int]:
    """Exit code and signal of `9:0`, or of a raw wait status such as `2304`.

    Raises:
        ValueError: it is neither.
    """
    code, colon, signal = text.strip().partition(":")
    if colon:
        return int(code), int(signal)
    return int(code) >> 8, int(code) & 0x7F


def run_id_of(comment: str) -> str | None:
    """The run a comment names; None when it is none of ours. What follows a blank is ignored."""
    words = comment.split(maxsplit=1)
    if not words or not words[0].startswith(COMMENT_PREFIX):
        return None
    return words[0].removeprefix(COMMENT_PREFIX) or None


def queue(text: str) -> list[QueuedJob]:
    """The jobs in the output of `squeue --noheader --array --Format=QUEUE_FORMAT`.

    A comment may hold line breaks; the lines they make are no jobs, and are left out.
    """
    jobs = (_queued_job(line) for line in text.split("\n"))
    return [job for job in jobs if job]


def _queued_job(line: str) -> QueuedJob | None:
    fields = line.split(_SEPARATOR, len(_QUEUE_FIELDS) - 1)
    if len(fields) < len(_QUEUE_FIELDS) or not fields[0].isdecimal():
        return None
    job_id, index, state, exit_text, left, start, restarts, nodes, reason, comment = fields
    living = state in LIVING
    try:
        code, signal = (None, 0) if living else exit_of(exit_text)
    except ValueError:
        code, signal = None, 0
    return QueuedJob(
        id=job_id,
        array_index=int(index) if index.isdecimal() else None,
        state=state,
        reason=or_empty(reason),
        run_id=run_id_of(comment.removesuffix(_SEPARATOR)),
        time_left_s=bounded_s(duration_s(left)),
        start=or_empty(start) or None,
        nodes=or_empty(nodes),
        restarts=int(restarts) if restarts.isdecimal() else 0,
        exit_code=code,
        signal=signal,
    )


def bounded_s(left_s: int | None) -> int | None:
    """Seconds that a job has left; None where they are those of a job without a limit."""
    return None if left_s is not None and left_s > _NO_LIMIT_S else left_s


def or_empty(text: str) -> str:
    """What stands there, or the empty text for Slurm's many words for nothing."""
    return "" if text.strip() in _NOTHING else text.strip()


def submitted_id(text: str) -> str | None:
    """The job's id in what `sbatch --parsable` prints: `12`, or `12;cluster`. None without one.

    Sites wrap sbatch in scripts that talk: the last line that is nothing but an id counts, or
    else sbatch's own sentence.
    """
    found = re.findall(r"^(\d+)(?:;\S+)?\s*$", text, re.MULTILINE)
    found = found or re.findall(r"^Submitted batch job (\d+)", text, re.MULTILINE)
    return found[-1] if found else None


_FARTHEST_YEAR: Final = 2200  # behind a job without a limit Slurm expects a start in 8151


def verdict(code: int, words: str) -> Verdict:
    """What `sbatch --test-only` said.

    Args:
        code: its exit code.
        words: what it printed, without the program's name (`words.tidy`).
    """
    found = re.search(r"to start at (\d{4,})(-\S+)", words)
    start = found[1] + found[2] if found and int(found[1]) < _FARTHEST_YEAR else None
    return Verdict(accepted=code == 0, start=start if code == 0 else None, words=words)
