"""`fusionrun doctor`: what this machine and cluster offer."""

from __future__ import annotations

import typer

from fusionrun.cli.options import JsonOption, RunsOption

OUT_OF_REACH = 4


def doctor(runs: RunsOption = None, json: JsonOption = False) -> None:
    """Show what this machine and cluster offer, and what that means for a recipe.

    Ends with 4 where Slurm is installed and does not answer.
    """
    from fusionrun.doctor import examine, screen
    from fusionrun.slurm.client import Slurm
    from fusionrun.store.runs import runs_dir

    report = examine(Slurm(), runs_dir(runs))
    if json:
        from json import dumps

        typer.echo(dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        typer.echo(screen(report))
    if report.reachable is False:
        raise typer.Exit(OUT_OF_REACH)
