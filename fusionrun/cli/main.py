"""The command line: `fusionrun COMMAND`. Thin: parse, call, print. Heavy imports stay inside."""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated

import typer

from fusionrun import __version__
from fusionrun.cli import options
from fusionrun.cli.export import export
from fusionrun.cli.plan import plan
from fusionrun.cli.start import init, schema
from fusionrun.cli.train import train

app = typer.Typer(
    name="fusionrun",
    help="Train several expert networks and fuse them, from one recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

for command in (plan, train, export, init, schema):
    app.command()(options.known_errors(command))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fusionrun {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks; goes anywhere")] = False,
) -> None:
    """Train several expert networks and fuse them, from one recipe."""


def main() -> None:
    """Entry point of the `fusionrun` program."""
    # A command's start is imports; looking for garbage meanwhile only takes time.
    gc.disable()
    # Looking for pydantic's plugins reads every installed package's metadata, at each start.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    arguments = sys.argv[1:]
    options.debugging = "--debug" in arguments
    app([argument for argument in arguments if argument != "--debug"])
