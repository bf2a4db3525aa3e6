"""One look at runs: their facts, jobs and states together, and all of it as JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fusionrun.durations import seconds_from
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import planless
from fusionrun.watch.facts import Facts, facts_of
from fusionrun.watch.jobs import jobs_of
from fusionrun.watch.progress import Progress, progress_of
from fusionrun.watch.state import ENDED, HUNG_S, RunState, Unreachable, heartbeat_age_s, state_of

if TYPE_CHECKING:
    from fusionrun.slurm.client import QueuedJob, Slurm

__all__ = ["LOST", "Look", "SeenRun", "hung_s", "look", "look_as_json", "run_as_json"]

HUNG_VARIABLE: Final = "FUSIONRUN_HUNG_S"

LOST: Final = "missing; the run was handed over, and nothing else says with which code"


@dataclass(frozen=True)
class SeenRun:
    """A run as it was seen.

    Attributes:
        facts: its files.
        state: how it stands.
        progress: how far it is.
        job: its last job as Slurm knows it; None where it knows none, or was not asked.
        heartbeat_age_s: since its last sign of life; None before there is one.
    """

    facts: Facts
    state: RunState
    progress: Progress
    job: QueuedJob | None
    heartbeat_age_s: float | None

    @property
    def time_left_s(self) -> int | None:
        """Until its job's time limit; None without one, or while it does not run."""
        runs = self.job is not None and self.job.is_living and self.job.state != "PENDING"
        return self.job.time_left_s if runs and self.job else None


@dataclass(frozen=True)
class Look:
    """What was seen at one time.

    Attributes:
        time: seconds since 1970.
        runs: the newest first.
        unreachable: why the scheduler could not be asked; None where it was, or need not be.
    """

    time: float
    runs: tuple[SeenRun, ...]
    unreachable: str | None = None

    @property
    def is_certain(self) -> bool:
        """Whether every state is that of now, and not only the last known one."""
        return all(run.state.certain for run in self.runs)


def look(
    layouts: Sequence[RunLayout], slurm: Slurm | None = None, *, thorough: bool = False
) -> Look:
    """Look at runs, asking Slurm at most once for all.

    Args:
        layouts: the runs.
        slurm: the cluster; this machine's unless given.
        thorough: as for `facts_of`.
    """
    patience = hung_s(os.environ)
    runs = [facts_of(layout, thorough=thorough) for layout in layouts]
    jobs = jobs_of(runs, slurm)
    now = time.time()
    seen = tuple(_seen(facts, jobs, now, patience) for facts in runs)
    return Look(now, seen, jobs.words if isinstance(jobs, Unreachable) else None)


def hung_s(environment: Mapping[str, str]) -> float:
    """How old a heartbeat may be. Raises UserError when FUSIONRUN_HUNG_S is no number above 0."""
    return seconds_from(environment, HUNG_VARIABLE, HUNG_S)


def _seen(
    facts: Facts, jobs: Mapping[str, QueuedJob] | Unreachable, now: float, patience: float
) -> SeenRun:
    if isinstance(jobs, Unreachable):
        job, asked = None, jobs if facts.executor == "slurm" else None
        state = state_of(facts, asked, now, patience)
    else:
        job = jobs.get(facts.id)
        state = state_of(facts, job, now, patience)
    return SeenRun(facts, state, progress_of(facts), job, heartbeat_age_s(facts, now))


def look_as_json(seen: Look, runs_dir: Path) -> dict[str, Any]:
    """All of a look: every key is always there, null where nothing is known."""
    return {
        **_head(seen),
        "runs_dir": str(runs_dir.absolute()),
        "without_plan": [str(run.root.absolute()) for run in planless(runs_dir)],
        "runs": [_run(run) for run in seen.runs],
    }


def run_as_json(seen: Look, log_lines: int) -> dict[str, Any]:
    """All of the look at one run, with the reasons of its end; keys as for `look_as_json`."""
    (run,) = seen.runs
    facts = run.facts
    log = list(facts.log[-log_lines:])
    return {**_head(seen), "run": {**_run(run), "post_mortem": _post_mortem(run), "log_tail": log}}


def _head(seen: Look) -> dict[str, Any]:
    at = datetime.fromtimestamp(seen.time, UTC).isoformat(timespec="milliseconds")
    return {"time": at, "scheduler": {"unreachable": seen.unreachable}}


def _run(run: SeenRun) -> dict[str, Any]:
    facts, state, job = run.facts, run.state, run.job
    return {
        "id": facts.id,
        "directory": str(facts.layout.root.absolute()),
        "state": state.word,
        "certain": state.certain,
        "why": state.why,
        "advice": state.advice,
        "executor": facts.executor or "foreground",
        "job": _job(facts, job),
        "attempts": facts.attempts,
        "epoch": facts.epoch,
        "epochs": facts.epochs or None,
        "step": facts.step,
        "steps": facts.steps or None,
        "percent": _rounded(run.progress.percent, 2),
        "eta_s": None if state.word in ENDED else _rounded(run.progress.eta_s, 1),
        "time_left_s": run.time_left_s,
        "step_s": facts.step_s,
        "save_s": facts.save_s,
        "checkpoint_step": facts.checkpoint,
        "damaged": dict(_damaged(facts)),
        "started": facts.started,
        "heartbeat": facts.heartbeat,
        "heartbeat_age_s": _rounded(run.heartbeat_age_s, 1),
        "host": facts.host or None,
        "pid": facts.pid or None,
        "log": str(facts.layout.log.absolute()),
    }


def _damaged(facts: Facts) -> Iterator[tuple[str, str]]:
    """Records that are not what was written, and what is wrong with each."""
    if facts.status_damage:
        yield facts.layout.status.name, facts.status_damage
    yield from facts.damaged
    yield from ((obstacle.record, obstacle.wrong) for obstacle in facts.obstacles)
    if facts.lost:
        yield facts.layout.submission.name, LOST


def _job(facts: Facts, job: QueuedJob | None) -> dict[str, Any] | None:
    """As Slurm tells of it; of one it does not know, or was not asked about, the id alone."""
    if job is None and not facts.jobs:
        return None
    return {
        "id": job.handle if job else facts.jobs[-1].id,
        "state": job.state if job else None,
        "reason": job.reason if job else None,
        "start": job.start if job else None,
        "nodes": job.nodes if job else None,
        "restarts": job.restarts if job else None,
        "exit_code": job.exit_code if job else None,
    }


def _post_mortem(run: SeenRun) -> dict[str, Any] | None:
    cause = run.state.cause
    if cause is None:
        return None
    culprit = cause.culprit
    who = culprit and {
        "rank": culprit.rank,
        "host": culprit.host,
        "step": culprit.step,
        "kind": culprit.kind,
        "error": culprit.error,
        "traceback": culprit.traceback,
    }
    lost = list(cause.lost)
    return {"cause": cause.kind, "words": cause.words, "first_error": who, "lost_ranks": lost}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
