"""How far a run is, and how long it will still take. Pure functions of facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fusionrun.watch.facts import Facts
from fusionrun.watch.files import instant, whole

__all__ = ["Progress", "progress_of", "slices_left"]

SOON_S: Final = 10.0
"""An attempt younger than this has mostly been starting; its steps say more than its clock."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        percent: of the plan's steps, 0 to 100; 100 for a run that has completed earlier than
            that; None where the plan cannot be read.
        eta_s: seconds of training left; None where no pace is known. Stopping early may end it
            sooner, and waiting in queues does not count.
    """

    percent: float | None
    eta_s: float | None


def progress_of(facts: Facts) -> Progress:
    """How far a run is by its own records."""
    if facts.state == "completed":
        return Progress(100.0, 0.0)
    if not facts.steps:
        return Progress(None, None)
    left = max(0, facts.steps - facts.step)
    pace = _pace_s(facts)
    percent = min(100.0, 100.0 * facts.step / facts.steps)
    return Progress(percent, None if pace is None else left * pace)


def slices_left(eta_s: float | None, limit_s: float | None, grace_s: float) -> float | None:
    """How many jobs of a time limit the rest takes; None where either is not known."""
    if eta_s is None or limit_s is None or limit_s <= grace_s:
        return None
    return eta_s / (limit_s - grace_s)


def _pace_s(facts: Facts) -> float | None:
    """Seconds a step of the last attempt, with its evaluations and checkpoints.

    The mean of the attempt where it is old enough, else what the trainer says of steps alone.
    """
    started = [event for event in facts.events if event.get("event") == "started"]
    began = instant(started[-1], "time") if started else None
    if began is None or facts.heartbeat is None:
        return facts.step_s
    taken_s = facts.heartbeat - began
    steps = facts.step - whole(started[-1], "resumed_from")
    if taken_s < SOON_S or steps <= 0:
        return facts.step_s
    return taken_s / steps
