"""`fusionrun logs`: what a run has said, and says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fusionrun.cli.options import RunsOption

if TYPE_CHECKING:
    from fusionrun.store.layout import RunLayout
    from fusionrun.watch.look import SeenRun


def logs(
    run: Annotated[str, typer.Argument(metavar="RUN", help="id, part of it, or directory")],
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="go on until the run has ended, requeues included"),
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, metavar="LINES", help="last lines to begin with")
    ] = 100,
    runs: RunsOption = None,
) -> None:
    """Print the end of a run's log; with -f whatever comes until the run has ended."""
    from fusionrun.errors import FusionrunError
    from fusionrun.store.runs import find_run, runs_dir
    from fusionrun.watch.follow import end_of

    layout = find_run(runs_dir(runs), run)
    try:
        said, offset = end_of(layout.log, lines)
    except OSError as error:
        raise FusionrunError(f"{layout.log}: cannot be read: {error.strerror}") from error
    _write(said)
    if follow:
        _follow(layout, offset)
    elif not offset:
        _say_why_empty(layout)


def _write(data: bytes) -> None:
    """As it stands in the log, whatever its encoding."""
    import sys

    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _follow(layout: RunLayout, offset: int) -> None:
    from fusionrun.watch.follow import follow

    for data in follow(layout, offset, notify=_tell):
        if data:
            _write(data)


def _tell(run: SeenRun) -> None:
    """Between the log's lines, but on the other stream."""
    why = f" ({run.state.why})" if run.state.why else ""
    marked = "" if run.state.certain else ", as last known"
    typer.echo(f"[{run.facts.id}: {run.state.word}{marked}{why}]", err=True)


def _say_why_empty(layout: RunLayout) -> None:
    from fusionrun.watch.look import look

    (run,) = look([layout]).runs
    foreground = "; a run in the foreground speaks to its terminal" * (not run.facts.executor)
    typer.echo(f"{layout.log}: nothing there{foreground}", err=True)
    _tell(run)
