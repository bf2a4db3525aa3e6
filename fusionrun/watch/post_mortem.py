"""Why a run that ended badly did: the scheduler's word where it remembers, else the run's files.

A pure function of facts. Slurm forgets a job after minutes, and its exit code may be a
bystander's; so the words its daemons left in the log count, then the earliest error of a rank.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from fusionrun.slurm.parse import QueuedJob
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import typed
from fusionrun.submit.waiting import listed
from fusionrun.watch.facts import WAITING, Facts
from fusionrun.watch.files import instant, number, text
from fusionrun.watch.lost_ranks import LOST, Lost, lost_ranks
from fusionrun.watch.rank_errors import RankError

__all__ = ["Cause", "cause_of", "how_to_go_on", "how_to_go_on_otherwise", "last_words"]

Kind = Literal[
    "time_limit",
    "out_of_memory",
    "node",
    "preempted",
    "user",
    "error",
    "killed",
    "hung",
    "setup",
]


@dataclass(frozen=True)
class Cause:
    """Why a run ended.

    Attributes:
        kind: for programs.
        words: for people; one line.
        advice: what to do; may be empty.
        culprit: the earliest error that is a rank's own; None where none left one.
        lost: ranks that left none, and that the others miss.
    """

    kind: Kind
    words: str
    advice: str
    culprit: RankError | None = None
    lost: tuple[int, ...] = ()


_BY_SLURM: Final[dict[str, Kind]] = {
    "TIMEOUT": "time_limit",
    "DEADLINE": "time_limit",
    "OUT_OF_MEMORY": "out_of_memory",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "PREEMPTED": "preempted",
    "CANCELLED": "user",
}

_WORDS: Final[dict[Kind, str]] = {
    "time_limit": "the time limit ended it before it had saved and stopped",
    "out_of_memory": "it ran out of memory",
    "node": "its node failed",
    "preempted": "it had to make room for another job",
    "user": "somebody cancelled its job",
}

# slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-23T01:02:03 DUE TO TIME LIMIT ***
_DAEMON: Final = re.compile(
    r"\*\*\* (?P<what>JOB|STEP) (?P<job>\d+)\S* ON \S+ (?:CANCELLED|FAILED)"
    r"(?: AT (?P<time>[\d:T-]+))?(?: DUE TO (?P<why>[A-Z ]+?))? ?\*\*\*"
)
_OOM_KILL: Final = re.compile(r"oom[-_ ]kill event.*?StepId=(?P<job>\d+)", re.IGNORECASE)
_BY_DAEMON: Final[dict[str, Kind]] = {
    "TIME LIMIT": "time_limit",
    "NODE FAILURE": "node",
    "PREEMPTION": "preempted",
    "": "user",
}

_MEMORY_KINDS: Final = frozenset({"OutOfMemoryError", "MemoryError"})
_MEMORY_WORDS: Final = re.compile(
    r"CUDA out of memory|can't allocate memory|Cannot allocate memory|CUBLAS_STATUS_ALLOC_FAILED"
)

_SETUP: Final = {
    70: ("there is no such point in the sweep's array", "Submit the sweep again."),
    71: ("the run's directory is missing on the node", "Is it on a file system the nodes share?"),
    72: ("a set-up line failed", "The log names the line; try it on a node. See slurm.setup."),
    73: (
        "python or fusionrun could not be started on the node",
        "The log says why; is the environment on a file system the nodes share?",
    ),
    74: ("the ranks have nowhere to meet", "The log says why: no address or no free port."),
}
"""Exit codes of the job script (templates/job.sbatch.j2), before there is any training."""

_SCRIPT_SAYS: Final = {
    70: re.compile(r"no line \d"),
    71: re.compile(r"the run directory is missing"),
    72: re.compile(r"this set-up line failed"),
    73: re.compile(r"the snapshot of the code is|.* cannot import .*fusionrun|apptainer: "),
    74: re.compile(r"the ranks have nowhere to meet"),
}
"""How the line begins that the script ends with, after `fusionrun: `."""

SCRIPT: Final = "fusionrun: "

SIGNALLED: Final = 128
"""A shell's exit code of a program that a signal ended is this and the signal's number."""

CLOCKS_S: Final = 5.0
"""How far the clocks of two machines may be apart."""


def cause_of(facts: Facts, job: QueuedJob | None) -> Cause | None:
    """Why the last attempt ended badly; None where nothing says so.

    Args:
        facts: of the run.
        job: its last job as Slurm remembers it; None when it does not.
    """
    errors = sorted(_recent_errors(facts), key=lambda error: error.kind == LOST)
    culprit, lost = next(iter(errors), None), lost_ranks(facts, errors)
    kind = _by_slurm(job) or _by_daemons(facts)
    if kind:
        where = job.nodes if job and job.nodes else facts.host
        words = _WORDS[kind] + (f" ({where})" if kind == "node" and where else "")
        if kind == "user" and facts.needs:
            return _never_let_go(facts)
        return Cause(kind, words, _advice(facts, kind, where), culprit)
    if lost:
        return _by_the_others(facts, lost, errors[0])
    if cause := _by_rank(facts, culprit) or _by_exit(facts, job) or _by_trainer(facts):
        return cause
    forgotten = facts.executor == "slurm" and not job and not facts.last_event("not_requeued")
    return _never_let_go(facts) if facts.needs and forgotten else None


def _never_let_go(facts: Facts) -> Cause:
    """Slurm ends by itself what can never start, and forgets it."""
    words = f"its job left the queue, where it waited for {facts.waits_for} to complete"
    return Cause("user", words, _advice(facts, "user", ""))


def how_to_go_on(facts: Facts) -> str:
    """What `resume` would do."""
    call, names = f"`{facts.typed('resume')}`", [name for name, _ in facts.damaged]
    if facts.layout.checkpoints.name in names:
        folder = facts.layout.checkpoints
        return f"{call} goes on when {folder} is a directory again; now it is none."
    for obstacle in facts.obstacles:
        return f"{call} will be refused: {obstacle.record}: {obstacle.wrong}. {obstacle.fix}."
    if facts.checkpoint is not None:
        passed = f", past what is damaged ({', '.join(names)})" if names else ""
        return f"{call} goes on from step {facts.checkpoint:,}{passed}{_code(facts)}."
    if facts.needs:
        return _when_others_have(facts)
    why = f": no checkpoint is whole ({', '.join(names)})" if names else ""
    return f"{call} starts it again from the beginning{why}{_code(facts)}."


def _when_others_have(facts: Facts) -> str:
    """Of a run that others have to complete before: those first."""
    own = f"`{facts.typed('resume')}`"
    if len(facts.needs) == 1:
        other = typed(RunLayout(facts.layout.root.parent / facts.needs[0]), "resume")
        return f"It begins when {facts.needs[0]} has completed: `{other}`, then {own}."
    return (
        f"It begins when {listed(facts.needs)} have completed. Submit the recipe again, which "
        f"queues what is missing; or `fusionrun resume` those that have ended, then {own}."
    )


def _code(facts: Facts) -> str:
    gone = f", with the code as it is now, as {facts.layout.submission.name} is gone"
    return gone if facts.lost else ""


def how_to_go_on_otherwise(facts: Facts) -> str:
    """After a `resume` that was refused: what may be done about it."""
    return (
        f"Put that back as it was; then {how_to_go_on(facts)} "
        f"`{facts.typed('resume')} --allow-inexact` does so as it is now, to other bits."
    )


def _recent_errors(facts: Facts) -> Iterator[RankError]:
    """Those of the last attempt: one that ended before python did not clear away older ones."""
    handed = [event for event in facts.events if event.get("event") == "submitted"]
    since = instant(handed[-1], "time") if handed else None
    return (e for e in facts.errors if since is None or e.time >= since - CLOCKS_S)


def _by_slurm(job: QueuedJob | None) -> Kind | None:
    return _BY_SLURM.get(job.state) if job else None


def _by_daemons(facts: Facts) -> Kind | None:
    """What slurmstepd said into the log as it ended the last attempt."""
    last = {next((j.id for j in reversed(facts.jobs) if not j.host), ""), facts.status_job}
    since = _began(facts)
    for line in reversed(facts.log):
        if (oom := _OOM_KILL.search(line)) and oom["job"] in last:
            return "out_of_memory"
        found = _DAEMON.search(line)
        # A step is ended whenever one of its ranks fails; only with a reason does that say more.
        if found is None or (found["what"] == "STEP" and not found["why"]):
            continue
        if found["job"] in last and _local_time(found["time"]) >= since - CLOCKS_S:
            return _BY_DAEMON.get(found["why"] or "")
    return None


def _began(facts: Facts) -> float:
    """When the last attempt began."""
    started = [event for event in facts.events if event.get("event") == "started"]
    return (instant(started[-1], "time") if started else None) or 0.0


def _local_time(slurms: str | None) -> float:
    try:
        return datetime.fromisoformat(slurms or "").timestamp()
    except (ValueError, OverflowError):
        return float("inf")


def _by_the_others(facts: Facts, lost: Lost, witness: RankError) -> Cause:
    """Ranks that could not say themselves what became of them."""
    at = f" after step {witness.step:,}" if witness.step is not None else ""
    missed = f"rank {witness.rank} waited in vain"
    kind: Kind
    if lost.hangs:
        kind, words = "hung", f"{lost} hung{at}, or came too late: {missed} until the timeout"
    elif "Out Of Memory" in lost.how:
        kind, words = "out_of_memory", f"{lost} ran out of memory{at} ({lost.how})"
    else:
        said = f" ({lost.how})" if lost.how else ", as what is killed does"
        kind, words = "killed", f"{lost} ended{at} without a word of its own{said}; {missed}"
    return Cause(kind, words, _advice(facts, kind, ""), lost=lost.ranks)


def _by_rank(facts: Facts, culprit: RankError | None) -> Cause | None:
    if culprit is None:
        return None
    who = f"rank {culprit.rank}" + (f" on {culprit.host}" if culprit.host else "")
    at = f" at step {culprit.step:,}" if culprit.step is not None else ""
    words = f"{who} failed{at}: {culprit.headline}"
    if culprit.kind in _MEMORY_KINDS or _MEMORY_WORDS.search(culprit.error):
        return Cause("out_of_memory", words, _advice(facts, "out_of_memory", ""), culprit)
    if culprit.known:
        return _by_word(facts, culprit)
    advice = f"Mend what the traceback shows; then {how_to_go_on(facts)}"
    return Cause("error", words, advice, culprit)


def _by_word(facts: Facts, culprit: RankError) -> Cause:
    """An error raised on purpose names its own step and its own way out."""
    who = f"rank {culprit.rank} on {culprit.host}: " if culprit.ranks > 1 else ""
    words = who + "; ".join(line.strip() for line in culprit.error.splitlines())
    fix = culprit.fix[:1].upper() + culprit.fix[1:]
    if culprit.repeats:
        return Cause("error", words, f"{fix}.", culprit)
    first = f"{fix}; then" if fix else "When that is mended,"
    return Cause("error", words, f"{first} {how_to_go_on(facts)}", culprit)


def _by_exit(facts: Facts, job: QueuedJob | None) -> Cause | None:
    died = facts.last_event("died")
    code = _exit_code(facts, job)
    if code in _SETUP and not died:
        words, advice = _SETUP[code]
        return Cause("setup", _last_line(facts) or f"{words} (exit code {code})", advice)
    name = _signal_name(code)
    if not name:
        return None
    hint = "; often the kernel, where memory ran out" if name == "SIGKILL" else ""
    words = f"it was ended by {name}, without a word of its own{hint}"
    return Cause("killed", words, _advice(facts, "killed", facts.host))


def _exit_code(facts: Facts, job: QueuedJob | None) -> int:
    """Of the training, else of the script; 0 where nobody knows it, or it says nothing."""
    event = facts.last_event("died") or facts.last_event("not_requeued")
    code = number(event, "code")
    if code is not None:
        return int(code)
    if job is not None:
        return SIGNALLED + job.signal if job.signal else job.exit_code or 0
    if facts.state not in WAITING:
        return 0
    said = _last_line(facts)  # all there is once Slurm has forgotten a job that never trained
    return next((code for code, words in _SCRIPT_SAYS.items() if words.match(said)), 0)


def _last_line(facts: Facts) -> str:
    """The log's last, where the script or what follows it wrote it; else the empty text."""
    last = next((line for line in reversed(facts.log) if line.strip()), "")
    return last.removeprefix(SCRIPT).strip() if last.startswith(SCRIPT) else ""


def _signal_name(code: int) -> str:
    with suppress(ValueError):
        if code > SIGNALLED:
            return signal.Signals(code - SIGNALLED).name
    return ""


def _by_trainer(facts: Facts) -> Cause | None:
    if facts.outcome != "failed":
        return None
    reason = facts.outcome_reason.strip().partition("\n")[0]
    return Cause("error", reason or "the training failed", how_to_go_on(facts))


def _advice(facts: Facts, kind: Kind, where: str) -> str:
    again = how_to_go_on(facts)
    if kind == "time_limit":
        return f"It needs more time to save than slurm.grace gives. {again}"
    if kind == "out_of_memory":
        more = "ask for more (slurm.mem, slurm.mem_per_cpu)"
        host = more if facts.executor == "slurm" else "end what else takes it"
        return (
            f"Host memory: {host}. Memory of the device: a "
            f"smaller training.batch_size, or a lower training.precision. {again}"
        )
    if kind == "node":
        avoid = f" slurm.exclude: {where} avoids it." if where else ""
        return again + avoid
    if kind == "hung":
        return (
            "While it hangs, `py-spy dump --pid` of that rank's process tells where. Where ranks "
            f"are only slow, raise FUSIONRUN_RANK_TIMEOUT_S (slurm.env). {again}"
        )
    if kind == "killed":
        host = f" on {where}" if where else ""
        more = "; slurm.mem asks for more" if facts.executor == "slurm" else ""
        return f"`dmesg`{host} tells whether memory ran out{more}. {again}"
    return again


def last_words(facts: Facts) -> str:
    """What was written down last about the end of the attempt; empty when nothing was."""
    return text(facts.last_event("not_requeued", "cancelled"), "why")
