"""A sweep handed over: its runs as one array of Slurm, or as few as need be.

Here, without Slurm, an array is what one supervisor has trained, one after the other.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from fusionrun.errors import SchedulerError, UserError
from fusionrun.launch import prepare
from fusionrun.slurm.quoting import refuse_control_characters
from fusionrun.store.atomic import make_folder, write_text
from fusionrun.store.layout import RunLayout, slug
from fusionrun.store.status import read_status
from fusionrun.submit.array_draft import ArrayDraft, Slot
from fusionrun.submit.asked import script_of
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
from fusionrun.submit.local import start
from fusionrun.submit.local_sweep import MODULE
from fusionrun.submit.queueing import jobs_of, queue_script
from fusionrun.submit.snapshot import store
from fusionrun.submit.standing import standing
from fusionrun.submit.submit import first_submission

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm, Verdict

__all__ = ["Array", "Queued", "arrays", "hand_over_array", "place_array", "verdict_on"]

FOLDER: Final = ".arrays"
"""In the directory of runs: what belongs to whole arrays."""


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
