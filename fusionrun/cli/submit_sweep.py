"""`fusionrun submit` for a recipe with a sweep: all of its points, as an array or one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fusionrun.slurm.client import Slurm, Verdict
    from fusionrun.submit.array import Queued
    from fusionrun.submit.array_draft import ArrayDraft, Terms


def submit_sweep(
    recipe: Path,
    settings: Sequence[str],
    site: str | None,
    runs: str | None,
    terms: Terms,
    *,
    json: bool,
) -> None:
    """Plan every point, then hand over what has not completed.

    Raises:
        UserError: see `refuse_if_idle`.
    """
    from fusionrun.plan.sweep import plan_points
    from fusionrun.plan.unsupported import refuse_unsupported
    from fusionrun.recipe.site import site_file
    from fusionrun.slurm.client import Slurm
    from fusionrun.store.runs import runs_dir
    from fusionrun.submit.array import hand_over_array, place_array
    from fusionrun.submit.array_draft import draft_array

    directory = runs_dir(runs)
    source, points = plan_points(recipe, settings, directory, site_file(site))
    for point in points:
        refuse_unsupported(point.plan)
    slurm = Slurm()
    draft = draft_array(source, points, directory, slurm, terms)
    if not json:
        typer.echo("\n".join(_screen(draft)))
    if terms.dry_run:
        dry_run_of([draft], slurm, json)
        return
    refuse_if_idle(draft)
    made = place_array(draft) if draft.submitted else ()
    queued = [hand_over_array(array, draft, slurm) for array in made]
    if json:
        _print_json(draft, queued)
        return
    for each in queued:
        typer.echo("\n".join(queued_lines(each)))
    if not queued:
        typer.echo("nothing was submitted; --new runs every point again")


def refuse_if_idle(draft: ArrayDraft) -> None:
    """As for a single run: where nothing is to submit, and not all has completed, it is no success.

    Raises:
        UserError: so it is.
    """
    from fusionrun.errors import UserError
    from fusionrun.store.runs import elsewhere
    from fusionrun.submit.waiting import listed

    ended = sum(slot.fate == "ended" for slot in draft.slots)
    if draft.submitted or not (draft.living or ended):
        return
    living = [f"{slot.layout.id}: {slot.words}" for slot in draft.slots if slot.fate == "living"]
    go = "goes" if len(living) == 1 else "go"
    whys = [f"{len(living)} of its runs {go} on right now ({listed(living)})"] if living else []
    whys += [f"{ended} failed and would come to the same end"] if ended else []
    fix = "change the recipe for those that failed; or " if ended else ""
    raise UserError(
        f"{draft.name}: nothing was submitted: {', '.join(whys)}\n"
        f"  `fusionrun status{elsewhere(draft.runs_dir)}` shows how they stand; {fix}"
        "--new begins new runs beside them"
    )


def _screen(draft: ArrayDraft) -> Iterator[str]:
    plan = draft.slots[0].point.plan
    tasks = len(draft.submitted)
    yield f"{plan.name}  ·  a sweep of {len(draft.slots)} points, {tasks} to submit"
    yield ""
    yield from slot_lines(draft)
    yield ""
    if tasks:
        yield f"snapshot    {draft.snapshot.id}: {len(draft.snapshot.files)} files"
    if tasks and draft.snapshot.left_out:
        yield f"left out    {draft.snapshot.left_out_in_words}"
    if draft.wait.words:
        yield f"waits       {draft.wait.words}"
    if at_once := _at_once(draft):
        yield f"at once     {at_once}"


def slot_lines(draft: ArrayDraft) -> Iterator[str]:
    """A line for each run: its settings, its id, how it stands."""
    width = max(len(str(slot.point)) for slot in draft.slots)
    for slot in draft.slots:
        point = f"{slot.point!s:{width}}  " if width else ""
        yield f"  {point}{slot.layout.id}  {slot.words}"


def _at_once(draft: ArrayDraft) -> str:
    """How many train at the same time."""
    most = 1 if draft.executor == "local" else draft.throttle
    if not most or not draft.submitted:
        return ""
    beside = f", beside the {draft.living} submitted before" if draft.living else ""
    return f"{most}{beside}"


def dry_run_of(drafts: Sequence[ArrayDraft], slurm: Slurm, json: bool) -> None:
    """Show the script of every array, and what the scheduler says to it.

    Raises:
        SchedulerError: it would refuse one, or is out of reach.
    """
    from json import dumps

    from fusionrun.cli.submit import MISSING
    from fusionrun.errors import SchedulerError
    from fusionrun.plan.text import counted
    from fusionrun.slurm.client import SchedulerUnreachableError
    from fusionrun.slurm.words import explained
    from fusionrun.submit.array import arrays, verdict_on

    # (none without Slurm)
    made = [(array, draft) for draft in drafts for array in arrays(draft) if array.script]
    said: list[Verdict | None] = [None] * len(made)
    unreachable = None
    try:
        said = [verdict_on(array, draft, slurm) for array, draft in made]
    except SchedulerUnreachableError as error:
        unreachable = error
    if json:
        scripts = [
            {
                "script": array.script,
                "accepted": verdict and verdict.accepted,
                "verdict": verdict and verdict.words,
            }
            for (array, _), verdict in zip(made, said, strict=True)
        ]
        typer.echo(dumps({"state": "dry run", "arrays": scripts}, indent=2, ensure_ascii=False))
    else:
        for (array, _), verdict in zip(made, said, strict=True):
            if len(made) > 1:
                tasks = counted(len(array.slots), "task")
                typer.echo(f"\nscript      of the array {array.layout.id}: {tasks}")
            typer.echo(f"\n{array.script.rstrip()}\n")
            typer.echo(f"verdict     {verdict.words}" if verdict else MISSING)
        typer.echo("nothing was written, nothing was queued")
    if unreachable:
        raise unreachable
    for verdict in said:
        if verdict and not verdict.accepted:
            raise SchedulerError(explained("Slurm would refuse it", verdict.words))


def queued_lines(queued: Queued) -> Iterator[str]:
    """What became of one array, and what one does next."""
    from fusionrun.plan.text import counted
    from fusionrun.store.runs import elsewhere

    array, many = queued.array, len(queued.array.slots)
    if queued.verdict:
        yield f"verdict     {queued.verdict.words}"
        yield f"script      {array.layout.job_script}"
        yield f"array       {queued.job_id}: {counted(many, 'task')}"
    else:
        in_turn = ", one after the other" if many > 1 else ""
        yield f"process     {queued.job_id}: {counted(many, 'run')}{in_turn}"
    yield f"next        fusionrun status{elsewhere(array.layout.root.parents[1])}"


def _print_json(draft: ArrayDraft, queued: Sequence[Queued]) -> None:
    from json import dumps

    content = {
        "arrays": [each.job_id for each in queued],
        "points": points_as_json(draft, queued),
    }
    typer.echo(dumps(content, indent=2, ensure_ascii=False))


def points_as_json(draft: ArrayDraft, queued: Sequence[Queued]) -> list[dict[str, Any]]:
    """Every run of a draft, with the job that it was queued as."""
    handles = {
        slot.layout.id: each.handle(number)
        for each in queued
        for number, slot in enumerate(each.array.slots)
    }
    return [
        {
            "run": slot.layout.id,
            "directory": str(slot.layout.root),
            "settings": dict(slot.point.settings),
            "state": slot.fate,
            "job_id": handles.get(slot.layout.id),
        }
        for slot in draft.slots
    ]
