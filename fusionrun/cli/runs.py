"""`fusionrun runs`: what there is, with results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from fusionrun.cli.options import JsonOption, RunsOption

if TYPE_CHECKING:
    from pathlib import Path

    from fusionrun.watch.look import Look


def runs(json: JsonOption = False, runs: RunsOption = None) -> None:
    """List the runs there are, the newest first, with what came of them."""
    from fusionrun.store.runs import list_runs, planless_notes, runs_dir
    from fusionrun.watch.look import look
    from fusionrun.watch.screen import unreachable_note

    directory = runs_dir(runs)
    seen = look(list_runs(directory))
    if json:
        from json import dumps

        from fusionrun.watch.listing import listing_as_json

        content = listing_as_json(seen, directory)
        typer.echo(dumps(content, indent=2, ensure_ascii=False))
    else:
        _print(seen, directory)
    for lost in planless_notes(directory):
        typer.echo(lost, err=True)
    if note := unreachable_note(seen):
        typer.echo(note, err=True)


def _print(seen: Look, directory: Path) -> None:
    from fusionrun.store.runs import no_runs
    from fusionrun.watch.columns import make_console
    from fusionrun.watch.listing import listing
    from fusionrun.watch.screen import damage_notes

    if seen.runs:
        console = make_console()
        console.print(listing(seen, console.width))
        for note in damage_notes(seen):
            typer.echo(note, err=True)
    else:
        typer.echo(no_runs(directory))
