"""Calls of Slurm's commands: argument lists, a clean environment, a time limit on every one.

It knows no recipe and no run directory. What the commands print is read by `parse` and `records`;
how an error reads is said by `words`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from fusionrun.durations import seconds_from
from fusionrun.errors import SchedulerError
from fusionrun.slurm import parse, records, words
from fusionrun.slurm.clean import without_slurm
from fusionrun.slurm.parse import QueuedJob, Verdict
from fusionrun.slurm.records import Node, Partition

__all__ = [
    "Node",
    "Partition",
    "QueuedJob",
    "SchedulerUnreachableError",
    "Slurm",
    "SubmitTimeout",
    "Verdict",
]

TIMEOUT_VARIABLE: Final = "FUSIONRUN_SLURM_TIMEOUT_S"
DEFAULT_TIMEOUT_S: Final = 30.0
"""Of one command. Busy controllers answer squeue after 10 s (Slurm's own MessageTimeout)."""

HASTEN_S: Final = 10
"""`hasten`: a requeued job may start so many seconds from now; measured: then it does."""

# A job that is gone already is what cancelling wanted.
_GONE: Final = re.compile(
    r"Invalid job id|already (?:completing|completed|finished)", re.IGNORECASE
)
# A job that somebody else has put back is what requeueing wanted.
_WAITS: Final = re.compile(r"Job is pending execution", re.IGNORECASE)


class SchedulerUnreachableError(SchedulerError):
    """The scheduler did not answer, or is not installed here. Nothing was changed."""


class SubmitTimeout(SchedulerError):
    """Nobody knows whether the job was queued: look for its comment before submitting again."""


class _SlowError(SchedulerUnreachableError):
    """A command was ended because it took too long; what it asked for may have been done."""


class _Answer(NamedTuple):
    """How a command ended: its exit code, standard output, and tidy words of both streams."""

    code: int
    out: str
    words: str


class Slurm:
    """The cluster this machine submits to.

    Every method raises SchedulerError with the scheduler's own words when it refuses, and
    SchedulerUnreachableError when it does not answer.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> None:
        """Nothing is called yet.

        Args:
            environment: of the commands and of the jobs; this process's unless given. What would
                steer Slurm's commands is taken out, SLURM_CONF is not.
            timeout_s: of one command; FUSIONRUN_SLURM_TIMEOUT_S or 30 s unless given.
        """
        given = os.environ if environment is None else environment
        self.environment: Final = without_slurm(given)
        self.timeout_s: Final = (
            seconds_from(given, TIMEOUT_VARIABLE, DEFAULT_TIMEOUT_S)
            if timeout_s is None
            else timeout_s
        )

    def available(self) -> bool:
        """Whether this machine has Slurm's commands. Says nothing of the controller; see `ping`."""
        return self._path_of("sbatch") is not None

    def ping(self) -> None:
        """Raises SchedulerUnreachableError when the controller does not answer."""
        answer = self._call("scontrol", "ping")
        if not re.search(r"\bUP\b", answer.out):
            raise _unreachable(answer.words)

    def version(self) -> tuple[int, int, int]:
        """Of the commands here: (22, 5, 8). Asks no controller."""
        answer = self._ask("the version of Slurm", "sbatch", "--version")
        try:
            return parse.version(answer.out)
        except ValueError as error:
            raise SchedulerError(f"sbatch --version: {error}") from error

    def queue(self, user_only: bool = True, *, ended: bool = False) -> list[QueuedJob]:
        """All jobs, by one squeue; of an array, each task.

        Args:
            user_only: those of this user alone.
            ended: also those that ended, for as long as Slurm remembers them (MinJobAge).
        """
        self.ping()  # 10 ms; without a controller squeue takes 9 s to say so
        chosen = [f"--user={os.getuid()}"] if user_only else []
        chosen += ["--states=all"] if ended else []
        form = f"--Format={parse.QUEUE_FORMAT}"
        answer = self._ask("the queue", "squeue", "--noheader", "--all", "--array", *chosen, form)
        jobs = parse.queue(answer.out)
        if answer.out.strip() and not jobs:  # a version whose text reads otherwise
            return [job for job in self._queue_by_json(user_only) if ended or job.is_living]
        return jobs

    def _queue_by_json(self, user_only: bool) -> list[QueuedJob]:
        from fusionrun.slurm import parse_json

        answer = self._ask("the queue", "squeue", "--json", "--all", "--states=all")
        user_id = os.getuid() if user_only else None
        try:
            return parse_json.queue(answer.out, now=time.time(), user_id=user_id)
        except ValueError as error:
            raise SchedulerError(
                f"squeue: its text and its JSON cannot be read: {error}"
            ) from error

    def find(self, run_id: str, *, ended: bool = False) -> list[QueuedJob]:
        """This user's jobs that carry a run, by their comment; `ended` as for `queue`."""
        return [job for job in self.queue(ended=ended) if job.run_id == run_id]

    def show_job(self, job_id: str) -> Mapping[str, str] | None:
        """All that Slurm knows of a job, by its own names (JobState, Reason, ExitCode, …).

        None when it has forgotten the job, or never knew it. Of an array, its first task.
        """
        answer = self._call("scontrol", "show", "job", job_id)
        if answer.code and _GONE.search(answer.words):
            return None
        found = records.records(self._checked(f"job {job_id}", answer).out)
        return found[0] if found else None

    def submit(self, script: Path, *arguments: str) -> str:
        """Queue a script; returns the job's id.

        Args:
            script: the file; Slurm takes a copy.
            arguments: further options of sbatch.

        Raises:
            SubmitTimeout: it may have been queued.
        """
        what = f"sbatch {script.name}: Slurm refused it"
        try:
            answer = self._call("sbatch", "--parsable", *arguments, str(script.absolute()))
        except _SlowError as error:
            raise SubmitTimeout(_in_doubt(str(error))) from error
        if answer.code < 0 or (answer.code and words.is_in_doubt(answer.words)):
            raise SubmitTimeout(_in_doubt(answer.words or f"ended by signal {-answer.code}"))
        job_id = parse.submitted_id(self._checked(what, answer).out)
        if job_id is None:
            raise SubmitTimeout(_in_doubt(answer.words or "it named no job"))
        return job_id

    def verdict(self, script: Path, *arguments: str) -> Verdict:
        """What the scheduler would say to a script. Queues nothing, but uses up a job id."""
        self.ping()  # without a controller sbatch takes 18 s to say so
        answer = self._call("sbatch", "--test-only", *arguments, str(script.absolute()))
        if answer.code and _is_no_answer(answer):
            raise _error("the scheduler's verdict", answer)
        return parse.verdict(answer.code, answer.words)

    def cancel(self, job_id: str) -> None:
        """End a job, or a task of an array (`12_3`), at once. One that is gone is no error."""
        answer = self._call("scancel", job_id)
        if not _GONE.search(answer.words):
            self._checked(f"scancel {job_id}", answer)

    def signal(self, job_id: str, name: str, batch: bool = True) -> None:
        """Send a signal such as `USR1` to a job's batch script alone, or else to its steps.

        A job that does not run is refused; where it waits, Slurm takes ten seconds for that.
        """
        to = ["--batch"] if batch else []
        self._ask(f"scancel --signal={name} {job_id}", "scancel", *to, f"--signal={name}", job_id)

    def requeue(self, job_id: str) -> None:
        """Put a job back into the queue, under the same id; Slurm ends it first where it runs.

        One that waits there already is no error. Of an array a task is `12_3`: its last one's own
        id is that of the whole array, which would go back with it.
        """
        answer = self._call("scontrol", "requeue", job_id)
        if not _WAITS.search(answer.words):
            self._checked(f"scontrol requeue {job_id}", answer)

    def hasten(self, job_id: str) -> None:
        """Let a requeued job start in ten seconds; left alone, Slurm waits about two minutes."""
        update = ["update", f"JobId={job_id}", f"StartTime=now+{HASTEN_S}"]
        self._ask(f"scontrol update {job_id}", "scontrol", *update)

    def depend(self, job_id: str, dependency: str) -> None:
        """Let a job that waits wait for something else: `afterok:12`."""
        update = ["update", f"JobId={job_id}", f"Dependency={dependency}"]
        self._ask(f"scontrol update {job_id}", "scontrol", *update)

    def partitions(self) -> list[Partition]:
        """All partitions this user may see."""
        answer = self._ask("the partitions", "scontrol", "--all", "show", "partition")
        return records.partitions(answer.out)

    def nodes(self) -> list[Node]:
        """All nodes."""
        return records.nodes(self._ask("the nodes", "scontrol", "--all", "show", "node").out)

    def config(self) -> Mapping[str, str]:
        """The controller's configuration, by Slurm's own names."""
        return records.config(self._ask("the configuration", "scontrol", "show", "config").out)

    def _path_of(self, program: str) -> str | None:
        return shutil.which(program, path=self.environment.get("PATH", os.defpath))

    def _ask(self, what: str, program: str, *arguments: str) -> _Answer:
        """Call a command that must end well."""
        return self._checked(what, self._call(program, *arguments))

    def _checked(self, what: str, answer: _Answer) -> _Answer:
        if answer.code:
            raise _error(what, answer)
        return answer

    def _call(self, program: str, *arguments: str) -> _Answer:
        """Call a command and wait for it; SchedulerUnreachableError when it does not answer."""
        path = self._path_of(program)
        conf = self.environment.get("SLURM_CONF")
        if conf and not os.path.isfile(conf):  # Slurm itself looks for it for a minute
            raise _unreachable(f"SLURM_CONF={conf}: no such file")
        if path is None:
            raise SchedulerUnreachableError(
                f"{program}: not found on this machine's PATH\n"
                "  Slurm is not installed here, or its module is not loaded; "
                "`--executor local` runs without Slurm."
            )
        return _run([path, *arguments], self.environment, self.timeout_s)


def _run(argv: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> _Answer:
    import subprocess

    # Its own session: a sbatch that a site wraps in a script must end with that script, lest it
    # queue the job long after we have looked for it.
    with subprocess.Popen(
        argv,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise _SlowError(_no_answer(os.path.basename(argv[0]), timeout_s)) from error
            raise
    return _Answer(process.returncode, out, words.tidy(f"{err}\n{out}"))


def _no_answer(program: str, timeout_s: float) -> str:
    return (
        f"{program}: no answer within {timeout_s:g} s\n"
        f"  The Slurm controller is busy or out of reach; {TIMEOUT_VARIABLE} lets it take longer."
    )


def _in_doubt(said: str) -> str:
    return words.explained("sbatch: nobody knows whether the job was queued", said)


def _unreachable(said: str) -> SchedulerUnreachableError:
    hint = words.advice(said) or words.UNREACHABLE_ADVICE
    text = words.explained("the Slurm controller is out of reach", said, hint)
    return SchedulerUnreachableError(text)


def _error(what: str, answer: _Answer) -> SchedulerError:
    kind = SchedulerUnreachableError if _is_no_answer(answer) else SchedulerError
    return kind(words.explained(what, answer.words))


def _is_no_answer(answer: _Answer) -> bool:
    return words.is_unreachable(answer.words) or words.is_in_doubt(answer.words)
