"""Edge: a plan becomes a run directory. Nothing here trains, and nothing imports torch."""

from __future__ import annotations

import json
import math
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fusionrun.errors import UserError
from fusionrun.plan.plan import Plan
from fusionrun.plan.stored import sealed
from fusionrun.regular import read_regular
from fusionrun.store.atomic import write_json, write_text
from fusionrun.store.checkpoints import list_checkpoints
from fusionrun.store.layout import RunLayout, run_id
from fusionrun.store.runs import create_run, next_free, typed
from fusionrun.store.status import read_status
from fusionrun.submit.process import is_living
from fusionrun.submit.trainer import announce, last_trainer

MAKING_S: Final = 60.0
"""A directory without a plan that is younger than this is being filled by another process."""


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


def foresee(plan: Plan, runs_dir: Path, *, new: bool) -> Start:
    """Where `prepare` would put a plan's run. Writes nothing.

    Raises:
        UserError: as for `prepare`.
    """
    identity = run_id(plan.name, plan.hash, plan.seed)
    earlier = list(earlier_runs(runs_dir, identity))
    if not new:
        for layout in reversed(earlier):
            if read_status(layout).state == "completed" and same_data(layout, plan):
                return Start(layout, True, f"run directory  {layout.root}")
        _refuse_living(earlier)
    layout = RunLayout(runs_dir / next_free(runs_dir, identity))
    lines = [_stays(before) for before in earlier[-1:]]
    return Start(layout, False, "\n".join([*lines, f"run directory  {layout.root}"]))


def prepare(
    plan: Plan,
    recipe_text: str,
    runs_dir: Path,
    *,
    new: bool,
    first: Callable[[RunLayout], None] = lambda layout: None,
) -> Start:
    """Create the run directory of a plan, with the recipe's text and the plan in it.

    A directory that exists is never touched: a finished run is handed back as it is, an
    unfinished one is left alone and a new directory takes the next free name. (One that never
    came to be a run, as its maker was killed, is removed.)

    Args:
        plan: what to run.
        recipe_text: what the user wrote.
        runs_dir: where runs live.
        new: make a new run, whatever became of those before.
        first: writes into the new directory before it is a run, so that whoever finds the run
            finds this too.

    Raises:
        UserError: the same run is going on right now, waits in a queue or is just being made; or
            the directory cannot be made.
    """
    _clear_unmade(list(earlier_runs(runs_dir, run_id(plan.name, plan.hash, plan.seed))))
    start = foresee(plan, runs_dir, new=new)
    if start.finished:
        return start
    layout = create_run(runs_dir, start.layout.id)
    with _removed_unless_made(layout):
        first(layout)
        write_text(layout.recipe, recipe_text)
        write_json(layout.plan, sealed(plan))  # the last one: now it is a run
    return start


def _stays(before: RunLayout) -> str:
    is_open = before.plan.exists() and read_status(before).state != "completed"
    can_resume = is_open and list_checkpoints(before.checkpoints)
    resume = f"; `{typed(before, 'resume')}` goes on with it" if can_resume else ""
    return f"{before.root} stays as it is ({_state(before)}){resume}"


def _clear_unmade(earlier: Sequence[RunLayout]) -> None:
    """Remove the last directory where whoever was to train it was killed before it was a run.

    One in between stays: the runs of a plan are counted without a gap.
    """
    for layout in earlier[-1:]:
        maker = None if layout.plan.exists() else last_trainer(layout)
        if maker and maker.host == socket.gethostname() and not is_living(maker.pid, maker.born):
            discard_unless_begun(layout)


def begun(plan: Plan, runs_dir: Path) -> RunLayout | None:
    """The run of a plan that has completed, else the one that was begun last; None: there is none.

    What was begun with other data than there are now does not count.
    """
    identity = run_id(plan.name, plan.hash, plan.seed)
    earlier = [
        run
        for run in earlier_runs(runs_dir, identity)
        if run.plan.exists() and same_data(run, plan)
    ]
    completed = [run for run in earlier if read_status(run).state == "completed"]
    return next(reversed(completed or earlier), None)


def go_on(plan: Plan, recipe_text: str, runs_dir: Path) -> Start:
    """The run of a plan that is one of several which belong together, for this process to train.

    The one that was `begun`, in its own directory, or a new one.

    Raises:
        UserError: it is going on right now, or the directory cannot be made.
    """
    layout = begun(plan, runs_dir)
    if layout is None:
        return prepare(plan, recipe_text, runs_dir, new=True, first=announce)
    if read_status(layout).state == "completed":
        return Start(layout, True, f"{layout.root} has completed")
    _refuse_living([layout])
    return Start(layout, False, f"{layout.root} goes on ({_state(layout)})")


@contextmanager
def _removed_unless_made(layout: RunLayout) -> Iterator[None]:
    """What was interrupted, or found no space, leaves no directory that is no run."""
    try:
        yield
    except BaseException:
        if not layout.plan.exists():
            shutil.rmtree(layout.root, ignore_errors=True)
        raise


def earlier_runs(runs_dir: Path, identity: str) -> Iterator[RunLayout]:
    """The runs of one plan and seed, oldest first: `identity`, `identity-2`, …"""
    end = next_free(runs_dir, identity)
    name, number = identity, 1
    while name != end:
        yield RunLayout(runs_dir / name)
        number += 1
        name = f"{identity}-{number}"


def same_data(layout: RunLayout, plan: Plan) -> bool:
    """Whether a run read the files that are there now: the plan only knows their headers."""
    from fusionrun.data.content import content_hash

    try:
        read = json.loads(read_regular(layout.environment))["data_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return True  # nothing says otherwise
    now = content_hash(plan.data.files)
    return not now or bool(read == now)  # (a package's own data has no files to ask)


def _refuse_living(earlier: Sequence[RunLayout]) -> None:
    from fusionrun.submit.standing import standing

    for layout in earlier:
        found = standing(layout)
        if found.is_living:
            raise UserError(
                f"{layout.root}: this run is going on right now: {found.words}\n"
                f"  `{typed(layout, 'status')}` shows how it stands; "
                "--new runs the same recipe beside it"
            )
        if not layout.plan.exists() and _age_s(layout.root) < MAKING_S:
            raise UserError(
                f"{layout.root}: somebody is making this run right now; "
                "--new runs the same recipe beside it"
            )


def _age_s(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:
        return math.inf


def _state(layout: RunLayout) -> str:
    from fusionrun.submit.standing import standing

    return standing(layout).words


def discard_unless_begun(layout: RunLayout) -> bool:
    """Remove the directory of a run that nobody has begun; whether it was one."""
    left = (layout.status, layout.events, layout.checkpoints, layout.all_components)
    if any(path.exists() for path in left):
        return False
    shutil.rmtree(layout.root, ignore_errors=True)
    return True


def discard_if_empty(layout: RunLayout) -> None:
    """Remove the directory of a run that came to nothing: no step was taken, no weights saved.

    For a run that was refused when it began, such as for a number in the data that is none: what
    a user mends in the recipe or the data makes another run.
    """
    status = read_status(layout)
    if status.step == 0 and status.attempts <= 1 and not layout.all_components.exists():
        shutil.rmtree(layout.root, ignore_errors=True)
