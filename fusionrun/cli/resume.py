"""`fusionrun resume`: let a run go on that failed, was stopped, or came to its last time limit."""

from __future__ import annotations

from typing import Annotated

import typer

from fusionrun.cli.options import JsonOption, RunsOption
from fusionrun.cli.submit import ExecutorOption, next_commands


def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run: its id, or a part of it")],
    runs: RunsOption = None,
    executor: ExecutorOption = None,
    allow_inexact: Annotated[
        bool,
        typer.Option(
            "--allow-inexact",
            help="go on although versions, device, data or ranks differ, to other bits",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Let a run go on from its last checkpoint, in the same directory, with the same code."""
    from json import dumps

    from fusionrun.slurm.client import Slurm
    from fusionrun.store.runs import find_run, runs_dir
    from fusionrun.submit.resume import resume as go_on

    layout = find_run(runs_dir(runs), run)
    done = go_on(layout, Slurm(), executor.value if executor else None, allow_inexact=allow_inexact)
    if json:
        start = done.verdict.start if done.verdict else None
        content = {
            "run": layout.id,
            "directory": str(done.layout.root),
            "was": done.was,
            "executor": done.executor,
            "job_id": done.job_id,
            "start": start,
            "snapshot": done.snapshot,
            "code": done.code,
            "waits": done.waits or None,
            "log": str(done.layout.log),
        }
        typer.echo(dumps(content, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{layout.id}: was {done.was}; {done.code}")
    if done.waits:
        typer.echo(f"waits       {done.waits}")
    if done.verdict and done.verdict.start and not done.waits:
        from fusionrun.slurm.words import expected_start

        typer.echo(f"starts      {expected_start(done.verdict.start)}")
    typer.echo(f"{'job' if done.executor == 'slurm' else 'process':12}{done.job_id}")
    typer.echo(f"log         {done.layout.log}")
    typer.echo(next_commands(layout))
