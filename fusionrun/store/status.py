"""`status.json`: how a run stands, replaced atomically; readable without torch."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import NoneType
from typing import Any, Final, Literal, get_args

from fusionrun.regular import read_regular
from fusionrun.store.atomic import write_json
from fusionrun.store.layout import RunLayout

State = Literal["prepared", "queued", "running", "stopped", "completed", "failed", "interrupted"]


@dataclass(frozen=True)
class Status:
    """How a run stands.

    Attributes:
        state: prepared; queued (handed to a scheduler); running; stopped (it was asked to, and can
            go on); completed; failed; or interrupted (at the keyboard).
        epoch: epochs done.
        step: steps done.
        started: seconds since 1970 when the first attempt began; 0 before.
        heartbeat: likewise when the process that trains wrote this last.
        attempts: how often the run was started.
        pid: the process that trains; of several, the one of rank 0.
        host: the machine it trains on.
        epochs: how many the plan has; 0 before the first attempt.
        steps: likewise; early stopping may end the run before.
        step_s: seconds a step, the median of late; None before there is one.
        save_s: seconds that the last checkpoint took; None before there is one.
        job_id: the scheduler's name for the attempt.
    """

    state: State
    epoch: int = 0
    step: int = 0
    started: float = 0.0
    heartbeat: float = 0.0
    attempts: int = 0
    pid: int = 0
    host: str = ""
    epochs: int = 0
    steps: int = 0
    step_s: float | None = None
    save_s: float | None = None
    job_id: str | None = None

    def is_alive(self) -> bool:
        """Whether the training process still exists, as far as this machine can see."""
        if self.state != "running" or self.host != socket.gethostname() or not self.pid:
            return False  # (0 would be our own process group)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


_FIELDS = {field.name for field in fields(Status)}
_NUMBER, _PERHAPS_NUMBER = (int, float), (int, float, NoneType)
_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("state", "host"), str),
    **dict.fromkeys(("epoch", "step", "attempts", "pid", "epochs", "steps"), int),
    **dict.fromkeys(("started", "heartbeat"), _NUMBER),
    **dict.fromkeys(("step_s", "save_s"), _PERHAPS_NUMBER),
    "job_id": (str, NoneType),
}
# What reading a file raises that is damaged, or of another shape.
_UNREADABLE = (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError)

MOST_BYTES: Final = 1 << 20
"""A status has a few hundred."""

MOST_PID: Final = 2**31 - 1
"""A process id is a C int: more than that no system call takes."""


def write_status(
    layout: RunLayout, state: State, *, epoch: int, step: int, attempts: int, **more: Any
) -> None:
    """Record how the run stands now, by this process, which is the one that trains.

    Args:
        layout: the run.
        state: as in `Status`; so are all the others.
        epoch: epochs done.
        step: steps done.
        attempts: this attempt counted.
        more: `epochs`, `steps`, `step_s`, `save_s`, `job_id`; what is left out is not known.
    """
    now, before = time.time(), read_status(layout).started
    host = socket.gethostname()
    status = Status(state, epoch, step, before or now, now, attempts, os.getpid(), host, **more)
    write_json(layout.status, asdict(status))


def mark_status(layout: RunLayout, state: State, *, job_id: str | None = None) -> None:
    """Change the state alone: for those who do not train, while nobody does.

    Numbers, heartbeat and process stay those of the last attempt.
    """
    content = asdict(replace(read_status(layout), state=state, job_id=job_id))
    if not content["started"]:
        del content["started"]  # a run that never began is as old as its plan, not as 1970
    write_json(layout.status, content)


def read_status(layout: RunLayout) -> Status:
    """How a run stands; `prepared` where no process has begun it.

    Where the file is damaged, the run's other records say it, so that a run that has completed is
    never begun again.
    """
    return status_and_damage(layout)[0]


def status_and_damage(layout: RunLayout) -> tuple[Status, str]:
    """As `read_status`, and what is wrong with the file, in words: empty where nothing is."""
    try:
        return _status(json.loads(read_regular(layout.status, MOST_BYTES))), ""
    except FileNotFoundError:
        return Status("prepared"), ""
    except _UNREADABLE as error:
        return _by_records(layout), _in_words(error)


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "not JSON" if isinstance(error, ValueError) else "no status of a run"


def _status(content: Mapping[str, Any]) -> Status:
    """Raises TypeError for a value that no status has: nothing later should meet it."""
    known = {key: value for key, value in content.items() if key in _FIELDS}
    for key, value in known.items():
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            raise TypeError(f"{key}: {value!r}")
        if isinstance(value, int | float) and not 0 <= value < 2**63:
            raise TypeError(f"{key}: {value!r}")
    if known["state"] not in get_args(State) or known.get("pid", 0) > MOST_PID:
        raise TypeError("no state, or no process")
    return Status(**known)


def how_it_stood(layout: RunLayout) -> State:
    """How a run's last attempt ended, though it may be queued by now: stopped or failed."""
    from fusionrun.store.witness import outcome_recorded

    state = read_status(layout).state
    if state == "queued":
        state = outcome_recorded(layout).get("outcome", state)
    return state if state in ("failed", "interrupted") else "stopped"


def _by_records(layout: RunLayout) -> Status:
    from fusionrun.store.witness import content_by_records  # (seldom needed)

    content = content_by_records(layout)
    try:
        return _status(content)
    except _UNREADABLE:
        return Status(content["state"])  # numbers that no run has: its events are damaged, too
