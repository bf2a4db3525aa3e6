"""`fusionrun plan`: everything that would be trained, and why. No torch, no network, no writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusionrun.cli.options import JsonOption, RecipeArgument, RunsOption, SetOption, SiteOption

if TYPE_CHECKING:
    from fusionrun.plan.plan import Plan
    from fusionrun.recipe.read import Source
    from fusionrun.submit.preview import Preview


def plan(
    recipe: RecipeArgument,
    set_: SetOption = None,
    full: Annotated[bool, typer.Option("--full", help="every value with its reason")] = False,
    json: JsonOption = False,
    yaml: Annotated[
        bool, typer.Option("--yaml", help="print a recipe with every value resolved")
    ] = False,
    why: Annotated[
        str | None, typer.Option("--why", metavar="KEY", help="the chain behind one value")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="RUN_OR_RECIPE", help="what changed, what it costs"),
    ] = None,
    site: SiteOption = None,
    runs: RunsOption = None,
) -> None:
    """Show what a recipe resolves to: rates, schedules, sizes, steps, warnings. Writes nothing."""
    one = {"full": full, "yaml": yaml, "why": why is not None, "against": against is not None}
    _only_one(**one)
    _only_one(json=json, yaml=yaml)
    source = _source(recipe, set_ or [], site)
    resolved = _plan_of(source, runs)
    if against is not None:
        typer.echo(_against(resolved, against, site, runs, json))
    elif why is not None:
        typer.echo(_why(resolved, why, json))
    elif yaml:
        typer.echo(_yaml(resolved))
    else:
        states = _states(resolved, runs)
        typer.echo(_view(resolved, _preview(source, resolved, runs), states, full, json))


def _only_one(**chosen: bool) -> None:
    from fusionrun.errors import UserError

    names = [f"--{name}" for name, given in chosen.items() if given]
    if len(names) > 1:
        raise UserError(f"{' and '.join(names)} show different things; give one of them")


def _source(recipe: Path, settings: list[str], site: str | None) -> Source:
    from fusionrun.recipe.read import read_recipe
    from fusionrun.recipe.site import site_file

    return read_recipe(recipe, settings, site_file(site))


def _plan_of(source: Source, runs: str | None) -> Plan:
    from fusionrun.plan.resolve import make_plan
    from fusionrun.store.runs import runs_dir

    return make_plan(source, runs_dir(runs))


def _preview(source: Source, plan: Plan, runs: str | None) -> Preview | None:
    """What submitting it would come to; what that takes is not imported without need."""
    if source.recipe.slurm is None:
        return None
    from fusionrun.store.runs import runs_dir
    from fusionrun.submit.preview import preview

    return preview(source, source.recipe.slurm, plan, runs_dir(runs))


def _states(plan: Plan, runs: str | None) -> dict[str, str]:
    """How the pretraining of each expert stands."""
    if not plan.pretraining:
        return {}
    from fusionrun.store.pretrained import pretraining_states
    from fusionrun.store.runs import runs_dir

    return pretraining_states(plan.pretraining, runs_dir(runs))


def _yaml(plan: Plan) -> str:
    from fusionrun.plan.as_recipe import as_recipe

    return as_recipe(plan).rstrip("\n")


def _view(
    plan: Plan, submission: Preview | None, states: dict[str, str], full: bool, json: bool
) -> str:
    from fusionrun.plan.reasons import every_value
    from fusionrun.plan.screen import screen
    from fusionrun.plan.text import labelled
    from fusionrun.store.layout import run_id

    if json:
        more = submission.to_json() if submission else {"script": None, "forecast": None}
        content = plan.to_json()
        for name, state in states.items():
            content["pretraining"][name]["state"] = state
        return _dumped({**content, **more})
    parts = [screen(plan, run_id(plan.name, plan.hash, plan.seed), states)]
    parts += [every_value(plan)] if full else []
    if submission:
        parts += ["\n".join(labelled(submission.rows())), submission.script]
    return "\n\n".join(parts).rstrip("\n")


def _why(plan: Plan, key: str, json: bool) -> str:
    from fusionrun.plan.reasons import why

    full = _full_key(plan, key)
    if not json:
        return why(plan, full)
    content = {"key": full, **plan.to_json()["values"][full]}
    if plan.stages:
        from fusionrun.plan.stage_screen import by_stage_as_json

        content["by_stage"] = by_stage_as_json(plan, full)
    return _dumped(content)


def _full_key(plan: Plan, key: str) -> str:
    """The plan's key that is meant; a bare word that is none is answered with the nearest."""
    from fusionrun.errors import UserError
    from fusionrun.plan.reasons import find_key

    try:
        return find_key(plan, key)
    except UserError as error:
        from fusionrun.recipe.suggest import key_of_plan

        is_section = any(full.startswith(f"{key}.") for full in plan.values)
        meant = None if is_section or "." in key else key_of_plan(key, plan.values)
        if meant is None:
            raise
        raise UserError(
            f"the plan has no value {key!r}; did you mean {meant!r}?\n--full lists all of them"
        ) from error


def _against(plan: Plan, other: str, site: str | None, runs: str | None, json: bool) -> str:
    from fusionrun.plan.against import compare, render

    comparison = compare(plan, _other_plan(other, site, runs))
    return _dumped(comparison.to_json()) if json else render(comparison, other)


def _other_plan(other: str, site: str | None, runs: str | None) -> Plan:
    from fusionrun.plan.stored import read_plan
    from fusionrun.store.runs import find_run, runs_dir

    if other.endswith((".yaml", ".yml")):
        return _plan_of(_source(Path(other), [], site), runs)
    return read_plan(find_run(runs_dir(runs), other).plan)


def _dumped(content: object) -> str:
    from json import dumps

    return dumps(content, indent=2, ensure_ascii=False)
