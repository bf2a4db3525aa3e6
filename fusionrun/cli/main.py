"""The command line: `fusionrun COMMAND`. Thin: parse, call, print. Heavy imports stay inside."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from fusionrun import __version__
from fusionrun.cli import options

COMMANDS = {
    "plan": "fusionrun.cli.plan",
    "train": "fusionrun.cli.train",
    "export": "fusionrun.cli.export",
    "init": "fusionrun.cli.start",
    "schema": "fusionrun.cli.start",
}
"""The module of each command, which has a function of the command's name; in the help's order."""


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with some of the commands: to read all of them takes a while."""
    app = typer.Typer(
        name="fusionrun",
        help="Train several expert networks and fuse them, from one recipe.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(root)
    for name in names:
        app.command(name)(options.known_errors(getattr(import_module(COMMANDS[name]), name)))
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fusionrun {__version__}")
        raise typer.Exit


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
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    options.debugging = len(arguments) < len(sys.argv) - 1
    called = arguments[:1]
    make_app(called if called and called[0] in COMMANDS else COMMANDS)(arguments)
