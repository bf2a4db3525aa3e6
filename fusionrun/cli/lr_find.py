"""`fusionrun lr-find`: a rate range test, as a plot and as rates to write into the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusionrun.cli.options import JsonOption, RecipeArgument, RunsOption, SetOption

if TYPE_CHECKING:
    from fusionrun.plan.plan import Plan
    from fusionrun.plan.plot import Curve
    from fusionrun.plan.rate_curve import RateCurve, Suggestion

FORMATS = (".csv", ".json", ".svg")
MOST_STEPS = 10_000


def lr_find(
    recipe: RecipeArgument,
    set_: SetOption = None,
    low: Annotated[
        float, typer.Option("--low", help="first rate of the component with the highest one")
    ] = 1e-6,
    high: Annotated[float, typer.Option("--high", help="its last rate")] = 1.0,
    steps: Annotated[int, typer.Option("--steps", help="batches to train for, at most")] = 100,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="also write it: .csv, .json or .svg; repeatable"
        ),
    ] = None,
    runs: RunsOption = None,
    json: JsonOption = False,
) -> None:
    """Train for some steps at growing rates, and show where the loss falls and where it breaks out.

    All rates grow by equal factors and keep their ratio to each other. No run is made; the same
    recipe gives the same curve.
    """
    from fusionrun.plan.resolve import make_plan
    from fusionrun.plan.unsupported import refuse_unsupported
    from fusionrun.recipe.read import read_recipe
    from fusionrun.store.runs import runs_dir

    files = output or []
    _check(low, high, steps, files)
    plan = make_plan(read_recipe(recipe, set_ or []), runs_dir(runs))
    refuse_unsupported(plan)

    from fusionrun.train.lr_find import rate_range

    curve = rate_range(plan, low, high, steps)
    for file in files:
        _write(file, curve, plan)
    if json:
        import json as json_

        typer.echo(json_.dumps(curve.to_json(plan), indent=2))
    else:
        _show(curve, plan, files)


def _check(low: float, high: float, steps: int, files: list[Path]) -> None:
    from fusionrun.errors import UserError

    if not 0 < low < high < float("inf"):
        raise UserError(f"--low, --high: got {low:g} and {high:g}, expected 0 < low < high")
    if not 10 <= steps <= MOST_STEPS:
        raise UserError(f"--steps: got {steps}, expected from 10 to {MOST_STEPS:,}")
    for file in files:
        if file.suffix.lower() not in FORMATS:
            expected = f"a name that ends in {', '.join(FORMATS)}"
            raise UserError(f"--output: got {str(file)!r}, expected {expected}")


def _write(file: Path, curve: RateCurve, plan: Plan) -> None:
    from fusionrun.store.atomic import write_json, write_text

    match file.suffix.lower():
        case ".csv":
            write_text(file, curve.to_csv())
        case ".json":
            write_json(file, curve.to_json(plan))
        case _:
            from fusionrun.plan.plot import svg

            write_text(file, svg(_drawn(curve), f"{plan.name}: loss over the rate"))


def _show(curve: RateCurve, plan: Plan, files: list[Path]) -> None:
    from fusionrun.plan.plot import text_plot
    from fusionrun.plan.rate_curve import suggestions
    from fusionrun.plan.text import line_width

    typer.echo("\n".join(text_plot(_drawn(curve), line_width())))
    typer.echo(f"\n{len(curve.points)} steps; {curve.ended}")
    found = suggestions(curve)
    for letter, suggestion in zip("SM", found, strict=False):
        typer.echo(f"\n{letter}  {_words(suggestion, plan)}")
    if not found:
        typer.echo("\nthe loss did not fall, so nothing is suggested: try --low, or more --steps")
    for file in files:
        typer.echo(f"{file}  written")


def _words(suggestion: Suggestion, plan: Plan) -> str:
    from fusionrun.plan.rate_curve import written
    from fusionrun.plan.text import flow

    return (
        f"{suggestion.how}: {suggestion.rate:g}, {suggestion.factor:.3g} × the recipe's rates\n"
        f"   learning_rates: {flow(written(plan, suggestion.factor))}"
    )


def _drawn(curve: RateCurve) -> Curve:
    from fusionrun.plan.plot import Curve
    from fusionrun.plan.rate_curve import smoothed, suggestions

    means = smoothed([point.loss for point in curve.points])
    return Curve(
        xs=[point.rate for point in curve.points],
        ys=means,
        x_label=f"rate of {curve.component}, {curve.base:g} in the recipe",
        y_label="loss",
        # What breaks out would flatten all that matters.
        top=min(max(means), min(means) + 1.3 * (means[0] - min(means)) or max(means)),
        marks=[(letter, s.rate) for letter, s in zip("SM", suggestions(curve), strict=False)],
    )
