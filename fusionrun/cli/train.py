"""`fusionrun train`: plan, then train here, in the foreground."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from fusionrun.cli.options import JsonOption, RecipeArgument, RunsOption, SetOption, say

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
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
    """Train a recipe here, or every point of its sweep, and end with results and components."""
    import sys
    from contextlib import nullcontext, redirect_stdout

    from fusionrun.recipe.read import read_recipe
    from fusionrun.store.runs import runs_dir

    settings, directory = set_ or [], runs_dir(runs)
    source, again = read_recipe(recipe, settings), _again(recipe, settings, runs)
    quietly = redirect_stdout(sys.stderr) if json else nullcontext()
    if source.recipe.sweep is not None:
        _train_sweep(recipe, settings, directory, again, new, json, quietly)
        return
    with quietly:
        layout = _run_of(source, directory, again, new)
    from fusionrun.report import results_as_json, show_results

    if json:
        typer.echo(results_as_json(layout))
    else:
        show_results(layout)


def _train_sweep(
    recipe: Path,
    settings: list[str],
    directory: Path,
    again: str,
    new: bool,
    json: bool,
    quietly: AbstractContextManager[object],
) -> None:
    from fusionrun.cli.train_sweep import refuse_incomplete, train_sweep

    with quietly:
        trained = train_sweep(recipe, settings, directory, again, new)
    from fusionrun.sweep_report import points_as_json, show_points

    pairs = list(zip(trained.points, trained.layouts, strict=True))
    if json:
        typer.echo(points_as_json([(p.settings, run) for p, run in pairs], trained.errors))
    else:
        show_points([(p.briefly(), run) for p, run in pairs if run.id not in trained.errors])
    refuse_incomplete(trained)


def _run_of(source: Source, directory: Path, again: str, new: bool) -> RunLayout:
    """The finished run of a recipe: trained now, or before."""
    from fusionrun.launch import prepare
    from fusionrun.plan.screen import screen
    from fusionrun.plan.stages import make_plans
    from fusionrun.plan.unsupported import refuse_unsupported
    from fusionrun.submit.trainer import announce

    plans = make_plans(source, directory)
    plan = plans.plan
    refuse_unsupported(plan)
    if plans.pretraining:
        from fusionrun.cli.train_stages import train_stages

        return train_stages(plans, source, directory, again, new)
    start = prepare(plan, source.text, directory, new=new, first=announce)
    say(screen(plan, start.layout.root.name) + "\n")
    if start.finished:
        say(f"{start.layout.root} has finished already: the same plan, the same seed")
        say("its results follow; --new trains it again\n")
    else:
        say(start.note)
        train_here(start.layout)
    return start.layout


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
        with interrupts_wait():
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
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C waits until the block has ended: within torch's import it would abort the process."""
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
