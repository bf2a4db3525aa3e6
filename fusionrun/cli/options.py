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
            typer.echo("interrupted", err=True)
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


def _tell(error: FusionrunError, *, as_json: bool) -> None:
    from json import dumps

    said = dumps(error.to_json()) if as_json else str(error)
    typer.echo(said, err=True)


def _write_no_more() -> None:
    """Let what is still to be printed go nowhere, when Python flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
