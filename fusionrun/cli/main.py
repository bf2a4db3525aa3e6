"""The command line: `fusionrun COMMAND`. Thin: parse, call, print. Heavy imports stay inside."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import Annotated, NamedTuple

import typer

from fusionrun import __version__
from fusionrun.cli import options


class Command(NamedTuple):
    """Where a command is, and what the list of commands says of it."""

    module: str
    summary: str


COMMANDS = {
    "plan": Command("fusionrun.cli.plan", "Show what a recipe resolves to, and why."),
    "train": Command("fusionrun.cli.train", "Train a recipe here, in the foreground."),
    "submit": Command("fusionrun.cli.submit", "Queue a recipe: Slurm, or here in the background."),
    "status": Command("fusionrun.cli.status", "Show how runs stand, and why."),
    "logs": Command("fusionrun.cli.logs", "Show what a run prints, across requeues."),
    "cancel": Command("fusionrun.cli.cancel", "Stop a run: at its next step, or at once."),
    "resume": Command("fusionrun.cli.resume", "Go on with a run that has ended early."),
    "runs": Command("fusionrun.cli.runs", "List the runs there are, with their results."),
    "export": Command("fusionrun.cli.export", "Copy components of a run out of it, verified."),
    "lr-find": Command("fusionrun.cli.lr_find", "Measure which learning rates a recipe bears."),
    "preview": Command("fusionrun.cli.preview", "Write the augmented first batch to a picture."),
    "profile": Command("fusionrun.cli.profile", "Show where the time of a step goes here."),
    "convert": Command("fusionrun.cli.convert", "Make safetensors of a torch state dict."),
    "init": Command("fusionrun.cli.start", "Write a recipe to start from."),
    "doctor": Command("fusionrun.cli.doctor", "Say what this machine and its cluster offer."),
    "schema": Command("fusionrun.cli.start", "Print the recipe's JSON Schema, for editors."),
}
"""Each command's module has a function of the command's name, with _ for -; in the help's order."""


def make_app(called: str | None = None) -> typer.Typer:
    """The command line: only the called command whole, as reading all of them takes a while.

    Args:
        called: a command, which then is the only one; None: all of them.
    """
    app = _empty_app()
    for name in COMMANDS if called is None else [called]:
        function = getattr(import_module(COMMANDS[name].module), name.replace("-", "_"))
        app.command(name, short_help=COMMANDS[name].summary)(options.known_errors(function))
    return app


def list_of_commands() -> typer.Typer:
    """The command line as its help shows it; the commands themselves are not read."""
    app = _empty_app()
    for name, command in COMMANDS.items():
        app.command(name, short_help=command.summary)(_not_read)
    return app


def _empty_app() -> typer.Typer:
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
    return app


def _not_read() -> None:
    raise RuntimeError("a command was called that stands only in the list of commands")


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
    try:
        _call(arguments)
    except KeyboardInterrupt:  # before the command had begun
        options.tell_interrupted(as_json="--json" in arguments)
        sys.exit(options.INTERRUPTED)


def _call(arguments: list[str]) -> None:
    called = arguments[0] if arguments else ""
    app = make_app(called) if called in COMMANDS else list_of_commands()
    if "--json" in arguments:
        sys.exit(options.call_for_programs(app, arguments))
    app(arguments)
