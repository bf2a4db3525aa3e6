"""`fusionrun export`: a component as a file of its own, checked against its manifest."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fusionrun.cli.options import JsonOption, RunsOption


class Which(StrEnum):
    """Which weights of a run."""

    best = "best"
    last = "last"


class Format(StrEnum):
    """File formats of an exported component."""

    safetensors = "safetensors"


def export(
    component: Annotated[
        str,
        typer.Option(
            "--component",
            metavar="NAME",
            help="fusion, global_head, experts.NAME, heads.NAME, experts.*, heads.* or all",
        ),
    ],
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="id, part of it, or directory")
    ] = None,
    which: Annotated[Which, typer.Option("--which", help="weights to take")] = Which.best,
    format_: Annotated[Format, typer.Option("--format", help="of the file")] = Format.safetensors,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PATH", help="file or directory")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite a different file")] = False,
    json: JsonOption = False,
    runs: RunsOption = None,
) -> None:
    """Copy components of a run out of it, verified. Without --run: the newest run that has any."""
    from json import dumps

    from fusionrun.store.export import export as export_files
    from fusionrun.store.runs import find_run, newest_with, runs_dir

    directory = runs_dir(runs)
    if run is None:
        words = f"components ({which.value} weights)"
        layout = newest_with(directory, lambda each: each.manifest(which.value), words)
    else:
        layout = find_run(directory, run)
    files = export_files(layout, component, which=which.value, output=output, force=force)
    if json:
        listed = [file.to_json() for file in files]
        content = {"run": layout.id, "which": which.value, "files": listed}
        typer.echo(dumps(content, indent=2))
        return
    typer.echo(f"run {layout.id}, {which.value} weights")
    for file in files:
        typer.echo(
            f"{file.name}  →  {file.path}  ({file.bytes:,} bytes, SHA-256 {file.sha256[:12]}…)"
        )
