"""Arguments and options that several commands share, and how errors become exit codes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from fusionrun.errors import FusionrunError

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="the recipe's YAML file")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="change a key of the recipe; may be repeated"),
]
RunsOption = Annotated[
    str | None,
    typer.Option(
        "--runs", metavar="DIR", help="where runs live (else FUSIONRUN_RUNS, else ./runs)"
    ),
]
SiteOption = Annotated[
    str | None,
    typer.Option(
        "--site",
        metavar="FILE",
        help="the cluster's slurm section (else ~/.config/fusionrun/slurm.yaml)",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]

debugging = False
"""Set by `--debug`: known errors show their traceback too."""


def known_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Show a known error as its message and end with its exit code; no traceback.

    With `--json` the error is JSON too, on one line: the last of stderr, as stdout is the result's.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        from fusionrun.errors import FusionrunError

        try:
            return command(*args, **kwargs)
        except FusionrunError as error:
            if debugging:
                raise
            _tell(error, as_json=bool(kwargs.get("json")))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            tell_interrupted(as_json=bool(kwargs.get("json")))
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError as error:
            # Nobody reads on. Python flushes stdout once more at its end: into nothing.
            _write_no_more()
            raise typer.Exit(0) from error
        except OSError as error:
            if debugging:
                raise
            from fusionrun.store.disk_errors import in_words

            known = FusionrunError(f"cannot go on: {in_words(error)}")
            _tell(known, as_json=bool(kwargs.get("json")))
            _write_no_more()
            raise typer.Exit(FusionrunError.exit_code) from error

    return wrapped


def call_for_programs(app: typer.Typer, arguments: list[str]) -> int:
    """Run a command line that asks for JSON, and return its exit code.

    What is wrong with the command line itself is then told as any other error is.
    """
    from fusionrun.errors import UserError

    try:
        return app(arguments, standalone_mode=False) or 0
    except Exception as error:
        in_words = getattr(error, "format_message", None)  # click's, which is not to be imported
        if in_words is None:
            raise
        _tell(UserError(in_words()), as_json=True)
        return UserError.exit_code


def say(words: str) -> None:
    """Print to whoever watches a run: that nobody reads on is no reason not to train."""
    try:
        typer.echo(words)
    except BrokenPipeError:
        _write_no_more()


def tell_interrupted(*, as_json: bool) -> None:
    """Say that somebody at the keyboard has ended the command."""
    if not as_json:
        typer.echo("interrupted", err=True)
        return
    from json import dumps

    from fusionrun.errors import FusionrunError

    said = FusionrunError("interrupted").to_json()
    typer.echo(dumps({**said, "error": "Interrupted", "exit_code": INTERRUPTED}), err=True)


def _tell(error: FusionrunError, *, as_json: bool) -> None:
    from json import dumps

    said = dumps(error.to_json()) if as_json else str(error)
    typer.echo(said, err=True)


def _write_no_more() -> None:
    """Let what is still to be printed go nowhere, also what Python flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
