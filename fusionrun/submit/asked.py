"""What is asked of Slurm for a run: settings that it will not misread, and the batch script.

Light enough for `fusionrun plan`: it knows no journal, no snapshot and no queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fusionrun.errors import Problem, RecipeError
from fusionrun.plan.plan import Plan
from fusionrun.recipe.read import Source
from fusionrun.slurm.checks import problems, time_s
from fusionrun.store.layout import RunLayout

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm

__all__ = ["limit_s", "refuse_beyond", "refuse_misread", "script_of"]


def refuse_misread(settings: Mapping[str, Any], source: Source) -> None:
    """Refuse what Slurm would accept in silence and not mean, told where the recipe has the key.

    Raises:
        RecipeError: all of it at once.
    """
    if found := [_placed(problem, source) for problem in problems(settings)]:
        raise RecipeError(found)


def refuse_beyond(settings: Mapping[str, Any], source: Source, slurm: Slurm) -> None:
    """Refuse what Slurm would queue and its partition can never start, told as in the recipe.

    Raises:
        RecipeError: all of it at once.
        SchedulerError: the scheduler is out of reach.
    """
    from fusionrun.slurm.limits import beyond

    if found := [_placed(problem, source) for problem in beyond(settings, slurm.partitions())]:
        raise RecipeError(found)


def _placed(problem: Problem, source: Source) -> Problem:
    path = tuple(problem.key.split("."))
    if problem.place is None and source.document.has(path):
        return problem._replace(place=source.document.place(path))
    return problem


def limit_s(settings: Mapping[str, Any]) -> int | None:
    """The time limit of a resolved `slurm` section in seconds; None without one."""
    return time_s(settings["time"]) if settings["time"] else None


def script_of(
    layout: RunLayout,
    plan: Plan,
    python: str,
    pythonpath: tuple[str, ...],
    settings: Mapping[str, Any],
    template: str | None = None,
) -> str:
    """The batch script of a run: the same text for the same arguments."""
    from fusionrun.slurm.script import Job, render

    return render(
        Job(
            run_id=layout.id,
            name=plan.name,
            run_dir=str(layout.root.absolute()),
            python=python,
            pythonpath=pythonpath,
            settings=settings,
            template=template,
        )
    )
