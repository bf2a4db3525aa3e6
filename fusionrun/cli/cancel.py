"""`fusionrun cancel`: end a run, gracefully unless told otherwise."""

from __future__ import annotations

from typing import Annotated

import typer

from fusionrun.cli.options import JsonOption, RunsOption


def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run: its id, or a part of it")],
    runs: RunsOption = None,
    now: Annotated[
        bool, typer.Option("--now", help="at once, without a checkpoint of the last steps")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Let a run save and stop at its next step, or take it out of the queue."""
    from json import dumps

    from fusionrun.store.runs import find_run, runs_dir, typed
    from fusionrun.submit.cancel import cancel as end

    layout = find_run(runs_dir(runs), run)
    done = end(layout, at_once=now)
    if json:
        typer.echo(dumps({"run": layout.id, "done": done.done, "words": done.words}, indent=2))
        return
    typer.echo(done.words)
    if done.done != "nothing":
        typer.echo(f"next        {typed(layout, 'resume')}")
