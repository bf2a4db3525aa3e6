"""A sweep: every point a run of its own, all of them one array of Slurm, or as few as need be.

Here, without Slurm, an array is what one supervisor has trained, one after the other. What has
completed is left out, what goes on is left alone, what ended early goes on in its own directory,
and what would only end as before is left out: submitting a sweep again submits what is missing.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from fusionrun.errors import SchedulerError, UserError
from fusionrun.launch import earlier_runs, prepare
from fusionrun.plan.sweep import Point
from fusionrun.recipe.read import Source
from fusionrun.schema.base import plain
from fusionrun.schema.slurm import Slurm as SlurmSection
from fusionrun.slurm.quoting import refuse_control_characters
from fusionrun.store.atomic import make_folder, write_text
from fusionrun.store.layout import RunLayout, run_id, slug
from fusionrun.store.runs import next_free
from fusionrun.store.status import read_status
from fusionrun.submit.asked import refuse_beyond, refuse_misread, script_of
from fusionrun.submit.handing import alone, begin, rejected_on_error
from fusionrun.submit.journal import (
    Executor,
    Job,
    Submission,
    add_event,
    is_lost,
    now,
    read_submission,
    record_job,
    write_submission,
)
from fusionrun.submit.local import start
from fusionrun.submit.local_sweep import MODULE
from fusionrun.submit.queueing import jobs_of, queue_script
from fusionrun.submit.repeats import repeated_end
from fusionrun.submit.snapshot import Snapshot, scan, store
from fusionrun.submit.standing import standing
from fusionrun.submit.submit import choose_executor, first_submission, unasked_where
from fusionrun.submit.waiting import NO_WAIT, After, Wait, wait_for

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm, Verdict

__all__ = [
    "Array",
    "ArrayDraft",
    "Queued",
    "Slot",
    "draft_array",
    "hand_over_array",
    "place_array",
    "verdict_on",
]

FOLDER: Final = ".arrays"
"""In the directory of runs: what belongs to whole arrays."""

DEFAULT_MAX_ARRAY_SIZE: Final = 1001
"""Slurm's own, where its configuration does not say."""

_MOST_WHY: Final = 64
"""Characters of an error beside its run; `fusionrun status RUN` has all of it."""

Fate = Literal["new", "goes on", "completed", "living", "ended"]


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


class Array(NamedTuple):
    """One array: its directory, its runs in the order of its tasks, its script (empty here)."""

    layout: RunLayout
    slots: tuple[Slot, ...]
    script: str


class Queued(NamedTuple):
    """An array that was handed over.

    Attributes:
        array: which.
        job_id: Slurm's; here the process id of its supervisor.
        verdict: Slurm's; None without it.
    """

    array: Array
    job_id: str
    verdict: Verdict | None

    def handle(self, number: int) -> str:
        """What carries out its run of that number."""
        return f"{self.job_id}_{number}" if self.verdict else self.job_id


def draft_array(
    source: Source,
    points: Sequence[Point],
    runs_dir: Path,
    slurm: Slurm,
    *,
    executor: Executor | None = None,
    after: After | None = None,
    new: bool = False,
    template: str | None = None,
    may_be_unasked: bool = False,
) -> ArrayDraft:
    """Find out how every point stands. Nothing is written.

    Args:
        source: the recipe with the sweep.
        points: its points, planned.
        runs_dir: where runs live.
        slurm: the cluster.
        executor: slurm or local; None: whichever fits.
        after: a run that all points wait for.
        new: a new run for each point, whatever became of those before.
        template: of the batch script, a user's own.
        may_be_unasked: as for `draft`.

    Raises:
        RecipeError: settings that Slurm would accept in silence, and misread or never start.
        UserError: what they should wait for has failed, or the code cannot be copied.
        SchedulerError: the scheduler is out of reach.
    """
    settings = plain(source.recipe.slurm or SlurmSection())
    chosen, size = choose_executor(executor, points[0].plan, slurm).executor, ""
    if chosen == "slurm":
        refuse_misread(settings, source)
        with unasked_where(may_be_unasked):
            slurm.ping()
            refuse_beyond(settings, source, slurm)
            size = slurm.config().get("MaxArraySize", "")
    slots = tuple(_slot(point, runs_dir, slurm, new=new) for point in points)
    return ArrayDraft(
        source=source,
        slots=slots,
        runs_dir=runs_dir,
        settings=settings,
        snapshot=scan(source.base_dir, runs_dir),
        template=template,
        max_array_size=int(size) if size.isdecimal() else DEFAULT_MAX_ARRAY_SIZE,
        executor=chosen,
        wait=wait_for(after, chosen, runs_dir, slurm) if after else NO_WAIT,
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


def arrays(draft: ArrayDraft) -> Iterator[Array]:
    """The arrays of a draft: one for each code that its runs are made of, none above MaxArraySize.

    A run that goes on keeps the code it began with. Here there is one for all of them.
    """
    if draft.executor == "local":
        if draft.submitted:
            refuse_control_characters(str(draft.runs_dir.absolute()))  # (a line for each run)
            yield Array(_folder(draft.submitted, draft), draft.submitted, "")
        return
    for paths, group in groupby(
        sorted(draft.submitted, key=lambda slot: (_code(slot, draft), slot.fate == "goes on")),
        key=lambda slot: _code(slot, draft),
    ):
        slots = tuple(group)
        for first in range(0, len(slots), draft.max_array_size):
            yield _array(slots[first : first + draft.max_array_size], paths, draft)


def _code(slot: Slot, draft: ArrayDraft) -> tuple[str, ...]:
    before = read_submission(slot.layout) if slot.fate == "goes on" else None
    return before.pythonpath if before else draft.snapshot.python_path()


def _array(slots: tuple[Slot, ...], pythonpath: tuple[str, ...], draft: ArrayDraft) -> Array:
    from fusionrun.slurm.script import Job as ScriptJob
    from fusionrun.slurm.script import render

    layout = _folder(slots, draft)
    script = render(
        ScriptJob(
            run_id=layout.id,
            name=draft.name,
            run_dir=str(layout.root),
            python=sys.executable,
            pythonpath=pythonpath,
            settings=draft.settings,
            array=(len(slots), draft.throttle),
            template=draft.template,
        )
    )
    return Array(layout, slots, script)


def _folder(slots: tuple[Slot, ...], draft: ArrayDraft) -> RunLayout:
    ids = "\n".join(slot.layout.id for slot in slots)
    name = f"{slug(draft.name)}-sweep-{hashlib.sha256(ids.encode()).hexdigest()[:8]}"
    return RunLayout(draft.runs_dir.absolute() / FOLDER / name)


def verdict_on(array: Array, draft: ArrayDraft, slurm: Slurm) -> Verdict | None:
    """What the scheduler says to an array that is not placed; None without it. Leaves nothing."""
    if draft.executor == "local":
        return None
    with tempfile.TemporaryDirectory(prefix="fusionrun-") as folder:
        path = Path(folder, array.layout.job_script.name)
        path.write_text(array.script, encoding="utf-8")
        return slurm.verdict(path, *draft.wait.arguments)


def place_array(draft: ArrayDraft) -> tuple[Array, ...]:
    """Write every run's directory, the snapshot, and what each array needs.

    Raises:
        UserError: somebody was faster, or something cannot be written.
    """
    made = tuple(arrays(draft))
    store(draft.snapshot)
    with ExitStack() as stack:
        for slot in (slot for array in made for slot in array.slots):
            _place(slot, draft)
            stack.enter_context(rejected_on_error(slot.layout))
        for array in made:
            array.layout.root.mkdir(parents=True, exist_ok=True)
            make_folder(array.layout.logs)
            lines = "".join(f"{slot.layout.root}\n" for slot in array.slots)
            write_text(array.layout.points, lines)
            if array.script:
                write_text(array.layout.job_script, array.script)
    return made


def _place(slot: Slot, draft: ArrayDraft) -> None:
    layout, plan = slot.layout, slot.point.plan
    submission = _submission(slot, draft)
    if slot.fate == "new":
        start = prepare(
            plan,
            draft.source.text,
            draft.runs_dir,
            new=True,
            first=lambda made: write_submission(made, submission),
        )
        if start.layout.id != layout.id:
            raise UserError(f"{layout.root}: somebody has made this run meanwhile; submit again")
    else:
        write_submission(layout, submission)
    make_folder(layout.logs)
    if draft.executor == "local":
        return
    # A run's own script, for when it goes on alone.
    text = script_of(
        layout, plan, submission.python, submission.pythonpath, draft.settings, draft.template
    )
    write_text(layout.job_script, text)


def _submission(slot: Slot, draft: ArrayDraft) -> Submission:
    before = read_submission(slot.layout) if slot.fate == "goes on" else None
    settings = draft.settings if draft.executor == "slurm" else {}
    if before is not None:
        again = before.changed("preparing")
        return replace(again, executor=draft.executor, slurm=settings, after=draft.wait.after)
    return first_submission(draft.executor, draft.snapshot, settings, draft.wait.after)


def hand_over_array(array: Array, draft: ArrayDraft, slurm: Slurm) -> Queued:
    """Hand one array to Slurm, or to a supervisor here.

    Raises:
        UserError: somebody was faster with one of its runs.
        SchedulerError: it is refused, and the runs are marked rejected; or nobody knows.
    """
    with ExitStack() as stack:
        for slot in array.slots:
            if slot.fate == "goes on":  # (a new one nobody else knows)
                stack.enter_context(alone(slot.layout))
                _refuse_living(slot, draft, slurm)
            stack.enter_context(rejected_on_error(slot.layout))
        verdict = _asked(array, draft, slurm)
        for slot in array.slots:
            begin(slot.layout)
        if draft.executor == "local":
            own = first_submission("local", draft.snapshot, {})
            queued = Queued(array, start(array.layout, own, MODULE), verdict)
        else:
            job_id = queue_script(slurm, array.layout, draft.wait.arguments)
            queued = Queued(array, job_id, verdict)
    _record(queued, draft)
    return queued


def _refuse_living(slot: Slot, draft: ArrayDraft, slurm: Slurm) -> None:
    """Somebody may have handed it over since the draft."""
    submission = read_submission(slot.layout)
    known = {job.id for job in submission.jobs} if submission else set()
    if draft.executor == "slurm" and (living := jobs_of(slurm, slot.layout, known)):
        raise UserError(f"{slot.layout.id}: job {living[-1].handle} goes on with it already")
    if draft.executor == "local" and (pid := standing(slot.layout, slurm).pid):
        raise UserError(f"{slot.layout.id}: process {pid} goes on with it already")


def _asked(array: Array, draft: ArrayDraft, slurm: Slurm) -> Verdict | None:
    from fusionrun.slurm.words import explained

    if draft.executor == "local":
        return None
    verdict = slurm.verdict(array.layout.job_script, *draft.wait.arguments)
    if not verdict.accepted:
        raise SchedulerError(explained(f"{array.layout.id}: Slurm refuses it", verdict.words))
    return verdict


def _record(queued: Queued, draft: ArrayDraft) -> None:
    """Into each run's records; a supervisor here has written itself into the journals."""
    for number, slot in enumerate(queued.array.slots):
        handle = queued.handle(number)
        if draft.executor == "slurm":
            record_job(slot.layout, Job(handle, now(), read_status(slot.layout).attempts + 1))
        about = {"executor": draft.executor, "array": queued.array.layout.id}
        add_event(slot.layout, "queued", job_id=handle, **about)
