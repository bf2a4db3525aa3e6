"""Edge: a plan becomes a run directory. Nothing here trains, and nothing imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fusionrun.errors import UserError
from fusionrun.plan.plan import Plan
from fusionrun.store.atomic import write_json, write_text
from fusionrun.store.layout import RunLayout, run_id
from fusionrun.store.runs import create_run, next_free
from fusionrun.store.status import read_status


@dataclass(frozen=True)
class Start:
    """A run that is ready to be trained, or one that has finished before.

    Attributes:
        layout: its directory.
        finished: the same plan and seed ran to the end already; nothing was written.
        note: what to tell the user about the directory.
    """

    layout: RunLayout
    finished: bool
    note: str


def prepare(plan: Plan, recipe_text: str, runs_dir: Path, *, new: bool) -> Start:
    """Create the run directory of a plan, with the recipe's text and the plan in it.

    A directory that exists is never touched: a finished run is handed back as it is, an
    unfinished one is left alone and a new directory takes the next free name.

    Raises:
        UserError: the same run is going on right now, or the directory cannot be made.
    """
    identity = run_id(plan.name, plan.hash, plan.seed)
    existing = RunLayout(runs_dir / identity)
    note = f"run directory  {existing.root}"
    if existing.root.exists():
        status = read_status(existing)
        if status.state == "completed" and not new:
            return Start(existing, True, note)
        if status.is_alive() and not new:
            raise UserError(
                f"{existing.root}: this run is going on right now (process {status.pid} on "
                f"{status.host}); --new trains the same recipe beside it"
            )
        identity = next_free(runs_dir, identity)
        note = f"{existing.root} exists ({status.state}) and stays as it is\nrun directory  {runs_dir / identity}"
    layout = _create(runs_dir, identity)
    write_text(layout.recipe, recipe_text)
    write_json(layout.plan, plan.to_json())
    return Start(layout, False, note)


def _create(runs_dir: Path, identity: str) -> RunLayout:
    try:
        return create_run(runs_dir, identity)
    except OSError as error:
        raise UserError(
            f"{runs_dir / identity}: the run directory cannot be made: {error.strerror}; "
            "--runs DIR or FUSIONRUN_RUNS names another place"
        ) from error
