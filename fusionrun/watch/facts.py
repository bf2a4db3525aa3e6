"""What the files of a run say, gathered once. Judges nothing: that is `state`."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fusionrun.store.checkpoints import list_checkpoints
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import typed
from fusionrun.store.status import Status, status_and_damage
from fusionrun.submit.journal import is_lost
from fusionrun.submit.process import is_living
from fusionrun.submit.trainer import Trainer, last_trainer
from fusionrun.submit.waiting import listed
from fusionrun.watch.awaited import awaited, needed
from fusionrun.watch.files import (
    instant,
    json_lines,
    json_object,
    section,
    tail,
    text,
    whole,
)
from fusionrun.watch.obstacles import Obstacle, obstacles
from fusionrun.watch.rank_errors import RankError, rank_errors

__all__ = ["WAITING", "Facts", "HandedJob", "facts_of"]

EVENT_BYTES: Final = 1 << 18
"""Of the events, the last: at least two thousand."""

WAITING: Final = frozenset({"", "prepared", "queued"})
"""States of a run whose next attempt has not begun to train."""

LOG_LINES: Final = 200
"""Of the log, looked through for the words of Slurm's daemons."""


@dataclass(frozen=True)
class HandedJob:
    """One job the run was handed over as.

    Attributes:
        id: Slurm's, or the process id of a local supervisor.
        host: the supervisor's machine; empty for Slurm.
        born: when the supervisor began, in the kernel's ticks; 0 when not known.
        sweep: whose supervisor that is; empty for the run's own.
    """

    id: str
    host: str = ""
    born: int = 0
    sweep: str = ""


@dataclass(frozen=True)
class Facts:
    """A run by its own files, and by what this machine sees of its processes.

    Attributes:
        layout: the run's paths.
        state: the trainer's word in `status.json`; empty where there is none.
        epoch, epochs: done, and of the whole plan (0: not known).
        step, steps: likewise; done is also what the newest whole checkpoint holds.
        started: seconds since 1970 when the first attempt began; None before.
        heartbeat: likewise of the trainer's last sign of life.
        attempts: begun.
        step_s, save_s: seconds of a step, and of the last checkpoint; None when not known.
        host: where the trainer is or was.
        pid: of the trainer.
        status_job: the job that wrote the status; empty for none.
        executor: `slurm`, `local`, or empty for a run in the foreground.
        handed: the journal's state: preparing, submitted, rejected, cancelled; or empty.
        handed_time: of the journal's last change; None when not known.
        handed_words: the executor's own words about it.
        jobs: all it was handed over as, the first first.
        slurm: the settings it was asked for with.
        waits_for: ids of the runs it is to come after, in a line; empty for none.
        needs: those of them without which it cannot begin, and that have not completed.
        stop_reason: why it is asked to stop; empty when nobody asks.
        outcome: how the last attempt ended, by the trainer's word; empty while one goes on.
        outcome_reason: why.
        events: the last ones, the first first.
        trainer_lives: whether its process is there; None where this machine cannot know.
        supervisor_lives: likewise of the local supervisor.
        status_damage: what is wrong with `status.json`, whose numbers then come from the run's
            other records; empty where nothing is.
        errors: of ranks, the earliest first.
        log: last lines of the log.
        checkpoint: steps that the newest whole checkpoint holds; None without one.
        damaged: newer ones, and what is wrong with each: they will be passed over. The name of
            the folder of checkpoints itself where it is none.
        made: when the run's directory got its plan; None when not known.
        obstacles: what would have `resume` refuse it; of a run that somebody trains, none.
        lost: its journal is gone, and it was handed over once.
    """

    layout: RunLayout
    state: str = ""
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    started: float | None = None
    heartbeat: float | None = None
    attempts: int = 0
    step_s: float | None = None
    save_s: float | None = None
    host: str = ""
    pid: int = 0
    status_job: str = ""
    executor: str = ""
    handed: str = ""
    handed_time: float | None = None
    handed_words: str = ""
    jobs: tuple[HandedJob, ...] = ()
    slurm: Mapping[str, Any] = field(default_factory=dict)
    waits_for: str = ""
    needs: tuple[str, ...] = ()
    stop_reason: str = ""
    outcome: str = ""
    outcome_reason: str = ""
    events: Sequence[Mapping[str, Any]] = ()
    trainer_lives: bool | None = None
    supervisor_lives: bool | None = None
    status_damage: str = ""
    errors: tuple[RankError, ...] = ()
    log: tuple[str, ...] = ()
    checkpoint: int | None = None
    damaged: tuple[tuple[str, str], ...] = ()
    made: float | None = None
    obstacles: tuple[Obstacle, ...] = ()
    lost: bool = False

    @property
    def id(self) -> str:
        """The run's id."""
        return self.layout.id

    def typed(self, command: str) -> str:
        """A command about it, as it is typed here."""
        return typed(self.layout, command)

    @property
    def job_ids(self) -> frozenset[str]:
        """Its own jobs of Slurm, beyond doubt."""
        ids = [job.id for job in self.jobs if not job.host]
        ids += [text(event, "job_id") for event in self.events]
        return frozenset(id_ for id_ in (*ids, self.status_job) if id_)

    @property
    def was_queued(self) -> bool:
        """Whether Slurm may have a job of it, also where the journal is gone that would say so."""
        told = self.lost and any(text(e, "executor") == "slurm" for e in self.events)
        return self.executor == "slurm" or told

    @property
    def last_job_number(self) -> int:
        """Of the job of Slurm that it was last handed over as; 0 for none."""
        last = next((job.id for job in reversed(self.jobs) if not job.host), "")
        number = last.partition("_")[0]
        return int(number) if number.isascii() and number.isdecimal() else 0

    @property
    def is_settled(self) -> bool:
        """Whether the files alone say how it stands, whatever a scheduler would add."""
        if self.executor != "slurm" or self.state == "completed" or self.handed == "rejected":
            return True
        # A job that made room for another is queued again by Slurm, after our last word.
        return bool(self.last_event("not_requeued", "cancelled")) and (
            self.outcome_reason != "signal"
        )

    def last_event(self, *names: str) -> Mapping[str, Any]:
        """The last of the events so named since the run was last handed over or started."""
        bounds = ("submitted", "started")
        event: Mapping[str, Any]
        for event in reversed(self.events):
            if event.get("event") in names:
                return event
            if event.get("event") in bounds:
                break
        return {}


def facts_of(layout: RunLayout, *, thorough: bool = False) -> Facts:
    """What the files of a run say now.

    Args:
        layout: the run.
        thorough: read the checkpoints and the code of a run that nobody seems to train, which
            may be large.
    """
    status, damage = status_and_damage(layout)
    journal = json_object(layout.submission)
    outcome, stop = json_object(layout.outcome), json_object(layout.stop_request)
    jobs = _jobs(journal)
    epochs, steps = _totals(layout, status)
    if status.state in WAITING:
        outcome = {}  # of an attempt before
    trainer = _trainer(layout, status, journal)
    lives = _lives(trainer.host, trainer.pid, trainer.born) if trainer else None
    open_ = status.state != "completed"
    checkpoint, damaged = None, tuple[tuple[str, str], ...]()
    if open_:
        checkpoint, damaged = _checkpoints(layout, thorough=thorough and not lives)
    snapshot = text(section(journal, "snapshot"), "id")
    in_the_way = obstacles(layout, snapshot, thorough=thorough) if open_ and not lives else ()
    step = max(status.step, checkpoint or 0)
    return Facts(
        layout=layout,
        state=status.state,
        epoch=max(status.epoch, step * epochs // steps if steps else 0),
        epochs=epochs,
        step=step,
        steps=steps,
        started=status.started or None,
        heartbeat=status.heartbeat or None,
        attempts=status.attempts,
        step_s=status.step_s,
        save_s=status.save_s,
        host=trainer.host if trainer else status.host,
        pid=trainer.pid if trainer else status.pid,
        status_job=status.job_id or "",
        status_damage=damage,
        executor=text(journal, "executor"),
        handed=text(journal, "state"),
        handed_time=instant(journal, "time"),
        handed_words=text(journal, "words"),
        jobs=jobs,
        slurm=section(journal, "slurm"),
        waits_for=listed(awaited(section(journal, "after"))),
        needs=() if status.attempts else tuple(needed(layout, section(journal, "after"))),
        stop_reason=_stop_reason(layout, stop),
        outcome=text(outcome, "outcome"),
        outcome_reason=text(outcome, "reason"),
        events=tuple(json_lines(layout.events, EVENT_BYTES)),
        trainer_lives=lives,
        supervisor_lives=_supervised(text(journal, "executor"), jobs),
        errors=rank_errors(layout) if open_ else (),
        log=tuple(tail(layout.log, LOG_LINES)) if open_ else (),
        checkpoint=checkpoint,
        damaged=damaged,
        made=_made(layout),
        obstacles=tuple(in_the_way),
        lost=open_ and is_lost(layout),
    )


def _totals(layout: RunLayout, status: Status) -> tuple[int, int]:
    """Epochs and steps of the whole plan; from the plan itself before the trainer has said."""
    if status.steps:
        return status.epochs, status.steps
    plan = json_object(layout.plan)
    steps = whole(section(plan, "steps"), "fusion_steps")
    batches = whole(section(plan, "steps"), "batches_per_epoch")
    return status.epochs or (steps // batches if batches else 0), steps


def _jobs(journal: Mapping[str, Any]) -> tuple[HandedJob, ...]:
    listed = journal.get("jobs")
    found = [entry for entry in (listed if isinstance(listed, list) else []) if _has_id(entry)]
    jobs = [
        HandedJob(text(e, "id"), text(e, "host"), whole(e, "born"), text(e, "sweep")) for e in found
    ]
    last = text(journal, "job_id")
    if last and last not in {job.id for job in jobs}:
        jobs.append(HandedJob(last))
    return tuple(jobs)


def _has_id(entry: object) -> bool:
    return isinstance(entry, Mapping) and bool(text(entry, "id"))


def _stop_reason(layout: RunLayout, stop: Mapping[str, Any]) -> str:
    if reason := text(stop, "reason"):
        return reason
    return "cancel" if layout.stop_request.exists() else ""  # `touch` asks as well


def _lives(host: str, pid: int, born: int = 0) -> bool | None:
    if not pid or host != socket.gethostname():
        return None
    return is_living(pid, born)


def _trainer(layout: RunLayout, status: Status, journal: Mapping[str, Any]) -> Trainer | None:
    """Who says that it trains; before the first word, who announced in the foreground that it will.

    None where nobody says so.
    """
    if status.state == "running":
        return Trainer(status.pid, status.host, 0)
    return last_trainer(layout) if status.state == "prepared" and not journal else None


def _supervised(executor: str, jobs: Sequence[HandedJob]) -> bool | None:
    if executor != "local" or not jobs or not jobs[-1].id.isdecimal():
        return None
    return _lives(jobs[-1].host, int(jobs[-1].id), jobs[-1].born)


def _checkpoints(
    layout: RunLayout, *, thorough: bool
) -> tuple[int | None, tuple[tuple[str, str], ...]]:
    """The step of the newest whole checkpoint, and those before it that are damaged."""
    folder, damaged = layout.checkpoints, list[tuple[str, str]]()
    try:
        if os.path.lexists(folder) and not folder.is_dir():
            return None, ((folder.name, "not a directory"),)
        for checkpoint in list_checkpoints(folder):
            why = checkpoint.problem(thorough=thorough)
            if not why:
                return checkpoint.step, tuple(damaged)
            if checkpoint.path.exists():  # (else its time was up while we looked)
                damaged.append((checkpoint.name, why))
    except OSError as error:
        damaged.append((folder.name, error.strerror or str(error)))
    return None, tuple(damaged)


def _made(layout: RunLayout) -> float | None:
    try:
        return layout.plan.stat().st_mtime
    except OSError:
        return None
