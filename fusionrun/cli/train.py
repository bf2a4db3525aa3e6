"""`fusionrun train`: plan, then train here, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fusionrun.cli.options import RecipeArgument, RunsOption, SetOption

if TYPE_CHECKING:
    from fusionrun.store.layout import RunLayout


def train(
    recipe: RecipeArgument,
    set_: SetOption = None,
    runs: RunsOption = None,
    new: Annotated[
        bool, typer.Option("--new", help="train again although this run exists already")
    ] = False,
) -> None:
    """Train a recipe here and end with its result table and its components."""
    from fusionrun.launch import prepare
    from fusionrun.plan.resolve import make_plan
    from fusionrun.plan.screen import screen
    from fusionrun.plan.unsupported import refuse_unsupported
    from fusionrun.recipe.read import read_recipe
    from fusionrun.store.runs import runs_dir

    source = read_recipe(recipe, set_ or [])
    directory = runs_dir(runs)
    plan = make_plan(source, directory)
    refuse_unsupported(plan)
    start = prepare(plan, source.text, directory, new=new)
    typer.echo(screen(plan, start.layout.root.name) + "\n")
    if start.finished:
        typer.echo(f"{start.layout.root} has finished already: the same plan, the same seed")
        typer.echo("its results follow; --new trains it again\n")
    else:
        typer.echo(start.note)
        _train(start.layout)
    from fusionrun.report import show_results

    show_results(start.layout)


def _train(layout: RunLayout) -> None:
    import gc

    from fusionrun.errors import FusionrunError
    from fusionrun.report import how_far
    from fusionrun.train.job import run

    gc.enable()
    try:
        run(layout)
    except (FusionrunError, KeyboardInterrupt):
        typer.echo(how_far(layout), err=True)
        raise
