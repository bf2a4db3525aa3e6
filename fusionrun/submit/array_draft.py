"""What a sweep comes to before anything is written: every point with its run, and how that stands.

What has completed is left out, what goes on is left alone, what ended early goes on in its own
directory, and what would only end as before is left out: submitting a sweep again submits what is
missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from fusionrun.launch import earlier_runs
from fusionrun.plan.sweep import Point
from fusionrun.recipe.read import Source
from fusionrun.schema.base import plain
from fusionrun.schema.slurm import Slurm as SlurmSection
from fusionrun.store.layout import RunLayout, run_id
from fusionrun.store.runs import next_free
from fusionrun.submit.asked import refuse_beyond, refuse_misread
from fusionrun.submit.journal import Executor, is_lost
from fusionrun.submit.repeats import repeated_end
from fusionrun.submit.snapshot import Snapshot, scan
from fusionrun.submit.standing import standing
from fusionrun.submit.submit import choose_executor, unasked_where
from fusionrun.submit.waiting import NO_WAIT, After, Wait, wait_for

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm

__all__ = ["ArrayDraft", "Slot", "Terms", "draft_array"]

DEFAULT_MAX_ARRAY_SIZE: Final = 1001
"""Slurm's own, where its configuration does not say."""

_MOST_WHY: Final = 64
"""Characters of an error beside its run; `fusionrun status RUN` has all of it."""

Fate = Literal["new", "goes on", "completed", "living", "ended"]


class Terms(NamedTuple):
    """How runs shall be handed over.

    Attributes:
        executor: slurm or local; None: whichever fits.
        after: runs that all of them wait for.
        new: new runs, whatever became of those before.
        template: of the batch script, a user's own.
        dry_run: it is only shown, for which no scheduler has to answer.
    """

    executor: Executor | None = None
    after: After | None = None
    new: bool = False
    template: str | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class Slot:
    """A point and the run that it is.

    Attributes:
        point: its settings and plan.
        layout: where it is, or will be.
        fate: new; goes on (it ended early); completed, living and ended (it would
            come to the same end again) are left as they are.
        words: how it stands.
    """

    point: Point
    layout: RunLayout
    fate: Fate
    words: str

    @property
    def is_submitted(self) -> bool:
        """Whether it gets a task of an array."""
        return self.fate in ("new", "goes on")


@dataclass(frozen=True)
class ArrayDraft:
    """All there is to know before anything is written.

    Attributes:
        source: the recipe.
        slots: every point with its run.
        runs_dir: where runs live.
        settings: of the `slurm` section, resolved.
        snapshot: the code, as it is now.
        template: of the batch script, a user's own.
        max_array_size: of the cluster.
        executor: who carries the runs out.
        wait: what all of them wait for.
        name: of the arrays, for people.
    """

    source: Source
    slots: tuple[Slot, ...]
    runs_dir: Path
    settings: Mapping[str, Any]
    snapshot: Snapshot
    template: str | None
    max_array_size: int
    executor: Executor
    wait: Wait
    name: str

    @property
    def submitted(self) -> tuple[Slot, ...]:
        """Those that get a task."""
        return tuple(slot for slot in self.slots if slot.is_submitted)

    @property
    def living(self) -> int:
        """How many go on already: in an array that was submitted before, or each by itself."""
        return sum(slot.fate == "living" for slot in self.slots)

    @property
    def throttle(self) -> int | None:
        """How many of a new array may run at once, beside those that go on already: at least one.

        None for no bound. The rest of it is not given back when those have ended.
        """
        most: int | None = self.settings["array_throttle"]
        return most and max(1, most - self.living)


def draft_array(
    source: Source,
    points: Sequence[Point],
    runs_dir: Path,
    slurm: Slurm,
    terms: Terms,
) -> ArrayDraft:
    """Find out how every point stands. Nothing is written.

    Args:
        source: the recipe with the sweep.
        points: its points, planned.
        runs_dir: where runs live.
        slurm: the cluster.
        terms: how they shall be handed over.

    Raises:
        RecipeError: settings that Slurm would accept in silence, and misread or never start.
        UserError: what they should wait for has failed, or the code cannot be copied.
        SchedulerError: the scheduler is out of reach.
    """
    settings = plain(source.recipe.slurm or SlurmSection())
    chosen, size = choose_executor(terms.executor, points[0].plan, slurm).executor, ""
    if chosen == "slurm":
        refuse_misread(settings, source)
        with unasked_where(terms.dry_run):
            slurm.ping()
            refuse_beyond(settings, source, slurm)
            size = slurm.config().get("MaxArraySize", "")
    slots = tuple(_slot(point, runs_dir, slurm, new=terms.new) for point in points)
    return ArrayDraft(
        source=source,
        slots=slots,
        runs_dir=runs_dir,
        settings=settings,
        snapshot=scan(source.base_dir, runs_dir),
        template=terms.template,
        max_array_size=int(size) if size.isdecimal() else DEFAULT_MAX_ARRAY_SIZE,
        executor=chosen,
        wait=wait_for(terms.after, chosen, runs_dir, slurm) if terms.after else NO_WAIT,
        name=source.recipe.name,
    )


def _slot(point: Point, runs_dir: Path, slurm: Slurm, *, new: bool) -> Slot:
    identity = run_id(point.plan.name, point.plan.hash, point.plan.seed)
    before = list(earlier_runs(runs_dir, identity))
    if not before or new:
        layout = RunLayout((runs_dir / next_free(runs_dir, identity)).absolute())
        return Slot(point, layout, "new", "new")
    layout = RunLayout(before[-1].root.absolute())
    found = standing(layout, slurm)
    if found.is_complete:
        return Slot(point, layout, "completed", found.words)
    if found.is_living:
        return Slot(point, layout, "living", found.words)
    if found.words == "failed" and (end := repeated_end(layout)):
        why = shorten(end, _MOST_WHY, placeholder=" …")
        return Slot(point, layout, "ended", f"failed, and would come to the same end: {why}")
    code = f" with the code as it is now: {layout.submission.name} is gone"
    return Slot(point, layout, "goes on", f"{found.words}, goes on{code * is_lost(layout)}")
