"""`fusionrun profile`: where a step's time goes on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusionrun.cli.options import JsonOption, RecipeArgument, RunsOption, SetOption

if TYPE_CHECKING:
    from fusionrun.recipe.read import Source

MOST_STEPS = 10_000


def profile(
    recipe: RecipeArgument,
    steps: Annotated[
        int,
        typer.Option("--steps", metavar="N", min=1, max=MOST_STEPS, help="steps to profile"),
    ] = 50,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.json", help="the trace to write, Perfetto's"),
    ] = None,
    set_: SetOption = None,
    runs: RunsOption = None,
    json: JsonOption = False,
) -> None:
    """Take a few steps of a recipe here and show where their time goes. No run is made.

    After a warm-up as many steps are timed as are then profiled, by component and phase.
    """
    from fusionrun.plan.resolve import make_plan
    from fusionrun.plan.unsupported import refuse_unsupported
    from fusionrun.recipe.read import read_recipe
    from fusionrun.store.runs import runs_dir

    _refuse_output(output)
    source = read_recipe(recipe, set_ or [])
    _refuse_sweep(source)
    plan = make_plan(source, runs_dir(runs))
    refuse_unsupported(plan)

    # What the profiler says of itself while it starts and stops; read when torch is imported.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from fusionrun.profiling.profile import profile as profile_of

    found = profile_of(plan, steps, output)
    if json:
        from json import dumps

        typer.echo(dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        from fusionrun.profiling.screen import screen

        typer.echo(screen(found))


def _refuse_output(output: Path | None) -> None:
    """Before anything takes long."""
    from fusionrun.errors import UserError

    if output is None:
        return
    if not output.name.lower().endswith((".json", ".json.gz")):
        expected = "a name that ends in .json or .json.gz"
        raise UserError(f"--output: got {str(output)!r}, expected {expected}")
    if not output.parent.is_dir():
        raise UserError(f"--output: got {str(output)!r}, and {output.parent} is no directory")
    was_there = output.exists()
    try:
        output.open("ab").close()  # (the profiler does not say that it could not write)
    except OSError as error:
        raise UserError(f"--output: {str(output)!r} cannot be written: {error.strerror}") from error
    if not was_there:
        output.unlink()


def _refuse_sweep(source: Source) -> None:
    from fusionrun.errors import Problem, RecipeError

    if source.recipe.sweep is not None:
        place = source.document.place(("sweep",), "key")
        got, expected = "a sweep, which makes several runs", "one run to profile"
        fix = "--set sweep=null profiles this one run without it"
        raise RecipeError([Problem(place, "sweep", got, expected, fix)])
