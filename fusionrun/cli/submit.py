"""`fusionrun submit`: queue a recipe in Slurm, or start it in the background; the same life."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusionrun.cli.options import (
    JsonOption,
    RecipeArgument,
    RunsOption,
    SetOption,
    SiteOption,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusionrun.recipe.read import Source
    from fusionrun.slurm.client import Slurm, Verdict
    from fusionrun.store.layout import RunLayout
    from fusionrun.submit.submit import Draft, Order
    from fusionrun.submit.waiting import After, Wait


class ExecutorName(StrEnum):
    """Who carries a run out."""

    slurm = "slurm"
    local = "local"


MISSING = "verdict     missing: the scheduler could not be asked, nor what it allows"

ExecutorOption = Annotated[
    ExecutorName | None,
    typer.Option("--executor", help="slurm, or local: here, in the background, without Slurm"),
]


def submit(
    recipe: RecipeArgument,
    set_: SetOption = None,
    site: SiteOption = None,
    runs: RunsOption = None,
    executor: ExecutorOption = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after", metavar="RUN", help="start when RUN, or every run of a sweep, has completed"
        ),
    ] = None,
    after_any: Annotated[
        str | None,
        typer.Option("--after-any", metavar="RUN", help="start when RUN has ended, whichever way"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show script and verdict; write and queue nothing")
    ] = False,
    template: Annotated[
        Path | None,
        typer.Option("--template", metavar="FILE", help="a batch script's template of your own"),
    ] = None,
    new: Annotated[
        bool, typer.Option("--new", help="a new run although this one goes on, or has completed")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Queue a recipe: show what will run, copy the code, and hand it to Slurm."""
    from dataclasses import replace

    from fusionrun.slurm.client import Slurm
    from fusionrun.submit.array_draft import Terms
    from fusionrun.submit.submit import draft

    source = _source(recipe, set_ or [], site)
    terms = Terms(
        executor=executor.value if executor else None,
        after=_after(runs, after, after_any),
        new=new,
        template=_text(template),
        dry_run=dry_run,
    )
    if any(stage.stage == "pretrain" for stage in source.recipe.stages):
        from fusionrun.cli.submit_stages import submit_stages

        submit_stages(recipe, set_ or [], site, runs, source, terms, json=json)
        return
    if source.recipe.sweep is not None:
        from fusionrun.cli.submit_sweep import submit_sweep

        submit_sweep(recipe, set_ or [], site, runs, terms, json=json)
        return
    order = replace(
        _order(source, runs),
        executor=terms.executor,
        after=terms.after,
        new=terms.new,
        template=terms.template,
    )
    slurm = Slurm()
    drafted = draft(order, slurm, may_be_unasked=dry_run)
    if dry_run:
        _dry_run(drafted, slurm, json)
    elif drafted.finished:
        _say_finished(drafted, json)
    else:
        _submit(drafted, slurm, json)


def _source(recipe: Path, settings: list[str], site: str | None) -> Source:
    from fusionrun.recipe.read import read_recipe
    from fusionrun.recipe.site import site_file

    return read_recipe(recipe, settings, site_file(site))


def _order(source: Source, runs: str | None) -> Order:
    from fusionrun.plan.resolve import make_plan
    from fusionrun.plan.unsupported import refuse_unsupported
    from fusionrun.store.runs import runs_dir
    from fusionrun.submit.submit import Order

    directory = runs_dir(runs)
    plan = make_plan(source, directory)
    refuse_unsupported(plan)
    return Order(source=source, plan=plan, folder=source.base_dir, runs_dir=directory)


def _text(template: Path | None) -> str | None:
    from fusionrun.errors import UserError
    from fusionrun.regular import read_regular

    try:
        return read_regular(template).decode("utf-8") if template else None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{template}: cannot be read: {error}") from error


def _after(runs: str | None, ok: str | None, any_: str | None) -> After | None:
    from fusionrun.errors import UserError
    from fusionrun.store.runs import runs_dir
    from fusionrun.submit.waiting import After

    directory = runs_dir(runs)
    if ok is not None and any_ is not None:
        raise UserError("--after and --after-any: expected one of them, got both")
    if ok is not None:
        return After(_awaited(directory, ok), "ok")
    return After(_awaited(directory, any_), "any") if any_ is not None else None


def _awaited(directory: Path, wanted: str) -> tuple[RunLayout, ...]:
    """The runs of a recipe by its name, all of a sweep; or else the one run that is meant."""
    from fusionrun.store.runs import find_run, runs_named

    points = runs_named(directory, wanted)
    return tuple(points) or (find_run(directory, wanted),)


def _say_finished(drafted: Draft, json: bool) -> None:
    if json:
        _print_json({"run": drafted.layout.id, "state": "completed"}, drafted)
        return
    typer.echo(_finished(drafted))
    typer.echo("nothing was submitted; --new runs it again")


def _finished(drafted: Draft) -> str:
    return f"{drafted.layout.root} has finished already: the same plan, the same seed"


def _dry_run(drafted: Draft, slurm: Slurm, json: bool) -> None:
    from fusionrun.errors import SchedulerError
    from fusionrun.slurm.client import SchedulerUnreachableError
    from fusionrun.slurm.words import explained
    from fusionrun.submit.submit import script, verdict

    text, said, unreachable = script(drafted), None, None
    try:
        said = verdict(drafted, slurm)
    except SchedulerUnreachableError as error:
        unreachable = error
    if json:
        state = "completed" if drafted.finished else "dry run"
        _print_json({"state": state, "script": text, **_verdict_as_json(said)}, drafted)
    else:
        typer.echo(_screen(drafted))
        if text:
            typer.echo(f"\n{text.rstrip()}\n")
        lines = [MISSING] if unreachable else [*_verdict_lines(said, drafted.wait)]
        typer.echo("\n".join(lines) or "nothing was written, nothing was started")
        if drafted.finished:
            typer.echo(f"{_finished(drafted)}\na submit does nothing; with --new it runs it again")
    if unreachable:
        raise unreachable
    if said and not said.accepted:
        raise SchedulerError(explained("Slurm would refuse it", said.words))


def _submit(drafted: Draft, slurm: Slurm, json: bool) -> None:
    from fusionrun.submit.handing import ask, hand_over
    from fusionrun.submit.submit import place

    if not json:
        typer.echo(_screen(drafted))
    placed = place(drafted)
    layout, arguments = placed.layout, placed.wait.arguments
    said = None
    if placed.chosen.executor == "slurm":
        said = ask(layout, slurm, arguments)
        if not json:
            typer.echo(f"script      {layout.job_script}")
            typer.echo("\n".join(_verdict_lines(said, placed.wait)))
    job_id = hand_over(layout, slurm, arguments)
    if json:
        _print_json({"state": "submitted", "job_id": job_id, **_verdict_as_json(said)}, placed)
        return
    what = "job" if placed.chosen.executor == "slurm" else "process"
    typer.echo(f"\n{what:12}{job_id}")
    typer.echo(f"run         {layout.id}")
    typer.echo(f"log         {layout.log}")
    typer.echo(next_commands(layout))


def next_commands(layout: RunLayout) -> str:
    """What one does next with a run that goes on."""
    from fusionrun.store.runs import typed

    calls = [typed(layout, "status"), f"{typed(layout, 'logs')} -f", typed(layout, "cancel")]
    return "\n".join(f"{n:12}{call}" for n, call in zip(("next", "", ""), calls, strict=True))


def _screen(drafted: Draft) -> str:
    from fusionrun.plan.screen import screen
    from fusionrun.plan.text import labelled

    facts = list(labelled(list(_facts(drafted))))
    return "\n".join([screen(drafted.order.plan, drafted.layout.id), "", *facts])


def _facts(drafted: Draft) -> Iterator[tuple[str, str]]:
    yield ("executor", f"{drafted.chosen.executor}: {drafted.chosen.why}")
    if drafted.chosen.executor == "slurm":
        yield ("resources", _resources(drafted.settings))
    each = "process" if drafted.world_size == 1 else "processes that train together"
    yield ("world size", f"{drafted.world_size} {each}")
    snapshot = drafted.snapshot
    commit = f", commit {snapshot.commit[:12]}" if snapshot.commit else ", no commit"
    changes = " with changes" if snapshot.diff else ""
    yield ("snapshot", f"{snapshot.id}: {len(snapshot.files)} files{commit}{changes}")
    if snapshot.left_out:
        yield ("left out", snapshot.left_out_in_words)
    if drafted.wait.words:
        yield ("waits", drafted.wait.words)
    if drafted.forecast:
        yield ("forecast", drafted.forecast.words)
        yield from (("warning", warning) for warning in drafted.forecast.warnings)
    for line in drafted.note.splitlines():
        yield ("directory", line.removeprefix("run directory").strip())


def _resources(settings: Any) -> str:
    shown = ("partition", "nodes", "gpus_per_node", "gres", "cpus_per_task", "mem", "mem_per_cpu")
    given = [f"{key} {settings[key]}" for key in shown if settings[key] is not None]
    limit = settings["time"] or "the partition's"
    then = "goes on in the same job" if settings["requeue"] else "goes on in a new job"
    return f"{', '.join(given)}; time {limit}, then it {then}"


def _verdict_lines(said: Verdict | None, wait: Wait) -> Iterator[str]:
    if said is None:
        return
    yield f"verdict     {'accepted' if said.accepted else 'refused'}: {said.words.splitlines()[0]}"
    if said.start and not wait.arguments:  # (of other runs' ends Slurm's estimate knows nothing)
        from fusionrun.slurm.words import expected_start

        yield f"starts      {expected_start(said.start)}"


def _verdict_as_json(said: Verdict | None) -> dict[str, Any]:
    if said is None:
        return {"verdict": None}
    return {"verdict": {"accepted": said.accepted, "start": said.start, "words": said.words}}


def _print_json(more: dict[str, Any], drafted: Draft) -> None:
    from json import dumps

    layout, snapshot, found = drafted.layout, drafted.snapshot, drafted.forecast
    content = {
        "run": layout.id,
        "directory": str(layout.root),
        "executor": drafted.chosen.executor,
        "log": str(layout.log),
        "world_size": drafted.world_size,
        "snapshot": {
            "id": snapshot.id,
            "commit": snapshot.commit,
            "left_out": [left._asdict() for left in snapshot.left_out],
        },
        "waits_for": drafted.wait.after,
        "forecast": found and {"seconds": found.seconds, "slices": found.slices},
        "warnings": list(found.warnings) if found else [],
        **more,
    }
    typer.echo(dumps(content, indent=2, ensure_ascii=False))
