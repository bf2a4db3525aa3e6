"""`fusionrun status`: how runs stand, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fusionrun.cli.options import JsonOption, RunsOption

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from fusionrun.store.layout import RunLayout
    from fusionrun.watch.look import Look

OUT_OF_REACH = 4
EVERY_S = 5.0


def status(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="id, part of it, or directory; else all runs"),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="look again every 5 seconds until all have ended")
    ] = False,
    json: JsonOption = False,
    runs: RunsOption = None,
) -> None:
    """Show how runs stand; with RUN why it waits, or why it failed, and what to do.

    A RUN that fits several, such as a sweep's name, shows those; with --json it must fit one.
    Ends with 4 where Slurm is out of reach and the states shown are the last known ones.
    """
    from fusionrun.store.runs import planless_notes, runs_dir

    directory = runs_dir(runs)
    seen = _watch(directory, run, json) if watch else _once(directory, run, json)
    for note in planless_notes(directory) if run is None else ():
        typer.echo(note, err=True)
    if not seen.is_certain:
        raise typer.Exit(OUT_OF_REACH)


def _once(directory: Path, run: str | None, json: bool) -> Look:
    from fusionrun.watch.columns import make_console
    from fusionrun.watch.look import look

    meant = _meant(directory, run, json)
    seen = look(meant, thorough=run is not None and len(meant) == 1)
    if json:
        typer.echo(_as_json(seen, directory, run, indent=2))
    else:
        _print(seen, directory, run, make_console())
    return seen


def _watch(directory: Path, run: str | None, json: bool) -> Look:
    """Look again and again: on a terminal in place, as JSON one line a look, else one below."""
    import time

    from fusionrun.watch.columns import make_console
    from fusionrun.watch.look import look
    from fusionrun.watch.state import ENDED

    console = make_console()
    while True:
        seen = look(_meant(directory, run, json))
        if json:
            typer.echo(_as_json(seen, directory, run, indent=None))
        else:
            console.clear()  # (does nothing where the output is piped)
            _print(seen, directory, run, console)
        if seen.is_certain and all(each.state.word in ENDED for each in seen.runs):
            return seen
        time.sleep(EVERY_S)


def _meant(directory: Path, run: str | None, json: bool) -> Sequence[RunLayout]:
    """One run's JSON is of another form than that of several, so there one must be meant."""
    from fusionrun.store.runs import find_run, find_runs, list_runs

    if run is None:
        return list_runs(directory)
    return [find_run(directory, run)] if json else find_runs(directory, run)


def _as_json(seen: Look, directory: Path, run: str | None, indent: int | None) -> str:
    from json import dumps

    from fusionrun.watch.look import look_as_json, run_as_json
    from fusionrun.watch.screen import LOG_LINES

    content = look_as_json(seen, directory) if run is None else run_as_json(seen, LOG_LINES)
    return dumps(content, indent=indent, ensure_ascii=False)


def _print(seen: Look, directory: Path, run: str | None, console: Console) -> None:
    from fusionrun.store.runs import no_runs
    from fusionrun.watch.screen import damage_notes, print_run, summary, table, unreachable_note

    of_one = run is not None and len(seen.runs) == 1
    if of_one:
        print_run(seen, console)
    elif seen.runs:
        console.print(table(seen, console.width))
        console.print(summary(seen), style="dim", highlight=False)
        for note in damage_notes(seen):
            typer.echo(note, err=True)
    else:
        typer.echo(no_runs(directory))
    if note := unreachable_note(seen, of_one=of_one):
        typer.echo(note, err=True)
