"""`fusionrun train`: plan, then train here, in the foreground."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from fusionrun.cli.options import JsonOption, RecipeArgument, RunsOption, SetOption

if TYPE_CHECKING:
    from pathlib import Path

    from fusionrun.recipe.read import Source
    from fusionrun.store.layout import RunLayout


def train(
    recipe: RecipeArgument,
    set_: SetOption = None,
    runs: RunsOption = None,
    new: Annotated[
        bool, typer.Option("--new", help="train again although this run exists already")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train a recipe here and end with its result table and its components."""
    import sys
    from contextlib import nullcontext, redirect_stdout

    with redirect_stdout(sys.stderr) if json else nullcontext():
        layout = _run_of(recipe, set_ or [], runs, new)
    from fusionrun.report import results_as_json, show_results

    if json:
        typer.echo(results_as_json(layout))
    else:
        show_results(layout)


def _run_of(recipe: Path, settings: list[str], runs: str | None, new: bool) -> RunLayout:
    """The finished run of a recipe: trained now, or before."""
    from fusionrun.launch import prepare
    from fusionrun.plan.screen import screen
    from fusionrun.plan.stages import make_plans
    from fusionrun.plan.unsupported import refuse_unsupported
    from fusionrun.recipe.read import read_recipe
    from fusionrun.store.runs import runs_dir
    from fusionrun.submit.trainer import announce

    source = read_recipe(recipe, settings)
    _refuse_sweep(source, recipe)
    directory = runs_dir(runs)
    plans = make_plans(source, directory)
    plan = plans.plan
    refuse_unsupported(plan)
    if plans.pretraining:
        from fusionrun.cli.train_stages import train_stages

        return train_stages(plans, source, directory, _again(recipe, settings, runs), new)
    start = prepare(plan, source.text, directory, new=new, first=announce)
    typer.echo(screen(plan, start.layout.root.name) + "\n")
    if start.finished:
        typer.echo(f"{start.layout.root} has finished already: the same plan, the same seed")
        typer.echo("its results follow; --new trains it again\n")
    else:
        typer.echo(start.note)
        train_here(start.layout)
    return start.layout


def _refuse_sweep(source: Source, recipe: Path) -> None:
    from shlex import quote

    from fusionrun.errors import Problem, RecipeError

    if source.recipe.sweep is None:
        return
    place, name = source.document.place(("sweep",), "key"), quote(str(recipe))
    fix = (
        f"`fusionrun submit {name} --executor local` trains its points here, one after the other; "
        f"`fusionrun train {name} --set sweep=null` this one run without it"
    )
    got, expected = "a sweep, which makes several runs", "one run: that is what `train` trains"
    raise RecipeError([Problem(place, "sweep", got, expected, fix)])


def _again(recipe: Path, settings: list[str], runs: str | None) -> str:
    """The command that was given, to be given once more."""
    import shlex

    options = [word for setting in settings for word in ("--set", setting)]
    where = ["--runs", runs] if runs else []
    return shlex.join(["fusionrun", "train", str(recipe), *options, *where])


def train_here(layout: RunLayout) -> None:
    """Train a run, or let it go on, in this process.

    Raises:
        KeyboardInterrupt: somebody interrupted it.
        FusionrunError: it failed, or somebody has asked it to stop.
    """
    import gc

    from fusionrun.errors import FusionrunError, TrainingError, UserError
    from fusionrun.launch import discard_if_empty, discard_unless_begun
    from fusionrun.report import how_far
    from fusionrun.submit.trainer import announce

    announce(layout)
    try:
        with _interrupts_wait():
            from fusionrun.train.job import run
        gc.enable()
        if run(layout) == "stopped":
            raise TrainingError("the run was asked to stop, and has saved where it is")
    except UserError:
        discard_if_empty(layout)
        raise
    except (FusionrunError, KeyboardInterrupt) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        if interrupted and discard_unless_begun(layout):
            typer.echo(f"{layout.root}: was not begun, and is removed", err=True)
        else:
            typer.echo(how_far(layout), err=True)
        raise


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C waits until the block has ended: within torch's import it would abort the process."""
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
