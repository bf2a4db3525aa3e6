"""Submitting: from a plan to a run directory, a snapshot of the code, a script and a job.

In steps, so that a person sees each before the next: `draft` finds out everything and writes
nothing, `place` writes the run; `handing` gives it to Slurm or to a supervisor of its own. The
journal has each step before it is taken.
"""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionrun.errors import SchedulerError
from fusionrun.launch import foresee, prepare
from fusionrun.plan.plan import Plan
from fusionrun.recipe.read import Source
from fusionrun.schema.base import plain
from fusionrun.schema.slurm import Slurm as SlurmSection
from fusionrun.store.atomic import make_folder, write_text
from fusionrun.store.layout import RunLayout
from fusionrun.submit.asked import limit_s, refuse_beyond, refuse_misread, script_of
from fusionrun.submit.forecast import Forecast, forecast, measured
from fusionrun.submit.handing import rejected_on_error
from fusionrun.submit.journal import Executor, Submission, now, write_submission
from fusionrun.submit.snapshot import Snapshot, scan, store
from fusionrun.submit.waiting import NO_WAIT, After, Wait, wait_for

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm, Verdict

__all__ = [
    "Chosen",
    "Draft",
    "Order",
    "choose_executor",
    "draft",
    "first_submission",
    "place",
    "script",
    "unasked_where",
    "verdict",
]


@dataclass(frozen=True)
class Order:
    """What somebody wants submitted.

    Attributes:
        source: the recipe.
        plan: what comes of it.
        folder: the recipe's; the project is found from there.
        runs_dir: where runs live.
        executor: slurm or local; None: whichever fits (`choose_executor`).
        after: a run to wait for.
        template: of the batch script, a user's own; None: the one that ships.
        new: a new run, whatever became of those before.
    """

    source: Source
    plan: Plan
    folder: Path
    runs_dir: Path
    executor: Executor | None = None
    after: After | None = None
    template: str | None = None
    new: bool = False


@dataclass(frozen=True)
class Chosen:
    """Who carries a run out, and why they."""

    executor: Executor
    why: str


@dataclass(frozen=True)
class Draft:
    """All there is to know before anything is written.

    Attributes:
        order: what is wanted.
        layout: where the run will be.
        finished: it has completed before; there is nothing to submit.
        note: about the directory.
        chosen: who carries it out.
        settings: of the `slurm` section, resolved.
        snapshot: the code, as it is now.
        world_size: how many processes train together.
        wait: what it waits for.
        forecast: how long it will take; None where nobody has measured.
    """

    order: Order
    layout: RunLayout
    finished: bool
    note: str
    chosen: Chosen
    settings: Mapping[str, Any]
    snapshot: Snapshot
    world_size: int
    wait: Wait
    forecast: Forecast | None


def choose_executor(wanted: Executor | None, plan: Plan, slurm: Slurm) -> Chosen:
    """Who carries a run out: whoever is asked for; Slurm where the recipe or the machine has it."""
    if wanted:
        return Chosen(wanted, "as asked for")
    if plan.settings.slurm is not None:
        return Chosen("slurm", "the recipe or the site has a slurm section")
    if slurm.available():
        return Chosen("slurm", "this machine has sbatch; the cluster's defaults apply")
    return Chosen("local", "the recipe has no slurm section, and this machine no sbatch")


@contextmanager
def unasked_where(allowed: bool) -> Iterator[None]:
    """Where it is allowed, a scheduler that is out of reach goes unasked."""
    try:
        yield
    except SchedulerError as error:
        from fusionrun.slurm.client import SchedulerUnreachableError

        if not allowed or not isinstance(error, SchedulerUnreachableError):
            raise


def draft(order: Order, slurm: Slurm, *, may_be_unasked: bool = False) -> Draft:
    """Find out everything and refuse what cannot work. Nothing is written.

    Args:
        order: what is wanted.
        slurm: the cluster.
        may_be_unasked: for a look alone, a scheduler that is out of reach is no obstacle.

    Raises:
        RecipeError: settings that Slurm would accept in silence, and misread or never start.
        UserError: the run is going on already, what it should wait for has failed, or the code
            cannot be copied.
        SchedulerError: the scheduler is out of reach.
    """
    plan = order.plan
    start = foresee(plan, order.runs_dir, new=order.new)
    chosen = choose_executor(order.executor, plan, slurm)
    settings = plain(plan.settings.slurm or SlurmSection())
    world_size, limit = 1, None
    if chosen.executor == "slurm" and (may_be_unasked or not start.finished):
        from fusionrun.slurm.request import world_size as asked_for

        refuse_misread(settings, order.source)
        world_size, limit = asked_for(settings), limit_s(settings)
        with unasked_where(may_be_unasked):
            slurm.ping()
            refuse_beyond(settings, order.source, slurm)
    after = order.after
    wait = wait_for(after, chosen.executor, order.runs_dir, slurm) if after else NO_WAIT
    seen = measured(plan, order.runs_dir)
    drafted = Draft(
        order=order,
        layout=RunLayout(start.layout.root.absolute()),
        finished=start.finished,
        note=start.note,
        chosen=chosen,
        settings=settings,
        snapshot=scan(order.folder, order.runs_dir),
        world_size=world_size,
        wait=wait,
        forecast=forecast(plan.steps.fusion_steps, seen, settings, limit) if seen else None,
    )
    script(drafted)  # a name that no script can hold is refused now, not when half is written
    return drafted


def script(drafted: Draft) -> str:
    """The batch script that the draft's run will have; empty without Slurm."""
    if drafted.chosen.executor != "slurm":
        return ""
    return script_of(
        drafted.layout,
        drafted.order.plan,
        sys.executable,
        drafted.snapshot.python_path(),
        drafted.settings,
        drafted.order.template,
    )


def verdict(drafted: Draft, slurm: Slurm) -> Verdict | None:
    """What the scheduler says to a draft; None without Slurm. Queues nothing, leaves nothing.

    Raises:
        SchedulerError: it is out of reach.
    """
    if drafted.chosen.executor != "slurm":
        return None
    with tempfile.TemporaryDirectory(prefix="fusionrun-") as folder:
        path = Path(folder, drafted.layout.job_script.name)
        path.write_text(script(drafted), encoding="utf-8")
        return slurm.verdict(path, *drafted.wait.arguments)


def place(drafted: Draft) -> Draft:
    """Write the run's directory, its snapshot and its script; returns the draft as it now stands.

    Raises:
        UserError: somebody was faster, or something cannot be written; the journal says so.
    """
    order = drafted.order
    start = prepare(
        order.plan,
        order.source.text,
        order.runs_dir,
        new=order.new,
        first=lambda layout: write_submission(layout, _submission(drafted)),
    )
    placed = replace(drafted, layout=RunLayout(start.layout.root.absolute()))
    with rejected_on_error(placed.layout):
        store(drafted.snapshot)
        make_folder(placed.layout.logs)
        if text := script(placed):
            write_text(placed.layout.job_script, text)
    return placed


def _submission(drafted: Draft) -> Submission:
    settings = drafted.settings if drafted.chosen.executor == "slurm" else {}
    return first_submission(drafted.chosen.executor, drafted.snapshot, settings, drafted.wait.after)


def first_submission(
    executor: Executor,
    snapshot: Snapshot,
    settings: Mapping[str, Any],
    after: Mapping[str, str] | None = None,
) -> Submission:
    """The journal of a run that is being handed over for the first time, from this machine."""
    return Submission(
        executor=executor,
        state="preparing",
        time=now(),
        snapshot={
            "id": snapshot.id,
            "commit": snapshot.commit,
            "left_out": [list(left) for left in snapshot.left_out],
        },
        slurm=settings,
        python=sys.executable,
        pythonpath=snapshot.python_path(),
        after=after,
        host=socket.gethostname(),
    )
