"""`fusionrun init` and `fusionrun schema`: what a new recipe begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="the recipe to write")] = Path(
        "recipe.yaml"
    ),
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="PATH", help="an .npz file; without it, the shipped digits"),
    ] = None,
    label: Annotated[str, typer.Option("--label", help="name of the label in the data")] = "label",
    force: Annotated[bool, typer.Option("--force", help="overwrite an existing file")] = False,
) -> None:
    """Write a recipe to start from: one expert for each view of the data, preset tuned."""
    from fusionrun.recipe.starter import write_starter

    experts = write_starter(output, data or "package:handwritten_digits", label, force)
    noun = "expert" if experts == 1 else "experts"
    typer.echo(f"wrote {output}: {experts} {noun}, preset tuned")
    typer.echo(f"next: fusionrun plan {output}")


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="write it there")
    ] = None,
) -> None:
    """Print the recipe's JSON Schema, for editors that check and complete YAML."""
    from fusionrun.resources import shipped

    # Made from the models once and kept beside the recipes: making it takes a second each time.
    text = (shipped("recipes") / "recipe.schema.json").read_text(encoding="utf-8").rstrip("\n")
    if output is None:
        typer.echo(text)
        return
    from fusionrun.errors import UserError
    from fusionrun.store.atomic import write_text

    try:
        write_text(output, f"{text}\n")
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from error
    typer.echo(f"wrote {output}; begin a recipe with '# yaml-language-server: $schema={output}'")
