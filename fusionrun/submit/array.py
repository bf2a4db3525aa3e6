"""A sweep in Slurm: every point a run of its own, all of them one array, or as few as need be.

What has completed is left out, what goes on is left alone, and what ended early goes on in its own
directory: submitting a sweep again submits what is missing.
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
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from fusionrun.errors import SchedulerError, UserError
from fusionrun.launch import earlier_runs, prepare
from fusionrun.plan.sweep import Point
from fusionrun.recipe.read import Source
from fusionrun.schema.base import plain
from fusionrun.schema.slurm import Slurm as SlurmSection
from fusionrun.store.atomic import make_folder, write_text
from fusionrun.store.layout import RunLayout, run_id, slug
from fusionrun.store.runs import next_free
from fusionrun.store.status import read_status
from fusionrun.submit.asked import refuse_misread, script_of
from fusionrun.submit.handing import alone, begin, rejected_on_error
from fusionrun.submit.journal import (
    Job,
    Submission,
    add_event,
    now,
    read_submission,
    record_job,
    write_submission,
)
from fusionrun.submit.queueing import jobs_of, queue_script
from fusionrun.submit.snapshot import Snapshot, scan, store
from fusionrun.submit.standing import standing
from fusionrun.submit.submit import first_submission

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm, Verdict

__all__ = [
    "Array",
    "ArrayDraft",
    "Queued",
    "Slot",
    "draft_array",
    "place_array",
    "queue_array",
    "verdict_on",
]

FOLDER: Final = ".arrays"
"""In the directory of runs: what belongs to whole arrays."""

DEFAULT_MAX_ARRAY_SIZE: Final = 1001
"""Slurm's own, where its configuration does not say."""

Fate = Literal["new", "goes on", "completed", "living"]


@dataclass(frozen=True)
class Slot:
    """A point and the run that it is.

    Attributes:
        point: its settings and plan.
        layout: where it is, or will be.
        fate: new; goes on (it ended early); completed and living are left as they are.
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
    """All there is to know before anything is written."""

    source: Source
    slots: tuple[Slot, ...]
    runs_dir: Path
    settings: Mapping[str, Any]
    snapshot: Snapshot
    template: str | None
    max_array_size: int

    @property
    def submitted(self) -> tuple[Slot, ...]:
        """Those that get a task."""
        return tuple(slot for slot in self.slots if slot.is_submitted)


class Array(NamedTuple):
    """One array: its directory, its runs in the order of its tasks, and its script."""

    layout: RunLayout
    slots: tuple[Slot, ...]
    script: str


class Queued(NamedTuple):
    """An array that stands in the queue."""

    array: Array
    job_id: str
    verdict: Verdict


def draft_array(
    source: Source,
    points: Sequence[Point],
    runs_dir: Path,
    slurm: Slurm,
    *,
    new: bool = False,
    template: str | None = None,
) -> ArrayDraft:
    """Find out how every point stands. Nothing is written.

    Args:
        source: the recipe with the sweep.
        points: its points, planned.
        runs_dir: where runs live.
        slurm: the cluster.
        new: a new run for each point, whatever became of those before.
        template: of the batch script, a user's own.

    Raises:
        RecipeError: settings that Slurm would accept in silence.
        SchedulerError: the scheduler is out of reach.
    """
    slurm.ping()
    settings = plain(source.recipe.slurm or SlurmSection())
    refuse_misread(settings, source)
    slots = tuple(_slot(point, runs_dir, slurm, new=new) for point in points)
    size = slurm.config().get("MaxArraySize", "")
    return ArrayDraft(
        source=source,
        slots=slots,
        runs_dir=runs_dir,
        settings=settings,
        snapshot=scan(source.base_dir, runs_dir),
        template=template,
        max_array_size=int(size) if size.isdecimal() else DEFAULT_MAX_ARRAY_SIZE,
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
    return Slot(point, layout, "goes on", f"{found.words}, goes on")


def arrays(draft: ArrayDraft) -> Iterator[Array]:
    """The arrays of a draft: one for each code that its runs are made of, none above MaxArraySize.

    A run that goes on keeps the code it began with.
    """
    for paths, group in groupby(
        sorted(draft.submitted, key=lambda slot: (_code(slot, draft), slot.fate == "goes on")),
        key=lambda slot: _code(slot, draft),
    ):
        slots = tuple(group)
        for start in range(0, len(slots), draft.max_array_size):
            yield _array(slots[start : start + draft.max_array_size], paths, draft)


def _code(slot: Slot, draft: ArrayDraft) -> tuple[str, ...]:
    before = read_submission(slot.layout) if slot.fate == "goes on" else None
    return before.pythonpath if before else draft.snapshot.python_path()


def _array(slots: tuple[Slot, ...], pythonpath: tuple[str, ...], draft: ArrayDraft) -> Array:
    from fusionrun.slurm.script import Job as ScriptJob
    from fusionrun.slurm.script import render

    ids = "\n".join(slot.layout.id for slot in slots)
    name = f"{slug(draft.source.recipe.name)}-sweep-{hashlib.sha256(ids.encode()).hexdigest()[:8]}"
    layout = RunLayout(draft.runs_dir.absolute() / FOLDER / name)
    script = render(
        ScriptJob(
            run_id=layout.id,
            name=draft.source.recipe.name,
            run_dir=str(layout.root),
            python=sys.executable,
            pythonpath=pythonpath,
            settings=draft.settings,
            array=(len(slots), draft.settings["array_throttle"]),
            template=draft.template,
        )
    )
    return Array(layout, slots, script)


def verdict_on(array: Array, slurm: Slurm) -> Verdict:
    """What the scheduler says to an array that is not placed. Queues nothing, leaves nothing."""
    with tempfile.TemporaryDirectory(prefix="fusionrun-") as folder:
        path = Path(folder, array.layout.job_script.name)
        path.write_text(array.script, encoding="utf-8")
        return slurm.verdict(path)


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
    # A run's own script, for when it goes on alone.
    text = script_of(
        layout, plan, submission.python, submission.pythonpath, draft.settings, draft.template
    )
    write_text(layout.job_script, text)


def _submission(slot: Slot, draft: ArrayDraft) -> Submission:
    before = read_submission(slot.layout) if slot.fate == "goes on" else None
    if before is not None:
        again = before.changed("preparing")
        return replace(again, executor="slurm", slurm=draft.settings, after=None)
    return first_submission("slurm", draft.snapshot, draft.settings)


def _refuse_living(slot: Slot, slurm: Slurm) -> None:
    """Somebody may have handed it over since the draft."""
    submission = read_submission(slot.layout)
    known = {job.id for job in submission.jobs} if submission else set()
    if living := jobs_of(slurm, slot.layout, known):
        raise UserError(f"{slot.layout.id}: job {living[-1].handle} goes on with it already")


def queue_array(array: Array, slurm: Slurm) -> Queued:
    """Hand one array to Slurm.

    Raises:
        SchedulerError: it refuses, and the runs are marked rejected; or nobody knows.
    """
    from fusionrun.slurm.words import explained

    with ExitStack() as stack:
        for slot in array.slots:
            if slot.fate == "goes on":  # (a new one nobody else knows)
                stack.enter_context(alone(slot.layout))
                _refuse_living(slot, slurm)
            stack.enter_context(rejected_on_error(slot.layout))
        verdict = slurm.verdict(array.layout.job_script)
        if not verdict.accepted:
            raise SchedulerError(explained(f"{array.layout.id}: Slurm refuses it", verdict.words))
        for slot in array.slots:
            begin(slot.layout)
        job_id = queue_script(slurm, array.layout)
    for number, slot in enumerate(array.slots):
        handle = f"{job_id}_{number}"
        attempt = read_status(slot.layout).attempts + 1
        record_job(slot.layout, Job(handle, now(), attempt))
        add_event(slot.layout, "queued", job_id=handle, executor="slurm", array=array.layout.id)
    return Queued(array, job_id, verdict)
