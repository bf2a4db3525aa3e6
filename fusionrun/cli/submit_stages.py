"""`fusionrun submit` for a recipe with a pretrain stage: each expert alone, then the fused run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fusionrun.plan.sweep import Point
    from fusionrun.recipe.read import Source
    from fusionrun.submit.array_draft import Terms
    from fusionrun.submit.stages import Handed, StagedDraft


def submit_stages(
    recipe: Path,
    settings: Sequence[str],
    site: str | None,
    runs: str | None,
    source: Source,
    terms: Terms,
    *,
    json: bool,
) -> None:
    """Plan everything, then hand over what has not completed."""
    from fusionrun.cli.submit_sweep import dry_run_of, refuse_if_idle
    from fusionrun.plan.stages import make_plans
    from fusionrun.plan.sweep import Point, plan_points
    from fusionrun.plan.unsupported import refuse_unsupported
    from fusionrun.recipe.site import site_file
    from fusionrun.slurm.client import Slurm
    from fusionrun.store.runs import runs_dir
    from fusionrun.submit.stages import draft_stages, hand_over_stages

    directory = runs_dir(runs)
    points: tuple[Point, ...]
    if source.recipe.sweep is None:
        points = (Point({}, *make_plans(source, directory)),)
    else:
        source, points = plan_points(recipe, settings, directory, site_file(site))
    for point in points:
        refuse_unsupported(point.plan)
    slurm = Slurm()
    draft = draft_stages(source, points, directory, slurm, terms)
    if not json:
        typer.echo("\n".join(_screen(draft, points)))
    if terms.dry_run:
        dry_run_of([part for part in draft if part is not None], slurm, json)
        return
    if draft.pretraining is None or not draft.pretraining.submitted:
        refuse_if_idle(draft.fused)
    handed = hand_over_stages(draft, slurm)
    if json:
        _print_json(handed)
    else:
        typer.echo("\n".join(_handed_lines(handed)))


def _screen(draft: StagedDraft, points: Sequence[Point]) -> Iterator[str]:
    from fusionrun.cli.submit_sweep import slot_lines
    from fusionrun.plan.screen import screen
    from fusionrun.plan.text import counted
    from fusionrun.store.pretrained import pretraining_states

    fused, alone = draft.fused, draft.pretraining
    if len(points) == 1:
        plan = points[0].plan
        states = pretraining_states(plan.pretraining, fused.runs_dir)
        yield screen(plan, fused.slots[0].layout.id, states)
    yield ""
    yield f"executor    {fused.executor}"
    if alone is not None:
        yield f"pretraining {counted(len(alone.slots), 'run')}, {len(alone.submitted)} to submit"
        yield from slot_lines(alone)
        if alone.wait.words:
            yield f"waits       {alone.wait.words}"
    yield f"fused       {counted(len(fused.slots), 'run')}, {len(fused.submitted)} to submit"
    yield from slot_lines(fused)
    if alone is not None:
        yield "waits       for all pretraining to complete; where one fails, it is ended"
    elif fused.wait.words:
        yield f"waits       {fused.wait.words}"
    if not (fused.submitted or (alone and alone.submitted)):
        return
    yield f"snapshot    {fused.snapshot.id}: {len(fused.snapshot.files)} files"
    if fused.snapshot.left_out:
        yield f"left out    {fused.snapshot.left_out_in_words}"


def _handed_lines(handed: Handed) -> Iterator[str]:
    from fusionrun.cli.submit_sweep import queued_lines

    last = "nothing was submitted; --new makes a new fused run"
    for queued in (*handed.pretraining, *handed.fused):
        *lines, last = queued_lines(queued)
        yield from lines
    if handed.fused and (words := handed.draft.fused.wait.words):
        yield f"waits       {words}"
    yield last


def _print_json(handed: Handed) -> None:
    from json import dumps

    from fusionrun.cli.submit_sweep import points_as_json

    alone, fused = handed.draft
    content: dict[str, Any] = {
        "arrays": [each.job_id for each in (*handed.pretraining, *handed.fused)],
        "pretraining": points_as_json(alone, handed.pretraining) if alone else [],
        "points": points_as_json(fused, handed.fused),
        "waits_for": fused.wait.after,
    }
    typer.echo(dumps(content, indent=2, ensure_ascii=False))
