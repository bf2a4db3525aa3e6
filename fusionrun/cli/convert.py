"""`fusionrun convert`: a foreign torch state dict as a safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusionrun.cli.options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusionrun.store.convert import Converted


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what torch.save has written")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="the safetensors file to write")
    ],
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="NAME", help="where in FILE the state dict is (else state_dict, model)"
        ),
    ] = None,
    strip: Annotated[
        str, typer.Option("--strip", metavar="PREFIX", help="take away from names, as of DDP")
    ] = "",
    rename: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OLD=NEW", help="rename a prefix; may be repeated"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite a different file")] = False,
    json: JsonOption = False,
) -> None:
    """Make a safetensors file of a torch state dict, for `weights:`.

    Nothing of FILE is run: it may hold tensors and plain containers alone.
    """
    from json import dumps

    from fusionrun.store.convert import Renaming, parse_map
    from fusionrun.store.convert import convert as convert_file

    renaming = Renaming(strip, [parse_map(each) for each in rename or ()])
    made = convert_file(file, output, key=key, renaming=renaming, force=force)
    if json:
        typer.echo(dumps({"source": str(file), **made.to_json()}, indent=2))
    else:
        typer.echo("\n".join(_lines(file, made)))


def _lines(source: Path, made: Converted) -> Iterator[str]:
    under = f", under {made.key!r}" if made.key else ""
    yield f"{source}: {len(made.tensors)} tensor{'s' * (len(made.tensors) > 1)}{under}"
    width = max(map(len, made.tensors))
    for name, info in made.tensors.items():
        was = made.names[name]
        before = f"  was {was}" if was != name else ""
        yield f"  {name:{width}}  {info.dtype} {list(info.shape)}{before}"
    state = "unchanged" if made.unchanged else "written"
    yield f"{made.path}  ({made.bytes:,} bytes, SHA-256 {made.sha256[:12]}…), {state}"
