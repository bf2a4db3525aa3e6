"""Edge: a plan becomes a run directory. Nothing here trains, and nothing imports torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
        finished: the same plan, seed and data ran to the end already; nothing was written.
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
    earlier = list(_earlier(runs_dir, identity))
    if not new:
        for layout in reversed(earlier):
            if read_status(layout).state == "completed" and _same_data(layout, plan):
                return Start(layout, True, f"run directory  {layout.root}")
        _refuse_living(earlier)
    layout = create_run(runs_dir, next_free(runs_dir, identity))
    write_text(layout.recipe, recipe_text)
    write_json(layout.plan, plan.to_json())
    lines = [f"{before.root} stays as it is ({_state(before)})" for before in earlier[-1:]]
    return Start(layout, False, "\n".join([*lines, f"run directory  {layout.root}"]))


def _earlier(runs_dir: Path, identity: str) -> Iterator[RunLayout]:
    """The runs of one plan and seed, oldest first: `identity`, `identity-2`, …"""
    end = next_free(runs_dir, identity)
    name, number = identity, 1
    while name != end:
        yield RunLayout(runs_dir / name)
        number += 1
        name = f"{identity}-{number}"


def _same_data(layout: RunLayout, plan: Plan) -> bool:
    """Whether a run read the files that are there now: the plan only knows their headers."""
    from fusionrun.data.load import content_hash

    try:
        read = json.loads(layout.environment.read_text(encoding="utf-8"))["data_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return True  # nothing says otherwise
    return bool(read == content_hash(plan.data.files))


def _refuse_living(earlier: Sequence[RunLayout]) -> None:
    for layout in earlier:
        status = read_status(layout)
        if status.is_alive():
            raise UserError(
                f"{layout.root}: this run is going on right now (process {status.pid} on "
                f"{status.host}); --new trains the same recipe beside it"
            )


def _state(layout: RunLayout) -> str:
    status = read_status(layout)
    if status.state == "prepared":
        return "never begun"
    if status.state == "running" and not status.is_alive():
        return f"its process is gone, after epoch {status.epoch}"
    return status.state
