"""How long a run will take, and in how many jobs: from what a run of the same plan has measured.

Nothing is guessed: where no step was ever timed there is no forecast.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from fusionrun.durations import slices_in_words
from fusionrun.plan.plan import Plan
from fusionrun.store.runs import list_runs
from fusionrun.store.status import Status, read_status

__all__ = ["Forecast", "Measured", "forecast", "in_words", "measured"]

_STEPS_TO_A_STOP: Final = 2
"""A stop is agreed at one step boundary and may be seen only at the next."""


class Measured(NamedTuple):
    """What an earlier attempt, or another run of the same plan, has measured.

    Attributes:
        run: the run's id.
        step_s: seconds a step.
        save_s: seconds of its last checkpoint; None where it took none.
    """

    run: str
    step_s: float
    save_s: float | None


class Forecast(NamedTuple):
    """What is left of a run.

    Attributes:
        seconds: of training.
        slices: how many jobs of the time limit that takes; None without a limit.
        words: both, with where it was measured, ready to print.
        warnings: what will disappoint.
    """

    seconds: float
    slices: float | None
    words: str
    warnings: tuple[str, ...]


def measured(plan: Plan, runs_dir: Path) -> Measured | None:
    """What the newest run of the same plan, whatever its seed and settings, has measured."""
    same_plan = re.compile(rf".*-{plan.hash[:8]}-s\d+(-\d+)?")
    for layout in list_runs(runs_dir):
        if same_plan.fullmatch(layout.id) and (found := _of(layout.id, read_status(layout))):
            return found
    return None


def _of(run: str, status: Status) -> Measured | None:
    return Measured(run, status.step_s, status.save_s) if status.step_s else None


def forecast(
    steps_left: int, seen: Measured, settings: Mapping[str, Any], time_s: int | None
) -> Forecast:
    """What is left of a run in seconds and jobs.

    Args:
        steps_left: of the plan.
        seen: the measured pace.
        settings: the `slurm` section: `grace` in seconds, `max_requeues`.
        time_s: its time limit; None without one.
    """
    seconds = steps_left * seen.step_s
    pace = f"{in_words(seconds)} at {seen.step_s:.2g} s a step, measured in {seen.run}"
    grace = int(settings.get("grace", 0))
    if not time_s or time_s <= grace:
        return Forecast(seconds, None, pace, ())
    slices = seconds / (time_s - grace)
    words = f"{slices_in_words(slices, in_words(time_s))}: {pace}"
    return Forecast(seconds, slices, words, tuple(_warnings(slices, grace, seen, settings)))


def _warnings(
    slices: float, grace: int, seen: Measured, settings: Mapping[str, Any]
) -> Iterator[str]:
    most = 1 + int(settings.get("max_requeues", 0))
    if slices > most:
        allowed = f"{most} slice{'' if most == 1 else 's'}"
        yield (
            f"slurm.max_requeues allows {allowed}; the run will stop before its end, and go on "
            "when it is resumed"
        )
    to_save = (seen.save_s or 0.0) + _STEPS_TO_A_STOP * seen.step_s
    if grace < to_save:
        yield (
            f"slurm.grace is {grace} s, and stopping took {to_save:.1f} s ({_STEPS_TO_A_STOP} steps"
            f" and a save, measured in {seen.run}): the limit may come before the checkpoint"
        )


def in_words(seconds: float) -> str:
    """A duration in the unit that reads best: `45 s`, `90 min`, `4 h`, `3.5 d`."""
    for unit, size, from_ in (("d", 86400, 2 * 86400), ("h", 3600, 7200), ("min", 60, 120)):
        if seconds >= from_:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
